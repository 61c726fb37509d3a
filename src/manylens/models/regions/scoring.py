"""What makes a set of superpixels look like the object that was meant: a handful of cues, and a decision.

The cues are old friends of figure-ground work: strength of the boundary, contrast with the surroundings, evenness
inside, size, contact with the picture's border, how central the click lies, how well the box is filled. A linear score
of them is turned into a probability over all candidates, and the answer is the candidate with the highest *expected*
intersection over union, as a Bayes decision (Nowozin, CVPR 2014) - a consensus of everything that was proposed.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from manylens.models.regions.superpixels import Adjacency

SAME = 0.8  # overlap above which two answers are one

# Weights of the first three cues of `appearance`: boundary strength, contrast, variance. Set from a fit on held-out
# halves of a small set of photographs with human-drawn regions, then rounded.
APPEARANCE = np.array([6.0, 6.0, -2.5])


@dataclass(frozen=True)
class Regions:
    """Superpixels with everything the cues need; N superpixels, D feature channels.

    Attributes:
        labels: int32 (h, w).
        sizes: float32 (N,) pixels.
        boxes: int32 (N, 4), xyxy, max exclusive.
        features: float32 (N, D), about unit length; the last is the weighted saliency.
        contact: float32 (N,), pixels of each superpixel on the picture's border.
        length: float32 (N, N), symmetric, length of the common boundary.
        weight: float32 (N, N), symmetric, length times mean edge probability.
    """

    labels: np.ndarray
    sizes: np.ndarray
    boxes: np.ndarray
    features: np.ndarray
    contact: np.ndarray
    length: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, graph: Adjacency, features: np.ndarray, boxes: np.ndarray) -> Regions:
        """Spread the adjacency list into dense matrices: with about 800 superpixels products of them are cheap."""
        sizes = np.bincount(labels.ravel()).astype(np.float32)
        rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        length = np.zeros((len(sizes), len(sizes)), np.float32)
        weight = np.zeros_like(length)
        a, b = graph.pairs.T
        length[a, b] = length[b, a] = graph.length
        weight[a, b] = weight[b, a] = graph.length * graph.strength
        contact = np.bincount(rim, minlength=len(sizes)).astype(np.float32)
        return cls(labels, sizes, boxes, features, contact, length, weight)

    def areas(self, members: np.ndarray) -> np.ndarray:
        """Pixels of each candidate, float32 (K,), of ``members`` bool (K, N)."""
        return members.astype(np.float32) @ self.sizes

    def bounding(self, members: np.ndarray) -> np.ndarray:
        """Boxes float64 (K, 4) of candidates bool (K, N)."""
        low = np.where(members[..., None], self.boxes[None, :, :2], np.inf).min(1)
        high = np.where(members[..., None], self.boxes[None, :, 2:], -np.inf).max(1)
        return np.concatenate([low, high], axis=1)


def appearance(regions: Regions, members: np.ndarray) -> np.ndarray:
    """Cues that need no prompt, float32 (K, 5) of candidates bool (K, N).

    Columns: mean edge probability along the boundary; distance of the mean feature to that of the touching
    surroundings; feature variance inside; log of the share of the picture; share of the boundary on the picture's rim.
    """
    inside = members.astype(np.float32)
    area = inside @ regions.sizes
    touching = (inside @ regions.length) * (1 - inside)
    edge = (inside @ regions.weight) * (1 - inside)
    boundary = touching.sum(1) + 1e-6
    weighted = inside * regions.sizes / area[:, None]
    mean = weighted @ regions.features
    around = (touching @ regions.features) / boundary[:, None]
    variance = weighted @ np.einsum("nd,nd->n", regions.features, regions.features) - np.einsum("kd,kd->k", mean, mean)
    rim = inside @ regions.contact
    return np.stack(
        [
            edge.sum(1) / boundary,
            np.linalg.norm(mean - around, axis=1),
            variance,
            np.log(area / regions.sizes.sum()),
            rim / (boundary + rim),
        ],
        axis=1,
    )


def size_prior(cues: np.ndarray) -> np.ndarray:
    """What the size of candidates adds to their logits, (K,): things of a third of the picture are the likeliest."""
    return np.asarray(-0.08 * (cues[:, 3] + 1.0) ** 2)


def centrality(labels: np.ndarray, members: np.ndarray, point: tuple[int, int]) -> np.ndarray:
    """How central a click (x, y) lies: its depth inside the candidate over its greatest depth, float32 (K,) in 0..1.

    People click near the middle of what they mean; depth is the distance to the boundary or the picture's rim,
    measured on a three times coarser grid for speed.
    """
    coarse = np.ascontiguousarray(labels[1::3, 1::3]) if min(labels.shape) >= 6 else labels
    scale = 3 if coarse is not labels else 1
    x = np.clip(int(point[0]) // scale, 0, coarse.shape[1] - 1)
    y = np.clip(int(point[1]) // scale, 0, coarse.shape[0] - 1)
    result = np.empty(len(members), np.float32)
    for k, row in enumerate(members.astype(np.uint8)):
        mask = cv2.copyMakeBorder(row[coarse], 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
        result[k] = depth[y + 1, x + 1] / max(float(depth.max()), 1.0)
    return result


def overlap(members: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Intersection over union of every two candidates, float32 (K, K)."""
    inside = members.astype(np.float32)
    shared = (inside * sizes) @ inside.T
    area = np.diag(shared)
    return shared / np.maximum(area[:, None] + area[None] - shared, 1e-6)


def soft_overlap(members: np.ndarray, share: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Intersection over union (K,) of candidates with one mask, given as its share (N,) in 0..1 of every superpixel."""
    wanted = share * sizes
    shared = members @ wanted
    return shared / np.maximum(members @ sizes + wanted.sum() - shared, 1e-6)


def box_overlap(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Intersection over union of ``boxes`` (K, 4) with one box (4,)."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    union = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + np.prod(box[2:] - box[:2]) - shared
    return shared / np.maximum(union, 1e-6)


def choose(logits: np.ndarray, iou: np.ndarray, count: int = 3) -> tuple[list[int], np.ndarray]:
    """Pick candidates that cover what may be meant.

    The first has the highest expected overlap under ``softmax(logits)``; each further one raises the expected best
    overlap of the set the most (a greedy facility location).

    Returns:
        The picks, best expected overlap first, and the expected overlap of every candidate, (K,) in 0..1.
    """
    chance = np.exp(logits - logits.max())
    chance /= chance.sum()
    expected = iou @ chance
    picks = [int(expected.argmax())]
    covered = iou[picks[0]]
    while len(picks) < min(count, len(iou)):
        gain = np.maximum(iou, covered) @ chance
        gain[iou[:, picks].max(1) > SAME] = -1  # a second answer that looks the same helps nobody
        best = int(gain.argmax())
        if gain[best] < 0:
            break
        picks.append(best)
        covered = np.maximum(covered, iou[best])
    return sorted(picks, key=lambda k: (-expected[k], k)), expected
