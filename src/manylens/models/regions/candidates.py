"""Proposals: sets of superpixels that a prompt may mean, bool (K, N).

They come from the region hierarchies (every ancestor of a clicked superpixel; every node that fits a box), from the
patch features alone (the connected set that looks like the click) and from saliency (what is as salient as the click,
or stands out in the box), and are edited until each click is obeyed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from manylens.models.regions.hierarchy import Tree
from manylens.models.regions.scoring import Regions, box_overlap

SMALLEST, LARGEST = 0.0015, 0.9  # share of the picture a clicked candidate may have
SIMILARITIES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
TOLERANCES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.45)  # of the weighted saliency
BOX_CANDIDATES = 100
BEFORE_EDIT, AFTER_EDIT = 16, 48  # how many candidates go into, and come out of, the edit for one click


def from_click(regions: Regions, trees: Sequence[Tree], leaf: int) -> np.ndarray:
    """Candidates around one clicked superpixel, bool (K, N), at least one."""
    found = [tree.members(tree.ancestors(leaf)) for tree in trees]
    found.append(_alike(regions, leaf))
    found.append(_as_salient(regions, leaf))
    members = np.unique(np.concatenate(found), axis=0)
    share = regions.areas(members) / regions.sizes.sum()
    fits = (share >= SMALLEST) & (share <= LARGEST)
    return members[fits] if fits.any() else members


def _alike(regions: Regions, leaf: int) -> np.ndarray:
    """Connected sets around ``leaf`` whose features are like their own mean, one a threshold, bool (T, N)."""
    features = regions.features
    close = np.einsum("nd,nd->n", features - features[leaf], features - features[leaf]) < 0.3
    core = connected(regions, close[None], leaf)[0]
    for _ in range(2):
        mean = (regions.sizes * core) @ features / max(float(regions.sizes[core].sum()), 1.0)
        norm = np.linalg.norm(features, axis=1) * np.linalg.norm(mean) + 1e-9
        cosine = features @ mean / norm
        core = connected(regions, (cosine >= min(0.7, cosine[leaf]))[None], leaf)[0]
    levels = np.array([t for t in SIMILARITIES if t <= cosine[leaf]] or [cosine[leaf]])
    return connected(regions, cosine[None] >= levels[:, None], leaf)


def _as_salient(regions: Regions, leaf: int) -> np.ndarray:
    """Connected sets around ``leaf`` that are about as salient, one a tolerance, bool (T, N)."""
    difference = np.abs(regions.features[:, -1] - regions.features[leaf, -1])
    return connected(regions, difference[None] <= np.array(TOLERANCES)[:, None], leaf)


def connected(regions: Regions, allowed: np.ndarray, leaf: int) -> np.ndarray:
    """The part of each row of ``allowed`` (T, N) that is connected with ``leaf``."""
    touches = (regions.length > 0).astype(np.float32)
    reached = np.zeros_like(allowed)
    reached[:, leaf] = True
    size = 0
    while size != (size := int(reached.sum())):
        reached |= ((reached.astype(np.float32) @ touches) > 0) & allowed
    return reached


def from_box(regions: Regions, trees: Sequence[Tree], box: np.ndarray) -> np.ndarray:
    """Candidates that fill a box (x0, y0, x1, y1) of working pixels, bool (K, N), at least one."""
    x0, y0, x1, y1 = (int(v) for v in box)
    covered = np.bincount(regions.labels[y0:y1, x0:x1].ravel(), minlength=len(regions.sizes)).astype(np.float64)
    box_area = (x1 - x0) * (y1 - y0)
    mostly = covered > 0.5 * regions.sizes
    found = [mostly[None]] if mostly.any() else [covered[None] >= covered.max()]
    if mostly.any():  # what stands out in the box, at several thresholds
        salient = regions.features[:, -1]
        thresholds = np.quantile(salient[mostly], np.linspace(0.05, 0.8, 12))
        found.append(mostly & (salient[None] >= thresholds[:, None]))
    for tree in trees:
        area, shared = tree.sums(regions.sizes), tree.sums(covered)
        large = shared > 0.15 * box_area
        found.append(tree.members(np.flatnonzero(large & (shared > 0.5 * area))))
        # What crosses the box is cut at its sides.
        found.append(tree.members(np.flatnonzero(large)) & mostly)
        inside = shared / area
        for least in (0.8, 0.9, 0.95, 0.98):  # all that lies within the box
            whole = inside >= least
            top = whole & ~(whole[tree.parent] & (tree.parent >= 0))
            found.append(np.atleast_2d(tree.members(np.flatnonzero(top)).any(0)))
    members = np.unique(np.concatenate(found), axis=0)
    area = regions.areas(members)
    fits = (area > 0.1 * box_area) & (area < 1.3 * box_area)
    members = members[fits] if fits.any() else found[0]
    fit = box_overlap(regions.bounding(members), np.asarray(box, np.float64))
    best = np.argsort(-fit, kind="stable")[:BOX_CANDIDATES]
    return members[best[fit[best] >= min(0.35, fit[best[0]])]]


def from_mask(regions: Regions, trees: Sequence[Tree], share: np.ndarray) -> np.ndarray:
    """Candidates like a coarse mask, given as its share of every superpixel, float (N,) in 0..1."""
    wanted = share * regions.sizes
    found = [(share > level)[None] for level in (0.25, 0.5, 0.75) if (share > level).any()]
    found.append((share >= share.max())[None])
    for tree in trees:
        area, shared = tree.sums(regions.sizes), tree.sums(wanted)
        iou = shared / (area + wanted.sum() - shared)
        best = np.argsort(-iou, kind="stable")[:30]
        found.append(tree.members(best))
        for least in (0.5, 0.7, 0.9):  # whole nodes that the mask covers
            whole = shared >= least * area
            top = whole & ~(whole[tree.parent] & (tree.parent >= 0))
            if top.any():
                found.append(np.atleast_2d(tree.members(np.flatnonzero(top)).any(0)))
    return np.unique(np.concatenate(found), axis=0)


def obey(
    members: np.ndarray,
    trees: Sequence[Tree],
    leaf: int,
    wanted: bool,
    avoid: np.ndarray,
    score: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Edit candidates until superpixel ``leaf`` belongs to all of them (``wanted``) or to none; (K, N) to (K', N).

    A missing superpixel brings in nodes of the hierarchies that hold it and none to avoid; a forbidden one takes nodes
    with it. Each edit offers several sizes, so the score decides how far a click reaches.

    Args:
        members: candidates, bool (K, N).
        trees: the hierarchies to take nodes from.
        leaf: the clicked superpixel.
        wanted: whether it is object.
        avoid: superpixels under clicks of the other kind, bool (N,).
        score: logits (K,) of candidates (K, N), to keep the number of edited ones in bounds.
    """
    obeys = members[:, leaf] == wanted
    if obeys.all():
        return members
    rest = _best(members[~obeys], score, BEFORE_EDIT)[:, None]
    change = _around(trees, leaf, avoid)[None]
    edited = (rest | change if wanted else rest & ~change).reshape(-1, members.shape[1])
    result = np.unique(np.concatenate([members[obeys], edited[edited.any(1)]]), axis=0)
    # Nothing may be left, as in a picture of one superpixel: then the pixels have to settle it.
    return _best(result, score, AFTER_EDIT) if len(result) else members


def _best(members: np.ndarray, score: Callable[[np.ndarray], np.ndarray], count: int) -> np.ndarray:
    if len(members) <= count:
        return members
    return members[np.sort(np.argsort(-score(members), kind="stable")[:count])]


def _around(trees: Sequence[Tree], leaf: int, avoid: np.ndarray) -> np.ndarray:
    """Nodes around ``leaf`` without superpixels of ``avoid``: per tree the largest one, and smaller ones by thirds."""
    found = [np.eye(1, len(avoid), leaf, dtype=bool)]
    for tree in trees:
        path = tree.ancestors(leaf)
        free = path[tree.sums(avoid)[path] < 0.5]
        if len(free) == 0:
            continue
        width = tree.span[free, 1] - tree.span[free, 0]
        keep, last = [], np.inf
        for k in range(len(free) - 1, -1, -1):
            if width[k] <= last / 3:
                keep.append(free[k])
                last = width[k]
        found.append(tree.members(np.array(keep)))
    return np.unique(np.concatenate(found), axis=0)
