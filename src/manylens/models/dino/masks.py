"""Masks from a vision transformer: of what examples show, and of the main thing in a picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from manylens.media import bounds
from manylens.models.dense import attention, matching
from manylens.models.dense.grids import cover
from manylens.models.dense.matching import Shown
from manylens.models.dino.encoder import Features, Need
from manylens.models.dino.views import View
from manylens.models.examples import arranged, classes
from manylens.runtime.context import Context
from manylens.tasks import SegmentRequest, detections


def segment(request: SegmentRequest, features: Features, view: View, ctx: Context) -> Any:
    """Detections of a request with mode ``main`` or with examples; masks at the picture's size."""
    return _main(request, features, view, ctx) if request.mode == "main" else _like(request, features, view, ctx)


def _main(request: SegmentRequest, features: Features, view: View, ctx: Context) -> Any:
    found, ctx.notes["cache"] = features.of(request.image, view, "attention", ctx)
    mask, score = attention.main_object(found["attention"], request.image.size)
    return _answer(mask[None], np.array([score], np.float32), request, [""], ["whole"])


def _like(request: SegmentRequest, features: Features, view: View, ctx: Context) -> Any:
    """One mask for each class of the examples that the picture shows."""
    shown = classes(request.like)
    examples = [example for one in shown for example in one.examples]
    # One after the other: the memory of a run is that of one picture, however many examples there are.
    grids = {}
    for image in (*(example.image for example in examples), request.image):
        if image.id not in grids:
            layers, hit = features.of_all([Need(image, view, frozenset({"dense"}))], ctx)[0]
            grids[image.id] = layers["dense"]
        ctx.notes["cache"] = hit
    marked = [
        [Shown(grids[one.image.id], cover(one.mask, grids[one.image.id].shape[:2])) for one in group.examples]
        for group in shown
    ]
    ctx.check()
    planes = matching.scores(grids[request.image.id], marked)
    masks, scores = matching.masks(planes, request.image.size, 0.5)
    found = _answer(masks, scores, request, [one.name for one in shown], [""] * len(shown))
    return arranged(found, request, ctx)


def _answer(masks: np.ndarray, scores: np.ndarray, request: SegmentRequest, names: list[str], levels: list[str]) -> Any:
    least = request.threshold or 0.0
    boxes = {i: bounds(mask) for i, mask in enumerate(masks)}
    kept = [i for i, box in boxes.items() if box is not None and scores[i] >= least]
    width, height = request.image.size
    return detections(
        [box for i, box in boxes.items() if i in kept and box is not None],
        scores[kept],
        masks=masks[kept] if kept else np.zeros((0, height, width), bool),
        names=[names[i] for i in kept],
        class_ids=kept,
        objects=kept,
        levels=[levels[i] for i in kept],
    )
