"""Which detection finds which object: COCO's rules, for all images, classes, thresholds and areas of a batch at once.

The rules are those of ``pycocotools.cocoeval`` (Lin et al., 2014): within an image and a class, detections choose by
falling score, at most a hundred of them; each takes the free object that it overlaps most, at least by the threshold,
and one that is not judged only where no judged one will do; a crowd may be taken by many, and its overlap is the share
of the detection that it covers. Instead of a loop over images, the n-th detections of all groups choose together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
MOST_DETECTIONS = 100  # of a class in an image

_BITS = (1 << np.arange(len(IOU_THRESHOLDS))).astype(np.uint16)
_EXACTLY_ONE = 1 - 1e-10  # an IoU of 1 may come out a little less


@dataclass(frozen=True, eq=False)
class Objects:
    """Objects or detections of a batch of images.

    Attributes:
        image: int64 ``(n,)``, number of the image.
        category: int64 ``(n,)``, number of the class.
        area: float64 ``(n,)`` in pixels.
        boxes: float64 ``(n, 4)`` xyxy, where boxes are judged; else empty.
        masks: COCO RLE of each, where masks are judged; else empty.
    """

    image: npt.NDArray[np.int64]
    category: npt.NDArray[np.int64]
    area: FloatArray
    boxes: FloatArray = field(default_factory=lambda: np.zeros((0, 4)))
    masks: Sequence[Mapping[str, Any]] = ()

    def __len__(self) -> int:
        return len(self.image)

    def where(self, good: npt.NDArray[np.bool_]) -> Objects:
        """Those of which ``good`` ``(n,)`` holds."""
        masks = [mask for mask, kept in zip(self.masks, good, strict=True) if kept] if len(self.masks) else ()
        boxes = self.boxes[good] if len(self.boxes) else self.boxes
        return Objects(self.image[good], self.category[good], self.area[good], boxes, masks)


@dataclass(frozen=True, eq=False)
class Matches:
    """What came of the detections that took part, ordered by image, class and falling score.

    Attributes:
        order: int64 ``(d,)``, which detection each is.
        rank: uint8 ``(d,)``, its place among those of its image and class, from 0.
        matched: uint16 ``(d, 4)``: bit t is set where it found an object at threshold t; by range of areas.
        ignored: uint16 ``(d, 4)``: bit t is set where it is not judged at threshold t.
        judged: bool ``(g, 4)``: whether each object is to be found, by range of areas, in the order given.
    """

    order: npt.NDArray[np.int64]
    rank: npt.NDArray[np.uint8]
    matched: npt.NDArray[np.uint16]
    ignored: npt.NDArray[np.uint16]
    judged: npt.NDArray[np.bool_]


def match(
    found: Objects, scores: FloatArray, truth: Objects, crowd: npt.NDArray[np.bool_], ignore: npt.NDArray[np.bool_]
) -> Matches:
    """Match detections with objects.

    Args:
        found: The detections, d of them.
        scores: ``(d,)``, finite; of equal scores the earlier comes first.
        truth: The objects, g of them.
        crowd: bool ``(g,)``: groups that are not told apart; never judged.
        ignore: bool ``(g,)``: not judged.
    """
    classes = 1 + max(found.category.max(initial=0), truth.category.max(initial=0))
    group_of_found, group_of_truth = (each.image * classes + each.category for each in (found, truth))
    order = np.lexsort((-scores, group_of_found))
    rank = _places(group_of_found[order])
    order, rank = order[rank < MOST_DETECTIONS], rank[rank < MOST_DETECTIONS]
    by_group = np.argsort(group_of_truth, kind="stable")
    detections, objects, overlap = _pairs(
        found, truth, crowd, order, by_group, group_of_found[order], group_of_truth[by_group]
    )
    judged = ~(crowd | ignore)[:, None] & _within(truth.area)
    matched, onto_ignored = _choose(detections, objects, overlap, rank, judged[by_group], crowd[by_group])
    outside = ~_within(found.area[order])
    ignored = onto_ignored | (~matched & outside[:, :, None])
    return Matches(order, rank.astype(np.uint8), matched @ _BITS, ignored @ _BITS, judged)


def bits(packed: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
    """What :class:`Matches` packs, by threshold: ``(..., 10)``."""
    return (packed[..., None] & _BITS) != 0


def _places(groups: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The place of each within its run of equal numbers."""
    at = np.arange(len(groups))
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    return at - np.repeat(starts, np.diff(starts, append=len(groups)))


def _within(area: FloatArray) -> npt.NDArray[np.bool_]:
    """``(n, 4)``: whether each area is in each range, both ends included."""
    low, high = np.array(list(AREAS.values())).T
    return (area[:, None] >= low) & (area[:, None] <= high)


def _pairs(
    found: Objects,
    truth: Objects,
    crowd: npt.NDArray[np.bool_],
    order: npt.NDArray[np.int64],
    by_group: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    truth_groups: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], FloatArray]:
    """Pairs of one image and class that overlap enough for the lowest threshold.

    Returns:
        Place of the detection (in ``order``) and of the object (in ``by_group``) of each pair, and their overlap.
    """
    first = np.searchsorted(truth_groups, groups, side="left")
    count = np.searchsorted(truth_groups, groups, side="right") - first
    detections = np.repeat(np.arange(len(groups)), count)
    objects = np.arange(len(detections)) + np.repeat(first - (np.cumsum(count) - count), count)
    if len(truth.masks) or len(found.masks):
        overlap = _mask_overlap(found, truth, crowd, order, by_group, first, count)
    else:
        a, b = order[detections], by_group[objects]
        overlap = _box_overlap(found.boxes[a], truth.boxes[b], crowd[b])
    near = overlap >= IOU_THRESHOLDS[0]
    return detections[near], objects[near], overlap[near]


def _box_overlap(found: FloatArray, truth: FloatArray, crowd: npt.NDArray[np.bool_]) -> FloatArray:
    """IoU of each pair of boxes; of a crowd the share of the detection inside."""
    side = np.minimum(found[:, 2:], truth[:, 2:]) - np.maximum(found[:, :2], truth[:, :2])
    inside = np.where((side > 0).all(axis=1), side[:, 0] * side[:, 1], 0.0)
    of_found, of_truth = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (found, truth))
    union = np.where(crowd, of_found, of_found + of_truth - inside)
    return np.divide(inside, union, out=np.zeros(len(inside)), where=inside > 0)


def _mask_overlap(
    found: Objects,
    truth: Objects,
    crowd: npt.NDArray[np.bool_],
    order: npt.NDArray[np.int64],
    by_group: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
    count: npt.NDArray[np.int64],
) -> FloatArray:
    """The same of masks, run by run, a group at a time; detections of a group stand together."""
    from hotcoco import mask as rle

    parts = [np.zeros(0)]
    paired = np.flatnonzero(count)
    starts = np.flatnonzero(np.diff(first[paired], prepend=-1))
    for group in np.split(paired, starts[1:]) if len(paired) else ():
        objects = by_group[first[group[0]] :][: count[group[0]]]
        masks = [found.masks[i] for i in order[group]]
        parts.append(rle.iou(masks, [truth.masks[i] for i in objects], crowd[objects]).ravel())
    return np.concatenate(parts)


def _choose(
    detections: npt.NDArray[np.int64],
    objects: npt.NDArray[np.int64],
    overlap: FloatArray,
    rank: npt.NDArray[np.int64],
    judged: npt.NDArray[np.bool_],
    crowd: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Let detections choose among their pairs, the best of each group first.

    Returns:
        Two bool ``(d, 4, 10)``: which found an object, and which of these one that is not judged.
    """
    thresholds = np.minimum(IOU_THRESHOLDS, _EXACTLY_ONE)
    shape = (len(rank), len(AREAS), len(thresholds))
    matched, onto_ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    taken = np.zeros((len(judged), *shape[1:]), bool)
    in_turn = np.argsort(rank[detections], kind="stable")
    detections, objects, overlap = detections[in_turn], objects[in_turn], overlap[in_turn]
    # How dear each pair is, by range of areas: judged before not judged, then by overlap; of equals the last.
    best_last = [np.lexsort((objects, overlap, judged[objects, area])) for area in range(shape[1])]
    worth = np.empty((len(objects), shape[1]), np.int64)
    for area, by_worth in enumerate(best_last):
        worth[by_worth, area] = np.arange(len(by_worth))
    pair_of = np.stack(best_last, axis=1)
    area_at = np.arange(shape[1])[:, None]
    turns = np.flatnonzero(np.diff(rank[detections], prepend=-1, append=MOST_DETECTIONS))
    for start, end in pairwise(turns):
        pairs = slice(start, end)
        free = ~taken[objects[pairs]] | crowd[objects[pairs], None, None]
        free &= overlap[pairs, None, None] >= thresholds
        firsts = np.flatnonzero(np.diff(detections[pairs], prepend=-1))
        best = np.maximum.reduceat(np.where(free, worth[pairs, :, None], -1), firsts, axis=0)
        chosen = objects[pair_of[best, area_at]]
        who = detections[pairs][firsts]
        matched[who] = best >= 0
        onto_ignored[who] = (best >= 0) & ~judged[chosen, area_at]
        some = np.nonzero(best >= 0)
        taken[chosen[some], some[1], some[2]] = True
    return matched, onto_ignored
