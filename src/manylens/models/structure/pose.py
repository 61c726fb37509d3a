"""MoveNet Lightning (Votel & Li, TensorFlow 2021): the 17 keypoints of COCO of a person, one person at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from manylens.media import Image
from manylens.models.base import Model
from manylens.runtime.context import Context
from manylens.runtime.engines import Compiled, EngineSettings, compile
from manylens.tasks import DetectRequest, Request
from manylens.tasks.requests import StructureRequest
from manylens.tasks.results import StructureMap

if TYPE_CHECKING:
    from manylens.catalog import Row

KEYPOINTS = (
    "nose",
    "left eye",
    "right eye",
    "left ear",
    "right ear",
    "left shoulder",
    "right shoulder",
    "left elbow",
    "right elbow",
    "left wrist",
    "right wrist",
    "left hip",
    "right hip",
    "left knee",
    "right knee",
    "left ankle",
    "right ankle",
)
"""What the 17 keypoints are, in order; left and right are the person's own."""

BONES = (
    (0, 1),
    (0, 2),
    (1, 3),
    (2, 4),
    (5, 6),
    (5, 7),
    (7, 9),
    (6, 8),
    (8, 10),
    (5, 11),
    (6, 12),
    (11, 12),
    (11, 13),
    (13, 15),
    (12, 14),
    (14, 16),
)
"""Pairs of keypoints that are joined by a line."""

SURE = 0.3
"""A keypoint below this score is not drawn; the model's authors cut there too."""

FEWEST = 4
"""A person shows at least so many sure keypoints."""

_SIDE = 192
_ROOM = 1.25
"""How much larger than the detector's box the square is that the network sees."""


class MoveNet(Model):
    """Serves ``structure`` for ``pose``; ``detect`` finds the people, else the network looks at all."""

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        super().__init__(row, files, settings)
        self._loading = threading.Lock()
        self._net: Compiled | None = None

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[StructureMap]:
        """Yield a drawing, RGB uint8 ``(H, W, 3)`` on black, and ``keypoints`` float32 ``(N, 17, 3)``: x, y, score.

        People come in the order of the detector's scores. Where nobody is found, N is 0, and a note says so.
        """
        for request in requests:
            assert isinstance(request, StructureRequest)
            ctx.check()
            image = request.image
            people = [pose for square in _squares(image, ctx) if seen(pose := self.keypoints(image.array, square))]
            if not people:
                ctx.notes.setdefault("notes", []).append(f"no person was found in {image.name}")
            points = np.stack(people) if people else np.zeros((0, len(KEYPOINTS), 3), np.float32)
            yield StructureMap("pose", skeletons(points, image.size), points)

    def keypoints(self, rgb: np.ndarray, square: tuple[float, float, float]) -> np.ndarray:
        """The keypoints of the one person in a square of a photo.

        Args:
            rgb: uint8 ``(H, W, 3)``.
            square: x and y of its middle and its side, in pixels; black where it leaves the photo.

        Returns:
            float32 ``(17, 3)``: x, y in pixels of the photo, and a score in 0..1.
        """
        import cv2

        x, y, side = square
        scale = _SIDE / side
        # Pixel middles onto pixel middles; an area mean first where much is thrown away.
        reduced = rgb if scale >= 0.5 else cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        fx, fy = (scale * rgb.shape[1] / reduced.shape[1], scale * rgb.shape[0] / reduced.shape[0])
        matrix = np.array(
            [
                [fx, 0, _SIDE / 2 - x * scale + 0.5 * fx - 0.5],
                [0, fy, _SIDE / 2 - y * scale + 0.5 * fy - 0.5],
            ]
        )
        patch = cv2.warpAffine(reduced, matrix, (_SIDE, _SIDE), flags=cv2.INTER_LINEAR)
        found = self._loaded()(patch[None].astype(np.uint8))[0].reshape(len(KEYPOINTS), 3)
        middle = np.array([x, y], np.float32)
        return np.concatenate([(found[:, 1::-1] - 0.5) * side + middle, found[:, 2:]], axis=1).astype(np.float32)

    def _loaded(self) -> Compiled:
        with self._loading:
            if self._net is None:
                self._net = compile(self.files["movenet_lightning.tflite"], self.settings)
            return self._net

    def probe(self) -> Callable[[], np.ndarray]:
        """The keypoints of fixed noise; see :meth:`manylens.models.base.Model.probe`."""
        noise = np.random.default_rng(0).integers(0, 256, (1, _SIDE, _SIDE, 3), np.uint8)
        return lambda: self._loaded()(noise)[0].reshape(-1, 3)

    def close(self) -> None:
        """Give the network's memory back."""
        if self._net is not None:
            self._net.close()
            self._net = None


def seen(pose: np.ndarray) -> bool:
    """Whether keypoints ``(17, 3)`` are those of a person."""
    return int((pose[:, 2] >= SURE).sum()) >= FEWEST


def _squares(image: Image, ctx: Context) -> list[tuple[float, float, float]]:
    """Where to look for people: a square around each that the detector finds, else around the whole photo."""
    found = ctx.call("detect", DetectRequest.of(image=image, names=["person"]))
    squares = [
        ((x0 + x1) / 2, (y0 + y1) / 2, _ROOM * max(x1 - x0, y1 - y0, 1.0)) for x0, y0, x1, y1 in found.xyxy.tolist()
    ]
    return squares or [(image.width / 2, image.height / 2, float(max(image.size)))]


def skeletons(people: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """People drawn as skeletons on black: RGB uint8 ``(H, W, 3)``.

    Args:
        people: float32 ``(N, 17, 3)``: x, y, score; keypoints below :data:`SURE` are left out.
        size: ``(width, height)`` in pixels.
    """
    import cv2

    canvas = np.zeros((size[1], size[0], 3), np.uint8)
    width = max(2, round(max(size) / 128))
    hues = np.stack([np.linspace(0, 170, len(BONES)), *[np.full(len(BONES), 255)] * 2], axis=1)
    colours = cv2.cvtColor(hues.astype(np.uint8)[None], cv2.COLOR_HSV2RGB)[0].tolist()
    for pose in people:
        places, sure = pose[:, :2].round().astype(int).tolist(), pose[:, 2] >= SURE
        for colour, (start, end) in zip(colours, BONES, strict=True):
            if sure[start] and sure[end]:
                cv2.line(canvas, places[start], places[end], colour, width, cv2.LINE_AA)
        for place in np.flatnonzero(sure):
            cv2.circle(canvas, places[place], width, (255, 255, 255), -1, cv2.LINE_AA)
    return canvas
