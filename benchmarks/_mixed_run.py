"""All tasks in one process, for :mod:`benchmarks.budget`: prints what is held in the end, and what failed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from benchmarks._pictures import EXAMPLES

ROUNDS = 2


def main() -> None:
    """Run every task twice and print a JSON line."""
    import manylens
    from manylens import ManylensError, Session
    from manylens.runtime.memory import peak_resident_bytes

    with Session(memory_budget=json.loads(sys.argv[1])["budget"]) as session:
        peaks: dict[str, int] = {}
        failed: dict[str, str] = {}
        for _ in range(ROUNDS):
            for name, call in _calls(manylens, session).items():
                try:
                    call()
                except ManylensError as error:
                    failed[name] = str(error)
                peaks.setdefault(name, peak_resident_bytes() >> 20)
        held = [f"{each.key} {each.bytes >> 20} MiB" for each in session.residency.held()]
    print(json.dumps({"peak MiB after": peaks, "held": held, "failed": failed}))


def _calls(manylens: Any, session: Any) -> dict[str, Callable[[], Any]]:
    cat, coffee, sign, man = (str(EXAMPLES / f) for f in ("cat.jpg", "coffee.jpg", "sign.png", "photographer.jpg"))

    def ask() -> None:
        steps = manylens.ask("Cut out the cat and tell me what it is", cat, session=session).steps
        for step in steps:
            if step.error:
                raise step.error

    return {
        "segment, click": lambda: manylens.segment(cat, points=[(200, 165)], session=session),
        "segment, box": lambda: manylens.segment(coffee, box=(173, 18, 409, 308), session=session),
        "segment, words": lambda: manylens.segment(man, text="person", session=session),
        "detect": lambda: manylens.detect(coffee, session=session),
        "classify": lambda: manylens.classify(cat, session=session),
        "classify, names": lambda: manylens.classify(cat, names=["cat", "dog", "rocket"], session=session),
        "embed": lambda: manylens.embed(cat, session=session),
        "embed, text": lambda: manylens.embed(text="a cat", session=session),
        "embed, patches": lambda: manylens.embed(coffee, dense=True, session=session),
        "read": lambda: manylens.read(sign, session=session),
        "answer": lambda: manylens.answer(cat, "How many cats are there?", session=session),
        "ask": ask,
    }


if __name__ == "__main__":
    main()
