"""Edges and straight lines that need no weights: Canny (1986) and LSD (Grompone von Gioi et al., 2010), by OpenCV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from manylens.models.base import Model
from manylens.runtime.context import Context
from manylens.tasks import Request
from manylens.tasks.requests import StructureRequest
from manylens.tasks.results import StructureMap

SPREAD = 1 / 3
"""Canny's thresholds lie this share below and above the median brightness."""

_LEAST, _MOST = 30, 170
"""Bounds of that median: a photo that is mostly black or white would else be all edges, or none."""

SHORTEST = 0.02
"""Lines shorter than this share of the diagonal are left out: they are texture."""


class Outlines(Model):
    """Serves ``structure`` for ``canny`` and ``lines``."""

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[StructureMap]:
        """Yield uint8 ``(H, W)``: 255 on a line, else 0."""
        for request in requests:
            assert isinstance(request, StructureRequest)
            ctx.check()
            made = canny(request.image.array) if request.kind == "canny" else drawn_lines(request.image.array)
            yield StructureMap(request.kind, made)


def canny(rgb: np.ndarray) -> np.ndarray:
    """Canny's edges with thresholds that fit the photo's brightness.

    Args:
        rgb: uint8 ``(H, W, 3)``.

    Returns:
        uint8 ``(H, W)``: 255 on an edge, one pixel thin, else 0.
    """
    import cv2

    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    low, high = thresholds(gray)
    return np.asarray(cv2.Canny(cv2.GaussianBlur(gray, (3, 3), 0), low, high), np.uint8)


def thresholds(gray: np.ndarray) -> tuple[float, float]:
    """Canny's two thresholds: a third below and above the median, which is taken as 30 to 170."""
    middle = float(np.clip(np.median(gray), _LEAST, _MOST))
    return (1 - SPREAD) * middle, (1 + SPREAD) * middle


def segments(rgb: np.ndarray) -> np.ndarray:
    """The straight lines of a photo.

    Args:
        rgb: uint8 ``(H, W, 3)``.

    Returns:
        float32 ``(N, 4)``: x and y of both ends in pixels, the longest first; none shorter than :data:`SHORTEST`.
    """
    import cv2

    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    if min(gray.shape) < 3:
        return np.zeros((0, 4), np.float32)
    found = cv2.createLineSegmentDetector(cv2.LSD_REFINE_STD).detect(gray)[0]
    lines = np.zeros((0, 4), np.float32) if found is None else found.reshape(-1, 4)
    length = np.hypot(lines[:, 2] - lines[:, 0], lines[:, 3] - lines[:, 1])
    order = np.argsort(-length, kind="stable")
    return lines[order[length[order] >= SHORTEST * np.hypot(*gray.shape)]]


def drawn_lines(rgb: np.ndarray) -> np.ndarray:
    """The straight lines as a map, uint8 ``(H, W)``: 255 on a line, else 0; lines grow thicker with the photo."""
    import cv2

    canvas = np.zeros(rgb.shape[:2], np.uint8)
    width = max(1, round(max(rgb.shape[:2]) / 512))
    for x0, y0, x1, y1 in segments(rgb).round().astype(int).tolist():
        cv2.line(canvas, (x0, y0), (x1, y1), 255, width)
    return canvas
