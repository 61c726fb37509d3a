"""Claim: each family of full-size checkpoints answers faster than plain transformers does on the same processor.

Peer: what a user of transformers writes: the family's own image processor in its PIL form, the model in float32 with
eager attention and as many threads, and the family's own post-processing to the photo's size.
Measured: from a decoded 640x480 photo that none has seen to the answer, all of `session.run` and all of the peer, the
median of rounds that all take in turns after one that does not count. Ours is OpenVINO: like for like in float32, which
the claim is held to, and beside it bf16 where the processor has it. The checkpoints have the published shapes and noise
for weights: the time of a network does not depend on what they are; that the numbers are the same is held by the tests.
SAM and DINOv2 have claims of their own. `--full` adds the large ones.
"""

from __future__ import annotations

import gc
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks._claims import Options, Outcome, Part, say
from benchmarks._families import FAMILIES, Family, checkpoint
from benchmarks._harness import fresh_home, in_turns, medians
from benchmarks._pictures import crops

GOAL = "each family of full-size checkpoints faster than plain transformers, float32 for float32"
ROUNDS = 3

_PHOTO = (640, 480)


def run(options: Options) -> Outcome:
    """Measure each family for itself, so that only one is in memory."""
    from manylens.runtime.engines import has_bf16

    precisions = ("f32", "bf16") if has_bf16() else ("f32",)
    parts: list[Part] = []
    for name, family in FAMILIES.items():
        if family.large and not options.full:
            continue
        say(f"families: {name}")
        with fresh_home() as home, tempfile.TemporaryDirectory() as folder:
            seconds = _measured(family, home, Path(folder), precisions)
        gc.collect()
        for precision in precisions:
            goal = 1.0 if precision == "f32" else None
            parts.append(Part(f"{name}, {precision}", seconds[precision], seconds["peer"], "s", goal, "ratio"))
    parts.sort(key=lambda part: (part.goal is None, -(part.ratio or 0)))  # the least gain stands for the claim
    return Outcome(parts, {}, {"times faster": {part.name: round(1 / (part.ratio or 1), 2) for part in parts}})


def _measured(family: Family, home: Path, folder: Path, precisions: tuple[str, ...]) -> dict[str, float]:
    """Median seconds of the peer and of ours in each precision."""
    import torch

    from manylens.media import Image
    from manylens.runtime.cpu import threads
    from manylens.session import Session

    made = checkpoint(family, folder / "checkpoint")
    photos = [Image.of(path) for path in crops(folder, ROUNDS + 1, seed=11, size=_PHOTO)]
    torch.set_num_threads(threads())
    peer = family.peer(_plain(family, made), made)
    sessions = {one: Session(home=home, engine="openvino", precision=one) for one in precisions}
    turns = {name: iter(photos) for name in ("peer", *precisions)}

    def theirs() -> None:
        with torch.inference_mode():
            peer(next(turns["peer"]).array)

    calls = {"peer": theirs}
    for precision, session in sessions.items():
        calls[precision] = partial(_ours, session, family, made, turns[precision])
    try:
        return medians(in_turns(calls, ROUNDS))
    finally:
        for session in sessions.values():
            session.close()


def _plain(family: Family, folder: Path) -> Any:
    """The checkpoint as plain transformers loads it."""
    import torch

    cls = type(family.model())
    return cls.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def _ours(session: Any, family: Family, folder: Path, photos: Any) -> None:
    from manylens.tasks import request

    session.run(request(family.task, image=next(photos), **family.asked()), model=str(folder))
