"""Everything in a picture: the nodes of the region hierarchies that look like regions, without near-duplicates.

Every node of the three hierarchies is scored by the cues that need no prompt (:func:`.scoring.appearance`), and greedy
suppression keeps the best of those that are nearly the same. Nested masks stay: they are a whole and its parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from manylens.models.regions import scoring
from manylens.models.regions.hierarchy import Tree
from manylens.models.regions.solver import Candidate, Level, Scene

MOST = 100  # masks
SMALLEST, LARGEST = 0.002, 0.95  # share of the picture
ALIKE = 0.75  # overlap above which two regions are one; a little less than SAME, since smoothing moves their outlines
WITHIN = 0.9  # share of a region inside another, above which it may be a part of it
# ... of one that is at least so many times as large, and no larger share of the picture: what is left of the picture
# when a thing is taken out has no parts.
LARGER, SCENERY = 2.0, 0.5
# Logits: below the first a node is a heap of superpixels; the score is 0.5 at the second, and grows over the third.
FLOOR, MIDDLE, SPREAD = 2.0, 4.0, 2.0
LEAST_EDGE = 0.12  # mean edge probability along an outline
FLAT = 1.0  # of 255: colours of which less than this is seen to change are one colour


def everything(scene: Scene, rgb: np.ndarray | None = None, *, most: int = MOST) -> list[Candidate]:
    """All regions that stand out, best score first; no two overlap by more than about 0.8.

    Args:
        scene: from ``encode_scene``.
        rgb: uint8 (H, W, 3), its picture: regions whose outline runs through one even colour are left out, for the
            edge network sees outlines in some greys where there are none.
        most: how many masks at the most.

    Returns:
        Candidates with ``level`` by nesting: a region in no other is a whole, one inside it a part, one inside that a
        subpart. None where nothing stands out, as in a picture of one colour.
    """
    regions = scene.regions()
    members = nodes_of(regions, scene.trees(), SMALLEST, LARGEST)
    if not len(members):
        return []
    cues = scoring.appearance(regions, members)
    logits = cues[:, :3] @ scoring.APPEARANCE + scoring.size_prior(cues)
    stands_out = (logits > FLOOR) & (cues[:, 0] > LEAST_EDGE)
    if rgb is not None:
        stands_out &= _seen(scene, regions, members, rgb)
    members, logits = members[stands_out], logits[stands_out]
    picks = _distinct(logits, scoring.overlap(members, regions.sizes), most)
    levels = _levels(members[picks], regions.sizes)
    scores = 1 / (1 + np.exp((MIDDLE - logits[picks]) / SPREAD))
    return [
        Candidate(scene.full(members[k]), float(score), level)
        for k, score, level in zip(picks, scores, levels, strict=True)
    ]


def _seen(scene: Scene, regions: scoring.Regions, members: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """Which of the regions bool (K, N) have something to see along at least half of their outline, bool (K,)."""
    height, width = scene.labels.shape
    small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA).reshape(-1, 3).astype(np.float64)
    labels = scene.labels.ravel()
    mean = np.stack([np.bincount(labels, channel) for channel in small.T], axis=1) / regions.sizes[:, None]
    square = np.stack([np.bincount(labels, channel**2) for channel in small.T], axis=1) / regions.sizes[:, None]
    even = (square - mean**2).max(axis=1) < FLAT**2
    alike = np.abs(mean[:, None] - mean[None]).max(axis=2) < FLAT
    unseen = regions.length * (alike & even[:, None] & even[None])
    inside = members.astype(np.float32)
    outline = ((inside @ regions.length) * (1 - inside)).sum(axis=1)
    return np.asarray(2 * ((inside @ unseen) * (1 - inside)).sum(axis=1) <= outline)


def nodes_of(regions: scoring.Regions, trees: Sequence[Tree], smallest: float, largest: float) -> np.ndarray:
    """All different nodes between two shares of the picture, bool (K, N)."""
    least, most = smallest * regions.sizes.sum(), largest * regions.sizes.sum()
    found = []
    for tree in trees:
        area = tree.sums(regions.sizes)
        found.append(tree.members(np.flatnonzero((area >= least) & (area <= most))))
    packed = np.unique(np.packbits(np.concatenate(found), axis=1), axis=0)
    return np.unpackbits(packed, axis=1, count=len(regions.sizes)).astype(bool)


def _distinct(logits: np.ndarray, iou: np.ndarray, most: int) -> list[int]:
    """Greedy suppression: indices of at most ``most`` candidates, best first, no two of which are alike."""
    left = np.argsort(-logits, kind="stable")
    picks: list[int] = []
    while len(left) and len(picks) < most:
        picks.append(int(left[0]))
        left = left[iou[left[0], left] <= ALIKE]
    return picks


def _levels(members: np.ndarray, sizes: np.ndarray) -> list[Level]:
    """How deep each of the regions bool (K, N) lies in the others."""
    inside = members.astype(np.float32)
    shared = (inside * sizes) @ inside.T
    area = np.diag(shared)
    nested = (shared >= WITHIN * area[:, None]) & (LARGER * area[:, None] <= area) & (area <= SCENERY * sizes.sum())
    names: tuple[Level, ...] = ("whole", "part", "subpart")
    depth = np.zeros(len(members), int)
    for k in np.argsort(-area, kind="stable"):  # the larger first
        depth[k] = max((depth[nested[k]] + 1).tolist(), default=0)
    return [names[min(d, 2)] for d in depth]
