"""One click in a process of its own, for :mod:`benchmarks.click`: prints where the photo's encoding was found."""

from __future__ import annotations

import json
import sys

from benchmarks._harness import cache_of, timed


def main() -> None:
    """Click and print a JSON line; imports count to nobody, as the model is loaded before the first click, too."""
    from manylens.session import Session
    from manylens.tasks import request

    told = json.loads(sys.argv[1])
    with Session() as session:
        import supervision  # noqa: F401

        seconds, found = timed(
            lambda: session.run(request("segment", image=told["photo"], points=[tuple(told["point"])]))
        )
        print(json.dumps({"seconds": seconds, "cache": cache_of(found)}))


if __name__ == "__main__":
    main()
