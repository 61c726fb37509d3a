"""Claim: 1,000 bootstrap resamples of AP cost at most 5x one evaluation by pycocotools.

Peer: pycocotools, one `evaluate`, `accumulate` and `summarize` of the same data, loaded and indexed; a bootstrap around
it would run that once for each resample.
Measured: 1,000 images, 20,000 detections, 80 classes. Ours is `estimates` of a finished tally: all twelve figures, and
AP and AP50 of every class, of 1,000 resamples of the images, with their percentiles; once, right after the peer. One
resample is written out as a data set, each image as often as it was drawn, and judged by pycocotools: the twelve
figures must be equal to 1e-6.
"""

from __future__ import annotations

import copy

import numpy as np

from benchmarks._claims import Options, Outcome, Part, say
from benchmarks._detections import MadeUp, Reference
from benchmarks._harness import timed

GOAL = "1,000 resamples of AP, all twelve figures, at most 5x one pycocotools evaluation"
IMAGES, DETECTIONS, CLASSES, RESAMPLES = 1_000, 20_000, 80, 1_000

_TIMES = 5.0
_EQUAL = 1e-6


def run(options: Options) -> Outcome:
    """Resample, with one evaluation of the peer before."""
    from manylens.evaluation.intervals import estimates
    from manylens.evaluation.measures.detection import Detection
    from manylens.evaluation.measures.detection_tally import FIGURES

    data = MadeUp.of(IMAGES, DETECTIONS, CLASSES)
    measure = Detection(data.categories)
    for record, regions in data.pairs():
        measure.add(record, regions)
    tally = measure.tally()
    estimates(tally, resamples=2)
    peer = Reference(copy.deepcopy(data.truth), copy.deepcopy(data.found))
    say("bootstrap: one evaluation by pycocotools")
    once, _ = timed(peer.figures)
    say(f"bootstrap: {RESAMPLES} resamples")
    seconds, found = timed(lambda: estimates(tally, resamples=RESAMPLES))

    drawn = np.random.default_rng(0).multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES))
    ours = tally.figures(drawn[None].astype(float))
    apart = np.abs(np.array([ours[name][0] for name in FIGURES]) - _written_out(data, drawn).figures()).max()
    inside = all(found[name].low <= found[name].value <= found[name].high for name in FIGURES)
    return Outcome(
        [Part("1,000 resamples", seconds, once, "s", _TIMES, "ratio")],
        {
            "a resample equals pycocotools on the images drawn": bool(apart < _EQUAL),
            "every figure lies in its interval": inside,
        },
        {"AP": str(found["AP"]), "AP50": str(found["AP50"]), "largest difference": float(apart)},
    )


def _written_out(data: MadeUp, drawn: np.ndarray) -> Reference:
    """The data set with each image as often as it was drawn."""
    copies = {image: list(range(int(times))) for image, times in enumerate(drawn)}
    images, annotations, found = [], [], []
    most = int(drawn.max())
    for one in data.truth["images"]:
        images += [one | {"id": one["id"] * most + copy_} for copy_ in copies[one["id"]]]
    for one in data.truth["annotations"]:
        for copy_ in copies[one["image_id"]]:
            annotations.append(one | {"id": len(annotations) + 1, "image_id": one["image_id"] * most + copy_})
    for one in data.found:
        found += [one | {"image_id": one["image_id"] * most + copy_} for copy_ in copies[one["image_id"]]]
    return Reference(data.truth | {"images": images, "annotations": annotations}, found)
