"""Segment by example: where in a scene is what the examples show, with the outlines of the scene's own regions.

Patches of the scene are matched with those inside and beside the example masks (:mod:`manylens.models.dense`). What is
surely the thing and what is surely not then speaks for the rest of the picture, for a picture is more like itself than
like any example (self-support; Fan et al., ECCV 2022). The answer is the set of regions that fits this evidence best
and looks like a region.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from manylens.models.dense import matching
from manylens.models.dense.grids import cover, unit
from manylens.models.regions import candidates, scoring
from manylens.models.regions.everything import nodes_of
from manylens.models.regions.solver import Scene

NEIGHBOURS = 5  # patches that speak for or against a patch
SURE, UNLIKE = 0.5, 0.3  # evidence from where on, and below which, a region speaks for the scene itself
FIT = 10.0  # logits for an overlap of 1 with the evidence
EDGE = 0.25  # share of the thing in a patch, of the most in any, that makes it neither the thing nor what is beside it
TWIN = 0.75  # share of a thing's likeness to itself from which on a patch may be of another instance of it
LOOKS = 0.5  # weight of what looks like a region
# Likeness of a find to its examples (a mean cosine, and a tenth of the evidence) of which the score is 0.5, and the
# likeness over which the score grows. Set on made pictures that show or lack what the examples show.
MIDDLE, SPREAD = 0.56, 0.03
LEAST = 0.5  # of a score that is no absence
# Instances: boxes that overlap a better one by more than this, or lie in it by more than that, are the same.
SAME_BOX, WITHIN_BOX = 0.4, 0.7
SMALLEST, LARGEST = 0.001, 0.8  # share of the picture that one instance may have


@dataclass(frozen=True, eq=False)
class Found:
    """A class in a scene.

    Attributes:
        member: bool (N,), its superpixels; none where it is absent.
        score: how sure, 0..1.
    """

    member: np.ndarray
    score: float


def shown(patches: np.ndarray, mask: np.ndarray) -> matching.Shown:
    """An example: patch features float (gh, gw, C) of its picture, and the mask bool (H, W) of the thing."""
    return matching.Shown(patches, cover(mask, patches.shape[:2]))


def shown_one(patches: np.ndarray, mask: np.ndarray) -> matching.Shown:
    """As ``shown``, for one instance: what else in its picture is nearly as like it as its own parts is no evidence.

    It may be another instance, which must not count as what the thing is not.
    """
    example = shown(patches, mask)
    inside, beside = example.inside(), example.cover < EDGE * max(example.cover.max(), 1e-6)
    own = TWIN * float(np.median(matching.likeness(inside, inside, NEIGHBOURS + 1)))
    twins = (matching.likeness(unit(patches), inside, NEIGHBOURS) >= own).reshape(beside.shape) & beside
    return matching.Shown(patches, np.where(twins, EDGE * example.cover.max(), example.cover))


def find(scene: Scene, patches: np.ndarray, classes: Sequence[Sequence[matching.Shown]]) -> list[Found]:
    """Look for each class; a superpixel goes to the class that it is most like.

    Args:
        scene: where to look.
        patches: float (gh, gw, C), its patch features.
        classes: the examples of each class, one or more.
    """
    weights = _weights(scene.labels, patches.shape[:2])
    first = evidence(scene, patches, classes)
    own = unit(weights @ patches.reshape(-1, patches.shape[2]).astype(np.float32))
    regions = scene.regions()
    strongest = first.max(axis=0)
    found = []
    for plane, examples in zip(first, classes, strict=True):
        rival = plane < strongest  # another class has the better claim
        seen = np.where(rival, np.minimum(plane, 0.05), plane)
        refined = np.where(rival, 0.0, _self_supported(seen, own))
        member = _fitting(scene, regions, refined) & ~rival

        def sure(part: np.ndarray, plane: np.ndarray = plane, shown: Sequence[matching.Shown] = examples) -> float:
            return _sure(part, plane, regions.sizes, weights, patches, shown)

        member = _without_strangers(regions, member, sure)
        found.append(Found(member, sure(member)))
    return found


def _without_strangers(regions: scoring.Regions, member: np.ndarray, sure: Callable[[np.ndarray], float]) -> np.ndarray:
    """A find bool (N,) without its separate parts that would be no find alone, where another part would be one.

    Evidence only says that a part is less like what is beside the examples: of a thing that neither shows, that says
    little. Where no part is sure alone, as of a thing in many pieces, all stay.
    """
    parts: list[np.ndarray] = []
    left = member.copy()
    while left.any():
        parts.append(candidates.connected(regions, left[None], int(left.argmax()))[0])
        left &= ~parts[-1]
    scores = [sure(part) for part in parts] if len(parts) > 1 else []
    known = [part for part, score in zip(parts, scores, strict=False) if score >= LEAST]
    return np.any(known, axis=0) if known else member


def instances(
    scene: Scene, patches: np.ndarray, classes: Sequence[Sequence[matching.Shown]], most: int = 50
) -> list[list[Found]]:
    """As ``find``, one by one: for each class its instances, the surest first.

    An instance is a node of the hierarchies that is like the class while what touches it is not.
    """
    weights = _weights(scene.labels, patches.shape[:2])
    first = evidence(scene, patches, classes)
    own = unit(weights @ patches.reshape(-1, patches.shape[2]).astype(np.float32))
    regions = scene.regions()
    nodes = nodes_of(regions, scene.trees(), SMALLEST, LARGEST)
    if not len(nodes):
        return [[] for _ in classes]
    inside = nodes.astype(np.float32)
    touching = (inside @ regions.length) * (1 - inside)
    boxes = regions.bounding(nodes)
    looks = scoring.appearance(regions, nodes)[:, :3] @ scoring.APPEARANCE
    found = []
    for plane, examples in zip(first, classes, strict=True):
        seen = np.where(plane < first.max(axis=0), np.minimum(plane, 0.05), plane)
        share = _self_supported(seen, own)
        within = (inside @ (regions.sizes * share)) / (inside @ regions.sizes)
        around = (touching @ share) / np.maximum(touching.sum(axis=1), 1e-6)
        worth = FIT * (within - around) + LOOKS * looks
        left = np.flatnonzero((within > SURE) & (within - around > 0.1))
        left = left[np.argsort(-worth[left], kind="stable")]
        picks: list[int] = []
        while len(left) and len(picks) < most:
            best, left = left[0], left[1:]
            picks.append(int(best))
            low, high = np.maximum(boxes[best, :2], boxes[left, :2]), np.minimum(boxes[best, 2:], boxes[left, 2:])
            shared = np.prod(np.clip(high - low, 0, None), axis=1)
            smaller = np.minimum(
                np.prod(boxes[left, 2:] - boxes[left, :2], axis=1), np.prod(boxes[best, 2:] - boxes[best, :2])
            )
            left = left[(scoring.box_overlap(boxes[left], boxes[best]) <= SAME_BOX) & (shared <= WITHIN_BOX * smaller)]
        sure = [Found(nodes[k], _sure(nodes[k], plane, regions.sizes, weights, patches, examples)) for k in picks]
        found.append(sorted(sure, key=lambda one: -one.score))
    return found


def _sure(
    member: np.ndarray,
    plane: np.ndarray,
    sizes: np.ndarray,
    weights: np.ndarray,
    patches: np.ndarray,
    examples: Sequence[matching.Shown],
) -> float:
    """The score of superpixels ``member`` bool (N,): how like the examples they are, and the examples them."""
    if not member.any():
        return 0.0
    share = (sizes * member) @ weights  # pixels of the find in each patch
    here = unit(patches)[share >= share.max() / 2]
    alike = []
    for example in examples:
        inside = example.inside()
        forth = matching.likeness(here, inside, NEIGHBOURS).mean()
        alike.append(float(forth + matching.likeness(inside, here, 1).mean()) / 2)
    # The better half of the examples: all together would be like anything, and one may show another side of the thing.
    close = float(np.mean(sorted(alike, reverse=True)[: (len(alike) + 1) // 2]))
    backing = float((sizes * member) @ plane / (sizes * member).sum())
    return float(1 / (1 + np.exp((MIDDLE - close - 0.1 * backing) / SPREAD)))


def evidence(scene: Scene, patches: np.ndarray, classes: Sequence[Sequence[matching.Shown]]) -> np.ndarray:
    """How much more each superpixel is like each class than like what is beside it, float (C, N) in 0..1."""
    planes = matching.scores(patches, classes, neighbours=NEIGHBOURS)
    return planes.reshape(len(planes), -1) @ _weights(scene.labels, patches.shape[:2]).T


def _weights(labels: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The share of each patch in each superpixel, float32 (N, gh * gw), rows of sum 1."""
    rows = np.arange(labels.shape[0]) * grid[0] // labels.shape[0]
    columns = np.arange(labels.shape[1]) * grid[1] // labels.shape[1]
    cells = rows[:, None] * grid[1] + columns[None]
    count, wide = int(labels.max()) + 1, grid[0] * grid[1]
    pairs = labels.astype(np.int64).ravel() * wide + cells.ravel()
    shares = np.bincount(pairs, minlength=count * wide).reshape(count, wide).astype(np.float32)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)


def _self_supported(seen: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Evidence (N,) joined with that of the scene itself; ``own`` float (N, D) are its features of unit length."""
    top = float(seen.max())
    like = seen > max(SURE, 0.9 * float(np.quantile(seen, 0.97))) if top > SURE else seen >= 0.95 * top
    unlike = seen < UNLIKE
    if not like.any() or not unlike.any():
        return seen
    near = matching.likeness(own, own[like], NEIGHBOURS) - matching.likeness(own, own[unlike], NEIGHBOURS)
    return np.asarray(1 / (1 + np.exp(-(_logit(seen) + near / matching.TEMPERATURE) / 2)))


def _logit(share: np.ndarray) -> np.ndarray:
    share = np.clip(share, 1e-3, 1 - 1e-3)
    return np.asarray(np.log(share / (1 - share)))


def _fitting(scene: Scene, regions: scoring.Regions, share: np.ndarray) -> np.ndarray:
    """The set of superpixels, bool (N,), that fits evidence (N,) best and looks like a region."""
    if not share.any():
        return np.zeros(len(share), bool)
    members = candidates.from_mask(regions, scene.trees(), share)
    cues = scoring.appearance(regions, members)
    looks = cues[:, :3] @ scoring.APPEARANCE
    fit = scoring.soft_overlap(members, np.where(share > 0.2, share, 0.0), regions.sizes)
    _, expected = scoring.choose(FIT * fit + LOOKS * looks, scoring.overlap(members, regions.sizes), 1)
    return np.asarray(members[int(expected.argmax())])
