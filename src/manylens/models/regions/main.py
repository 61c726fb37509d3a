"""The main object: the set of regions that stands out most from the rest of the picture.

What stands out is the saliency map of the network's own head, joined with how unlike a region's features are to those
at the picture's rim (the boundary prior; Wei et al., ECCV 2012). Of all nodes of the hierarchies and all parts of the
map above a threshold, the one is taken that splits the map best (Otsu's criterion), looks like a region and lies off
the rim, by expected overlap as for a click.
"""

from __future__ import annotations

import numpy as np

from manylens.models.regions import scoring
from manylens.models.regions.candidates import connected
from manylens.models.regions.hierarchy import Tree
from manylens.models.regions.solver import SALIENCY, Candidate, Scene

UNLIKE_RIM = 0.5  # weight of the distance to the rim's features beside saliency, both in 0..1
NEAREST = 5  # regions at the rim that are compared with
LEVELS = 40  # thresholds of the map
PEAKS = 3  # separate parts above a threshold that are proposed
SMALLEST, LARGEST = 0.005, 0.85  # share of the picture
SPLIT, LOOKS, RIM = 6.0, 0.5, 4.0  # weights of Otsu's criterion, of what looks like a region, of contact with the rim
LEAST_SPREAD = 0.02  # standard deviation of saliency under which nothing stands out
BEST = 300


def main_object(scene: Scene) -> Candidate | None:
    """The main object, with the share of the map's variance that it explains as score; None where all is alike."""
    regions = scene.regions()
    share = regions.sizes / regions.sizes.sum()
    if _variance(regions.features[:, -1] / SALIENCY, share) < LEAST_SPREAD**2:
        return None
    salient = stands_out(regions)
    middle, variance = float(share @ salient), _variance(salient, share)
    members = _propose(regions, scene.trees(), salient, share)
    area = members @ share
    fits = (area >= SMALLEST) & (area <= LARGEST)
    members, area = members[fits], area[fits]
    if not len(members):
        return None
    gain = (members @ (share * salient)) / area - middle
    split = np.sign(gain) * gain**2 * area / (1 - area) / variance
    cues = scoring.appearance(regions, members)
    logits = SPLIT * split + LOOKS * (cues[:, :3] @ scoring.APPEARANCE) - RIM * cues[:, 4]
    best = np.argsort(-logits, kind="stable")[:BEST]
    (pick, *_), _ = scoring.choose(logits[best], scoring.overlap(members[best], regions.sizes), 1)
    chosen = best[pick]
    return Candidate(scene.full(members[chosen]), float(np.clip(split[chosen], 0, 1)), "whole")


def _variance(values: np.ndarray, share: np.ndarray) -> float:
    return float(share @ (values - share @ values) ** 2)


def stands_out(regions: scoring.Regions) -> np.ndarray:
    """How much each superpixel stands out, float (N,), saliency and distance to the rim joined."""
    salient = np.clip(regions.features[:, -1] / SALIENCY, 0, 1)
    features = regions.features[:, :-1]
    rim = np.flatnonzero(regions.contact > 0)
    squares = np.einsum("nd,nd->n", features, features)
    distance = squares[:, None] + squares[rim][None] - 2 * features @ features[rim].T
    distance = np.sqrt(np.maximum(distance, 0))
    distance[rim, np.arange(len(rim))] = np.inf  # none is compared with itself
    few = min(NEAREST, max(len(rim) - 1, 1))
    away = np.partition(distance, few - 1, axis=1)[:, :few].mean(axis=1)
    most = np.quantile(away[np.isfinite(away)], 0.98) if np.isfinite(away).any() else 0.0
    return np.asarray(salient + UNLIKE_RIM * np.clip(away / max(most, 1e-6), 0, 1))


def _propose(regions: scoring.Regions, trees: list[Tree], salient: np.ndarray, share: np.ndarray) -> np.ndarray:
    """All nodes, what is above each threshold, and its most salient connected parts, bool (K, N)."""
    order = np.argsort(salient, kind="stable")
    place = np.searchsorted(np.cumsum(share[order]), np.linspace(0.02, 0.98, LEVELS))
    levels = salient[None] > np.unique(salient[order][np.minimum(place, len(order) - 1)])[:, None]
    found = [tree.members(np.arange(len(tree.parent))) for tree in trees]
    found.append(levels)
    for level in levels:
        left = level.copy()
        for _ in range(PEAKS):
            if not left.any():
                break
            peak = int(np.where(left, salient, -1).argmax())
            part = connected(regions, level[None], peak)
            found.append(part)
            left &= ~part[0]
    return np.unique(np.concatenate(found), axis=0)
