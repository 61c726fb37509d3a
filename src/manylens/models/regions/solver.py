"""The training-free promptable segmenter: encode a picture once, answer clicks, boxes and coarse masks in milliseconds.

``encode_scene`` turns ViT patch features and an edge map into superpixels and three region hierarchies; ``solve``
proposes sets of superpixels for a prompt (:mod:`.candidates`), scores them and picks up to three (:mod:`.scoring`).
Coordinates are absolute pixels, x right, y down; boxes are xyxy, max exclusive; label 1 is object, 0 background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import cv2
import numpy as np

from manylens.models.regions import candidates, scoring
from manylens.models.regions.hierarchy import Tree, merge_tree
from manylens.models.regions.masks import obey_pixels, resize_mask, tidy, to_full
from manylens.models.regions.superpixels import (
    Adjacency,
    adjacency,
    region_boxes,
    region_means,
    region_sizes,
    watershed,
)

Level = Literal["whole", "part", "subpart"]

WORKING_SIDE = 512  # the longer side in working pixels; smaller pictures are not enlarged
SALIENCY = 1.5  # weight of the saliency map beside the features, which have unit mean square length
MAX_REGIONS = 400  # superpixels; every product in a prompt is quadratic in their number
CHANNELS = 32  # principal components of the patch features that are kept
# (feature_weight, size_power) of the hierarchies: edges alone, edges and features, mostly features.
HIERARCHIES = ((0.0, 0.2), (1.0, 0.4), (3.0, 0.3))


@dataclass(frozen=True)
class Scene:
    """All that later prompts on one picture need, about 0.6 MB for 640 x 480.

    Attributes:
        height: of the picture, pixels.
        width: of the picture, pixels.
        labels: uint16 (h, w), superpixel of every working pixel, N superpixels.
        features: float32 (N, D), unit mean square length over the picture, and the weighted saliency as the last.
        pairs: int32 (E, 2), length: float32 (E,), strength: float32 (E,): see ``Adjacency``.
        boxes: int32 (N, 4), of the superpixels in working pixels.
        parent: int32 (T, 2N-1), rank: int32 (T, N), span: int32 (T, 2N-1, 2): the T hierarchies, see ``Tree``.
    """

    height: int
    width: int
    labels: np.ndarray
    features: np.ndarray
    pairs: np.ndarray
    length: np.ndarray
    strength: np.ndarray
    boxes: np.ndarray
    parent: np.ndarray
    rank: np.ndarray
    span: np.ndarray

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays by name, for ``np.savez``; nothing in them needs pickle."""
        return {name: np.asarray(getattr(self, name)) for name in self.__dataclass_fields__}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Scene:
        """The scene that ``to_arrays`` came from."""
        values: dict[str, Any] = {name: np.asarray(arrays[name]) for name in cls.__dataclass_fields__}
        return cls(**{**values, "height": int(values["height"]), "width": int(values["width"])})

    def trees(self) -> list[Tree]:
        """The hierarchies as ``Tree`` tuples."""
        return [Tree(*rows) for rows in zip(self.parent, self.rank, self.span, strict=True)]

    def regions(self) -> scoring.Regions:
        """The superpixels with all that the cues need."""
        graph = Adjacency(self.pairs, self.length, self.strength)
        return scoring.Regions.of(self.labels.astype(np.int32), graph, self.features, self.boxes)

    def full(self, member: np.ndarray) -> np.ndarray:
        """A set of superpixels, bool (N,), as a mask of the picture's size without specks, bool (H, W)."""
        mask = np.zeros(self.labels.shape, bool)
        if member.any():
            x0, y0 = self.boxes[member, :2].min(axis=0)
            x1, y1 = self.boxes[member, 2:].max(axis=0)
            # A rim of one pixel, so that all around the set is one background, as in the whole picture.
            clean = tidy(np.pad(member[self.labels[y0:y1, x0:x1]], 1), [])
            mask[y0:y1, x0:x1] = clean[1:-1, 1:-1]
        return to_full(mask, (self.height, self.width))


@dataclass
class Candidate:
    """One answer to a prompt.

    Attributes:
        mask: bool (H, W).
        score: expected intersection over union with what was meant, 0..1; comparable between candidates.
        level: by size among the answers: the largest is the whole, then part, then subpart.
    """

    mask: np.ndarray
    score: float
    level: Level


def encode_scene(rgb: np.ndarray, patches: np.ndarray, edges: np.ndarray, saliency: np.ndarray) -> Scene:
    """Prepare a picture for prompts.

    Args:
        rgb: uint8 (H, W, 3).
        patches: float32 (gh, gw, C), patch features over the whole picture.
        edges: float32 (h, w) in 0..1, boundary probability over the whole picture, at any size.
        saliency: float32 (h, w) in 0..1, over the whole picture, at any size.
    """
    height, width = rgb.shape[:2]
    scale = min(1.0, WORKING_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))  # cv2: width first
    edges = cv2.resize(edges.astype(np.float32), size, interpolation=cv2.INTER_LINEAR).reshape(size[1], size[0])
    labels = watershed(edges)
    salient = cv2.resize(saliency.astype(np.float32), size, interpolation=cv2.INTER_LINEAR).reshape(*labels.shape, 1)
    dense = np.concatenate([_components(patches, labels.shape), SALIENCY * salient], axis=-1)
    while True:
        graph = adjacency(labels, edges)
        features, sizes = region_means(labels, dense), region_sizes(labels)
        if len(sizes) <= MAX_REGIONS:
            break
        # The weakest boundaries are hardly ever an object's.
        labels = merge_tree(graph, sizes, features, feature_weight=1.0, size_power=0.4).cut(MAX_REGIONS)[labels]
    trees = [merge_tree(graph, sizes, features, feature_weight=f, size_power=p) for f, p in HIERARCHIES]
    return Scene(
        height=height,
        width=width,
        labels=labels.astype(np.uint16),
        features=features,
        pairs=graph.pairs,
        length=graph.length,
        strength=graph.strength,
        boxes=region_boxes(labels),
        parent=np.stack([t.parent for t in trees]),
        rank=np.stack([t.rank for t in trees]),
        span=np.stack([t.span for t in trees]),
    )


def _components(patches: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Principal components of the patch features at every working pixel, float32 (h, w, D), unit mean square length."""
    grid = patches.shape[:2]
    flat = patches.reshape(-1, patches.shape[2]).astype(np.float32)
    flat = flat - flat.mean(0)
    _, axes = np.linalg.eigh(flat.T @ flat)
    reduced = flat @ axes[:, ::-1][:, :CHANNELS]
    reduced /= np.sqrt((reduced**2).sum(1).mean()) + 1e-6
    dense = cv2.resize(reduced.reshape(*grid, -1), shape[::-1], interpolation=cv2.INTER_LINEAR)
    return dense.reshape(*shape, -1)


def solve(
    scene: Scene,
    *,
    points: Sequence[tuple[float, float]] = (),
    labels: Sequence[int] = (),
    box: tuple[float, float, float, float] | None = None,
    mask: np.ndarray | None = None,
) -> list[Candidate]:
    """Answer a prompt with up to three candidates, best score first.

    Args:
        scene: from ``encode_scene``.
        points: clicks (x, y) in pixels of the picture.
        labels: 1 (object) or 0 (background), one a click. Every object click lies in, and every background click
            outside, each returned mask; at a pixel with both, object wins.
        box: (x0, y0, x1, y1) around the object, max exclusive.
        mask: bool (H, W), a coarse mask to be made better.

    Raises:
        ValueError: without any prompt, or when points and labels do not match.
    """
    if len(points) != len(labels):
        raise ValueError(f"{len(points)} points but {len(labels)} labels")
    if not len(points) and box is None and mask is None:
        raise ValueError("a prompt is needed: points, a box or a mask")
    regions = scene.regions()
    grid = regions.labels
    trees = scene.trees()
    prompt = _Prompt.of(scene, points, labels, box, mask)

    members = _propose(regions, trees, prompt)
    under = [int(grid[y, x]) for x, y in prompt.clicks]
    wanted, banned = np.zeros((2, len(regions.sizes)), bool)
    wanted[[leaf for leaf, label in zip(under, prompt.labels, strict=True) if label]] = True
    banned[[leaf for leaf, label in zip(under, prompt.labels, strict=True) if not label]] = True
    banned &= ~wanted  # a superpixel with clicks of both kinds is left to the pixels
    anchor = None
    logits = _score(regions, members, prompt, None)
    for number, (leaf, label) in enumerate(zip(under, prompt.labels, strict=True)):
        if number or prompt.box is not None or prompt.share is not None:
            anchor = members[scoring.choose(logits, scoring.overlap(members, regions.sizes), 1)[0][0]]
        if label or banned[leaf]:
            rank = partial(_score, regions, prompt=prompt, anchor=anchor)
            members = candidates.obey(members, trees, leaf, bool(label), banned if label else wanted, rank)
        logits = _score(regions, members, prompt, anchor)
    picks, expected = scoring.choose(logits, scoring.overlap(members, regions.sizes))

    by_size = sorted(picks, key=lambda k: -float(regions.areas(members[k : k + 1])[0]))
    names: tuple[Level, ...] = ("whole", "part", "subpart")
    found = []
    for k in picks:
        clean = tidy(members[k][grid], prompt.clicks)
        full = obey_pixels(to_full(clean, (scene.height, scene.width)), points, labels)
        found.append(Candidate(full, float(np.clip(expected[k], 0, 1)), names[by_size.index(k)]))
    return found


@dataclass(frozen=True)
class _Prompt:
    """A prompt in working pixels: integer clicks (x, y), an integer box, a coarse mask as share of superpixels."""

    clicks: list[tuple[int, int]]
    labels: list[int]
    box: np.ndarray | None
    share: np.ndarray | None

    @classmethod
    def of(
        cls,
        scene: Scene,
        points: Sequence[tuple[float, float]],
        labels: Sequence[int],
        box: tuple[float, float, float, float] | None,
        mask: np.ndarray | None,
    ) -> _Prompt:
        height, width = scene.labels.shape
        sx, sy = width / scene.width, height / scene.height
        clicks = [(min(max(int(x * sx), 0), width - 1), min(max(int(y * sy), 0), height - 1)) for x, y in points]
        corners = None
        if box is not None:
            x0, x1 = np.clip(np.round(np.sort([box[0], box[2]]) * sx).astype(int), 0, width)
            y0, y1 = np.clip(np.round(np.sort([box[1], box[3]]) * sy).astype(int), 0, height)
            x0, y0 = min(x0, width - 1), min(y0, height - 1)
            corners = np.array([x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)])
        share = None
        if mask is not None and mask.any():
            small = resize_mask(mask, (height, width))
            flat = scene.labels.ravel()
            share = np.bincount(flat, small.ravel()) / np.bincount(flat)
        return cls(clicks, [int(bool(label)) for label in labels], corners, share)

    @property
    def main(self) -> tuple[int, int] | None:
        """The first object click; the others are corrections."""
        return next((c for c, label in zip(self.clicks, self.labels, strict=True) if label), None)


def _propose(regions: scoring.Regions, trees: list[Tree], prompt: _Prompt) -> np.ndarray:
    """Candidates for the strongest part of the prompt: mask, then box, then the first object click."""
    if prompt.share is not None:
        return candidates.from_mask(regions, trees, prompt.share)
    if prompt.box is not None:
        return candidates.from_box(regions, trees, prompt.box)
    if prompt.main is not None:
        x, y = prompt.main
        return candidates.from_click(regions, trees, int(regions.labels[y, x]))
    return np.ones((1, len(regions.sizes)), bool)  # only background clicks: the picture without what they mean


def _score(regions: scoring.Regions, members: np.ndarray, prompt: _Prompt, anchor: np.ndarray | None) -> np.ndarray:
    """Logits (K,) of candidates (K, N); ``anchor`` bool (N,) is the answer before the last correction."""
    cues = scoring.appearance(regions, members)
    logits = cues[:, :3] @ scoring.APPEARANCE
    if anchor is not None:
        # What a correction adds or takes away should itself look like a region.
        change = members ^ anchor
        some = change.any(1)
        if some.any():
            natural = scoring.appearance(regions, change[some])[:, :3] @ scoring.APPEARANCE
            logits[some] += 0.5 * natural
            logits[~some] += 0.5 * natural.max()
        return logits + 10.0 * scoring.soft_overlap(members, anchor, regions.sizes)
    if prompt.share is not None:
        return logits + 12.0 * scoring.soft_overlap(members, prompt.share, regions.sizes)
    if prompt.box is not None:
        x0, y0, x1, y1 = prompt.box
        covered = np.bincount(regions.labels[y0:y1, x0:x1].ravel(), minlength=len(regions.sizes))
        within = (members @ covered) / regions.areas(members)
        return 1.3 * logits + 9.0 * scoring.box_overlap(regions.bounding(members), prompt.box) + 9.0 * within
    logits = logits + scoring.size_prior(cues) - 7.0 * cues[:, 4]
    if prompt.main is not None:
        logits = logits + 6.5 * scoring.centrality(regions.labels, members, prompt.main)
    return logits
