"""Clicks, boxes and masks of a photo, in the pixels of a network, batched so that each run of a decoder is exact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from manylens.errors import PromptError
from manylens.models.pixels import longest_side
from manylens.tasks.geometry import clip_box
from manylens.tasks.prompts import ObjectPrompt

OBJECT, BACKGROUND, TOP_LEFT, BOTTOM_RIGHT, PADDING = 1, 0, 2, 3, -1
"""Labels of points: on the object, on what is not the object, the corners of a box, and the point that is none."""

_SURE = 10.0
"""Logits of a coarse mask: this inside, minus this outside, between them by the share that is covered."""


@dataclass(frozen=True)
class Canvas:
    """How a photo lies in the square picture that a network takes.

    Attributes:
        size: ``(width, height)`` of the photo.
        inner: ``(width, height)`` of the part of the square that it fills, from the top left; the rest is padding.
        side: Side of the square in pixels.
        direct: Whether masks go to the photo in one resize, not by way of the network's pixels.
    """

    size: tuple[int, int]
    inner: tuple[int, int]
    side: int
    direct: bool = False

    @classmethod
    def padded(cls, size: tuple[int, int], side: int) -> Canvas:
        """The longer side fills the square, the aspect is kept, of at least one pixel: SAM."""
        width, height = longest_side(size, side)
        return cls(size, (max(width, 1), max(height, 1)), side)

    @classmethod
    def filled(cls, size: tuple[int, int], side: int) -> Canvas:
        """The square is filled, the aspect is not kept: SAM 2 and SAM 3, which resize masks once."""
        return cls(size, (side, side), side, direct=True)

    def points(self, points: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
        """Pixels ``(..., 2)`` of the photo as float32 pixels of the square."""
        scale = np.array([self.inner[0] / self.size[0], self.inner[1] / self.size[1]])
        return (np.asarray(points, np.float64) * scale).astype(np.float32)

    def logits(self, mask: np.ndarray, side: int) -> np.ndarray:
        """A mask of the photo, bool ``(H, W)``, as the float32 logits ``(side, side)`` that a decoder takes."""
        import cv2

        shrinks = self.inner[0] < self.size[0] or self.inner[1] < self.size[1]
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        share = np.zeros((self.side, self.side), np.float32)
        width, height = self.inner
        share[:height, :width] = cv2.resize(mask.astype(np.float32), self.inner, interpolation=how)
        return cv2.resize(share, (side, side), interpolation=cv2.INTER_AREA) * (2 * _SURE) - _SURE


@dataclass(frozen=True, eq=False)
class Batch:
    """Objects that one run of a decoder asks for; all have as many points.

    A padding point changes what a decoder finds, so objects with unlike prompts are never padded to one length.

    Attributes:
        members: Which objects these are, from 0, in the order of the rows.
        points: float32 ``(B, N, 2)`` pixels of the network.
        labels: int64 ``(B, N)``: 1 object, 0 background, 2 and 3 the corners of a box, -1 padding.
        masks: float32 ``(B, 1, S, S)`` logits at the decoder's resolution; None where no object has a mask.
        ambiguous: One click says no more than where: the decoder's several masks are all answers.
    """

    members: tuple[int, ...]
    points: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None
    ambiguous: bool

    def parts(self, most: int) -> Iterator[Batch]:
        """The same objects, at most so many at a time."""
        for start in range(0, len(self.members), most):
            rows = slice(start, start + most)
            masks = None if self.masks is None else self.masks[rows]
            yield Batch(self.members[rows], self.points[rows], self.labels[rows], masks, self.ambiguous)


def batches(
    prompts: Sequence[ObjectPrompt],
    canvas: Canvas,
    low_res: int,
    previous: np.ndarray | None = None,
    *,
    box_first: bool = False,
    pad_boxes: bool = False,
) -> list[Batch]:
    """Prompts as a decoder takes them.

    Args:
        prompts: The objects, checked against the photo.
        canvas: How the photo lies in the network's picture.
        low_res: Side of the decoder's masks.
        previous: float32 ``(low_res, low_res)`` logits of an earlier answer, for a single object; stands before the
            object's own coarse mask.
        box_first: Corners of a box come before the clicks, not after (SAM 2).
        pad_boxes: Clicks and boxes are followed by a padding point; else only clicks without a box are (SAM).

    Raises:
        PromptError: ``previous`` is of another size, or there are several objects.
    """
    if previous is not None:
        _check_previous(previous, len(prompts), low_res)
    groups: dict[tuple[int, bool, bool], list[tuple[int, np.ndarray, np.ndarray, np.ndarray | None]]] = {}
    for number, prompt in enumerate(prompts):
        points, labels = _points(prompt, canvas.size, box_first, pad_boxes)
        logits = previous
        if logits is None and prompt.mask is not None:
            logits = canvas.logits(np.asarray(prompt.mask, bool), low_res)
        clicks = len(prompt.points) + len(prompt.background_points)
        ambiguous = clicks == 1 and prompt.box is None and logits is None
        row = (number, canvas.points(points), labels, logits)
        groups.setdefault((len(labels), logits is not None, ambiguous), []).append(row)
    return [
        Batch(
            members=tuple(row[0] for row in rows),
            points=np.stack([row[1] for row in rows]),
            labels=np.stack([row[2] for row in rows]),
            masks=np.stack([np.asarray(row[3], np.float32)[None] for row in rows]) if masked else None,
            ambiguous=ambiguous,
        )
        for (_, masked, ambiguous), rows in groups.items()
    ]


def _points(
    prompt: ObjectPrompt, size: tuple[int, int], box_first: bool, pad_boxes: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Points ``(N, 2)`` in pixels of the photo and their labels.

    A box that hangs over the edge is cut there: a network has learnt no place beyond it.
    """
    box = None if prompt.box is None else clip_box(prompt.box, size)
    clicks = [(point, OBJECT) for point in prompt.points]
    clicks += [(point, BACKGROUND) for point in prompt.background_points]
    corners = [] if box is None else [(box[:2], TOP_LEFT), (box[2:], BOTTOM_RIGHT)]
    told = corners + clicks if box_first else clicks + corners
    if told and (pad_boxes or not corners):
        told.append(((0.0, 0.0), PADDING))
    points = np.array([point for point, _ in told], np.float64).reshape(-1, 2)
    return points, np.array([label for _, label in told], np.int64)


def _check_previous(previous: np.ndarray, count: int, low_res: int) -> None:
    if count != 1:
        raise PromptError(f"previous: given with {count} objects", "refine one object at a time")
    if previous.shape != (low_res, low_res):
        raise PromptError(
            f"previous: is {previous.shape[1]}x{previous.shape[0]} but the model's masks are {low_res}x{low_res}",
            "give the low_res logits of an earlier answer of the same model",
        )
