"""Claim: a second visit to a photo with SAM ViT-B, in a new process, takes a 50th of the first or less.

Peer: the first visit, by the same code, in a process of its own too.
Measured: in each process the time of one `session.run` of a click, libraries imported and the checkpoint's folder
found and hashed, but no model loaded: so the first visit loads and runs the encoder and the decoder, and the second
reads the embedding from disk and loads the decoder alone. The compiled forms of both networks are kept from another
photo before the clock starts, for both alike: compiling counts for neither. The medians over photos. The whole process,
from its start to its end with Python and the libraries, is told beside it.
Engine: OpenVINO, bf16 where the processor has it. The weights are seeded noise of ViT-B's true shape.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from benchmarks import _sam
from benchmarks._claims import Options, Outcome, Part, say
from benchmarks._harness import Watched, fresh_home, run_module
from benchmarks._pictures import crops

GOAL = "SAM ViT-B: the second visit to a photo, in a new process, >= 50x the first"
PHOTOS = 3

_TIMES = 50.0


def run(options: Options) -> Outcome:
    """Visit each photo twice, each time from a new process."""
    settings, folder = _sam.settings(), _sam.checkpoint()
    with fresh_home(), tempfile.TemporaryDirectory() as name:
        warm, *photos = crops(Path(name), PHOTOS + 1, seed=7)

        def visit(photo: Path) -> Watched:
            told = {"photo": str(photo), "folder": str(folder)}
            return run_module("benchmarks._visit", told | {"engine": settings.engine, "precision": settings.precision})

        visit(warm)
        first, second = [], []
        for photo in photos:
            say(f"second-visit: {photo.name}, {settings.label}")
            first.append(visit(photo))
            second.append(visit(photo))
    calls = [statistics.median(one.said["seconds"] for one in visits) for visits in (second, first)]
    wholes = [statistics.median(one.seconds for one in visits) for visits in (second, first)]
    memory = [max(one.peak_rss for one in visits) / (1 << 20) for visits in (second, first)]
    return Outcome(
        [
            Part("second visit", calls[0], calls[1], "s", 1 / _TIMES, "ratio"),
            Part("whole process", wholes[0], wholes[1], "s"),
            Part("peak memory", memory[0], memory[1], "MiB"),
        ],
        {
            "the first visit encodes": {one.said["cache"] for one in first} == {"miss"},
            "the second finds it on disk": {one.said["cache"] for one in second} == {"disk"},
            "torch is not imported": not any(one.said["torch"] for one in second),
            "the same masks": [one.said["masks"] for one in first] == [one.said["masks"] for one in second],
        },
        {"engine": settings.label, "photos": PHOTOS, "times faster": round(calls[1] / calls[0], 1)},
    )
