"""Claim: evaluating 10,000 instance masks of 640x480 keeps the whole process under 2 GiB.

Peer: supervision's `MeanAveragePrecision` of masks, which takes dense bool masks; a tenth of the pictures, and the rest
reckoned from what its process grew by, because 20,000 dense masks are 5.7 GiB before anything is compared. pycocotools,
which takes RLE too, runs on all of them for information, and says whether the numbers are equal.
Measured: 1,000 images with ten objects and ten predictions each, RLE made on the way, so that neither side holds more
than it must; each in a process of its own, whose peak resident memory is watched from outside, Python and imports
included.
"""

from __future__ import annotations

from benchmarks._claims import Options, Outcome, Part, say
from benchmarks._harness import Watched, run_module

GOAL = "10,000 instance masks of 640x480 evaluated under 2 GiB"
IMAGES, TENTH = 1_000, 100

_GIB = 2**30
_EQUAL = 1e-6


def run(options: Options) -> Outcome:
    """Evaluate in a process for each."""
    ours = _watched("ours", IMAGES)
    reference = _watched("pycocotools", IMAGES)
    dense = _watched("supervision", TENTH)
    start = dense.said["before"]
    reckoned = start + (dense.peak_rss - start) * IMAGES / TENTH
    apart = max(abs(ours.said["figures"][name] - value) for name, value in reference.said["figures"].items())
    return Outcome(
        [
            Part("peak memory", ours.peak_rss / _GIB, reckoned / _GIB, "GiB", 2.0),
            Part("peak memory, pycocotools", ours.peak_rss / _GIB, reference.peak_rss / _GIB, "GiB"),
        ],
        {"figures equal to pycocotools' to 1e-6": apart < _EQUAL},
        {
            "seconds": {"ours": round(ours.said["seconds"], 2), "pycocotools": round(reference.said["seconds"], 2)},
            "supervision at a tenth, GiB": round(dense.peak_rss / _GIB, 3),
            "AP": ours.said["figures"]["AP"],
        },
    )


def _watched(who: str, images: int) -> Watched:
    say(f"mask-memory: {who}, {images} images")
    return run_module("benchmarks._masks_run", {"who": who, "images": images})
