"""Claim: training masks takes no more memory for a hundred times as many instances: run lengths in, decoded on demand.

Peer: the same training on supervision's `DetectionDataset`, which reads the same COCO file into dense bool masks and
holds them; measured with 50 and with 250 pictures and reckoned on from there, because 50,000 masks of 640x480 are
14 GiB.
Measured: peak resident memory of whole processes, Python and torch included, watched from outside, with 50 and with
5,000 pictures of ten objects each. Every process takes as many steps of the same size with the same head, on a fixed
random encoder, over pictures drawn from all; pictures are read anew each time, so that nothing but what is known of
their objects can grow. The 50 pictures' losses are compared between both sides.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks._claims import Options, Outcome, Part, say
from benchmarks._harness import Watched, run_module

GOAL = "50,000 instance masks stored take at most 32 MiB more than 500 to train on"
FEW, MORE, MANY, OBJECTS = 50, 250, 5_000, 10

_MIB = 2**20
_EQUAL = 1e-4


def run(options: Options) -> Outcome:
    """Train in a process for each."""
    with tempfile.TemporaryDirectory(prefix="manylens-bench-") as name:
        folders = {count: Path(name) / str(count) for count in (FEW, MORE, MANY)}
        for count, folder in folders.items():
            _watched("make", folder, images=count)
        few, many = (_watched("ours", folders[count]) for count in (FEW, MANY))
        dense_few, dense_more = (_watched("dense", folders[count]) for count in (FEW, MORE))
    grown = (many.peak_rss - few.peak_rss) / _MIB
    each = (dense_more.peak_rss - dense_few.peak_rss) / (MORE - FEW)
    apart = max(abs(a - b) for a, b in zip(few.said["losses"], dense_few.said["losses"], strict=True))
    return Outcome(
        [
            Part("memory grown by", grown, each * (MANY - FEW) / _MIB, "MiB", 32.0),
            Part("peak memory, few", few.peak_rss / _MIB, dense_few.peak_rss / _MIB, "MiB"),
        ],
        {"losses equal to those with dense masks to 1e-4": apart < _EQUAL},
        {
            "instances": {"few": FEW * OBJECTS, "many": MANY * OBJECTS},
            "peak, many, MiB": round(many.peak_rss / _MIB, 1),
            "dense masks, MiB": {FEW: round(dense_few.peak_rss / _MIB), MORE: round(dense_more.peak_rss / _MIB)},
            "seconds a step": {
                "ours": few.said["step"],
                "ours, many": many.said["step"],
                "dense": dense_few.said["step"],
            },
            "seconds to read": {"ours, many": many.said["read"], "dense": dense_more.said["read"]},
        },
    )


def _watched(who: str, folder: Path, **told: int) -> Watched:
    say(f"train-memory: {who}, {folder.name} pictures")
    return run_module("benchmarks._training_run", {"who": who, "folder": str(folder), **told})
