"""From what dense heads give to what people ask for: class maps, regions, boxes. All of it in NumPy."""

from __future__ import annotations

from functools import partial
from typing import Literal

import numpy as np

from manylens.models.masks import queries
from manylens.models.masks.queries import Segment
from manylens.models.masks.resizing import bilinear
from manylens.models.nms import nms

_CANDIDATES = 1000
"""Most boxes that suppression looks at, the best ones; as in FCOS."""

Kind = Literal["semantic", "instance", "panoptic"]


def class_map(logits: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The class of each pixel of a picture, and how probable it is.

    Args:
        logits: Of a semantic head, ``(C, h, w)``.
        size: ``(width, height)`` of the picture.

    Returns:
        int32 ``(H, W)`` and float32 ``(H, W)``.
    """
    best = np.full((size[1], size[0]), -np.inf, np.float32)
    label = np.zeros((size[1], size[0]), np.int32)
    total = np.zeros((size[1], size[0]), np.float32)
    # Class by class, so that few planes of the picture's size are held; the running maximum keeps exp in bounds.
    for number, plane in enumerate(logits.astype(np.float32)):
        large = bilinear(plane, size)
        better = large > best
        label[better] = number
        top = np.where(better, large, best)
        total = total * np.exp(best - top) + np.exp(large - top)
        best = top
    return label, 1 / total


def regions(
    classes: np.ndarray,
    masks: np.ndarray,
    size: tuple[int, int],
    kind: Kind,
    *,
    threshold: float = 0.5,
    stuff: frozenset[int] = frozenset(),
    limit: int = 100,
) -> list[Segment]:
    """What the queries of a picture found.

    Args:
        classes: Logits ``(Q, C + 1)``, the last for no object.
        masks: Logits ``(Q, h, w)`` of the whole picture.
        size: ``(width, height)`` of the picture.
        kind: ``semantic``: a region for each class, all pixels given away; ``instance``: things, which may overlap, the
            best first; ``panoptic``: things and stuff that do not overlap.
        threshold: The least score of a region; not of semantic ones.
        stuff: Numbers of the classes that have no instances.
        limit: Most instances.
    """
    if kind == "semantic":
        planes = queries.class_planes(classes, masks)
        label, best = queries.semantic((bilinear(plane, size) for plane in planes), size)
        found = []
        for number in np.unique(label).tolist():
            mask = label == number
            found.append(Segment(mask, number, float(np.clip(best[mask].mean(), 0, 1))))
        return found
    enlarge = partial(bilinear, size=size)
    if kind == "panoptic":
        return queries.panoptic(
            classes,
            masks,
            lambda plane: queries.sigmoid(enlarge(plane)),
            threshold=threshold,
            stuff=stuff,
            sure_only=True,
        )
    kept = queries.instances(classes, masks, enlarge, lambda plane: plane > 0, threshold=threshold, several=False)
    things = sorted((one for one in kept if one.label not in stuff), key=lambda one: -one.score)
    return things[:limit]


def boxes(
    scores: np.ndarray,
    corners: np.ndarray,
    seen: tuple[int, int],
    size: tuple[int, int],
    *,
    threshold: float = 0.05,
    iou: float = 0.6,
    limit: int = 100,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The objects of a picture.

    Args:
        scores: Logits of a detection head, ``(N, C)``.
        corners: Its boxes, float ``(N, 4)``.
        seen: ``(width, height)`` of the pixels that the network saw, which the boxes are in.
        size: ``(width, height)`` of the picture.
        threshold: The least score.
        iou: Of two boxes of a class that overlap more, the better one stays.
        limit: Most objects.

    Returns:
        Boxes xyxy float32 ``(k, 4)`` in pixels of the picture, scores float32 ``(k,)`` in 0..1, the best first, and
        classes int64 ``(k,)``.
    """
    chances = queries.sigmoid(scores)
    place, label = np.nonzero(chances >= threshold)
    score = chances[place, label]
    best = np.argsort(-score, kind="stable")[:_CANDIDATES]
    place, label, score = place[best], label[best], score[best]
    scale = np.array([size[0] / seen[0], size[1] / seen[1]] * 2, np.float32)
    found = corners[place].astype(np.float32) * scale
    found = found.clip(0, np.array([size[0], size[1]] * 2, np.float32))
    some = (found[:, 2] > found[:, 0]) & (found[:, 3] > found[:, 1])
    found, label, score = found[some], label[some], score[some]
    kept = nms(found, score, label, iou=iou, limit=limit)
    return found[kept], score[kept], label[kept].astype(np.int64)
