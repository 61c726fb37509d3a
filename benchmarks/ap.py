"""Claim: AP of 20,000 detections on 1,000 images takes a fifteenth of pycocotools' time, with equal numbers.

Peer: pycocotools, `evaluate`, `accumulate` and `summarize` on data that it has loaded and indexed. hotcoco does the
same for information.
Measured: ours is what `manylens evaluate` does with predictions in memory: each picture is given to the measure, then
the tally is made, then all figures, the two per class included. 80 classes, 7,300 objects, one in a hundred a crowd;
both take turns, the median of three rounds after one that does not count. All twelve figures must be equal to 1e-6.
"""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import numpy as np

from benchmarks._claims import Options, Outcome, Part, say
from benchmarks._detections import MadeUp, Reference
from benchmarks._harness import in_turns, medians

GOAL = "AP of 1,000 images with 20,000 detections at least 15x pycocotools, equal to 1e-6"
IMAGES, DETECTIONS, CLASSES = 1_000, 20_000, 80

_TIMES = 15.0
_EQUAL = 1e-6
_ROUNDS = 3


def run(options: Options) -> Outcome:
    """Evaluate with all three."""
    from manylens.evaluation.measures.detection import Detection
    from manylens.evaluation.measures.detection_tally import FIGURES

    data = MadeUp.of(IMAGES, DETECTIONS, CLASSES)
    pairs, categories = data.pairs(), data.categories
    peer = Reference(copy.deepcopy(data.truth), copy.deepcopy(data.found))
    found: dict[str, Any] = {}

    def ours() -> None:
        measure = Detection(categories)
        for record, regions in pairs:
            measure.add(record, regions)
        found["ours"] = measure.tally().all()

    def pycocotools() -> None:
        found["pycocotools"] = peer.figures()

    say(f"ap: {IMAGES} images, {DETECTIONS} detections, {_ROUNDS + 1} rounds")
    calls = {"ours": ours, "pycocotools": pycocotools, "hotcoco": _hotcoco(data)}
    seconds = medians(in_turns(calls, _ROUNDS))
    apart = np.abs(np.array([found["ours"][name] for name in FIGURES]) - found["pycocotools"]).max()
    rate = {name: DETECTIONS / value for name, value in seconds.items()}
    return Outcome(
        [Part("detections", rate["ours"], rate["pycocotools"], "1/s", _TIMES, "ratio", "least")],
        {"all twelve figures equal to 1e-6": bool(apart < _EQUAL)},
        {"largest difference": float(apart), "seconds": {name: round(value, 4) for name, value in seconds.items()}},
    )


def _hotcoco(data: MadeUp) -> Any:
    from hotcoco import COCO, COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(copy.deepcopy(data.truth))
        found = truth.load_res(copy.deepcopy(data.found))

    def judge() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            COCOeval(truth, found, "bbox").run()

    return judge
