"""PP-OCRv6 (PaddleOCR) through rapidocr: finds the lines of printed text and reads them.

rapidocr brings its models inside its package and does the image work; its networks are run by our own engine, because
its own leaves OpenVINO's precision open (bf16 where the processor has it) and is not safe under threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.errors import WeightsError
from manylens.models.base import Model
from manylens.runtime.context import Context
from manylens.runtime.engines import Compiled, EngineSettings, compile
from manylens.tasks import Reading, ReadRequest, Request, TextLine

if TYPE_CHECKING:
    from manylens.catalog import Row

MAX_PIXELS = 1_600_000
"""Pixels in which text is looked for; larger pictures are reduced to as many. Each costs about 0.5 KB while it runs."""

_ASPECT = 3  # with the 736 pixels below, the thinnest sheet costs no more than the largest
_LEAST = 32  # pixels
_MODELS = {
    "Det": "PP-OCRv6_det_small.onnx",
    "Cls": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    "Rec": "PP-OCRv6_rec_small.onnx",
}


class PpOcr(Model):
    """Reads printed text: Latin and Chinese letters, level or turned."""

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        super().__init__(row, files, settings)
        self._ocr = _pipeline(files["rapidocr"] / "models", settings)

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Reading]:
        """Serve ``read`` requests; a picture without text gives a reading without lines."""
        for request in requests:
            assert isinstance(request, ReadRequest)
            ctx.check()
            lines, scale = self._lines(request.image.array)
            if scale < 0.5:
                notes = ctx.notes.setdefault("notes", [])
                notes.append(f"{request.image.name}: read at {scale:.0%} of its size; small letters may be lost")
            yield Reading(lines=tuple(in_reading_order(lines)))

    def probe(self) -> Callable[[], np.ndarray]:
        """See :meth:`manylens.models.base.Model.probe`; gives where the detector sees text."""
        picture = np.random.default_rng(0).random((1, 3, 480, 640), dtype=np.float32)
        return lambda: self._ocr.text_det.session(picture)

    def close(self) -> None:
        """Give the networks' memory back."""
        for stage in _stages(self._ocr).values():
            stage.session.close()

    def _lines(self, rgb: np.ndarray) -> tuple[list[TextLine], float]:
        """The lines, in no order, and the scale at which they were read."""
        size = np.array([rgb.shape[1], rgb.shape[0]], float)
        sheet, scale = sheet_of(rgb)
        found = self._ocr(np.ascontiguousarray(sheet[..., ::-1]))
        if found.boxes is None or not found.txts:
            return [], scale
        lines = []
        for text, score, corners in zip(found.txts, found.scores, np.asarray(found.boxes, float), strict=True):
            polygon = np.clip(corners / scale, 0, size)
            low, high = polygon.min(0), polygon.max(0)
            if (high > low).all():  # not in the margin
                points = tuple((float(x), float(y)) for x, y in polygon)
                lines.append(TextLine(text, float(score), (*low.tolist(), *high.tolist()), points))
        return lines, scale


def sheet_of(rgb: np.ndarray) -> tuple[np.ndarray, float]:
    """A picture as the text detector can take it: not too large, not too thin.

    The detector enlarges the shorter side to 736 pixels, so a strip would grow to gigabytes: thin pictures get a margin
    at the right or below, in their own usual colour.

    Args:
        rgb: uint8 ``(H, W, 3)``.

    Returns:
        The sheet, and by how much the picture was scaled (at most 1).
    """
    import cv2

    tall, wide = rgb.shape[:2]
    scale = min(1.0, math.sqrt(MAX_PIXELS / (max(tall, wide / _ASPECT) * max(wide, tall / _ASPECT))))
    height, width = (max(1, round(side * scale)) for side in (tall, wide))
    if scale < 1:
        rgb = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    below = max(math.ceil(width / _ASPECT), _LEAST, height) - height
    right = max(math.ceil(height / _ASPECT), _LEAST, width) - width
    colour = np.median(rgb.reshape(-1, 3), axis=0).tolist()
    return cv2.copyMakeBorder(rgb, 0, below, 0, right, cv2.BORDER_CONSTANT, value=colour), scale


def in_reading_order(lines: Sequence[TextLine]) -> list[TextLine]:
    """Lines from top to bottom, and from left to right where they stand beside each other.

    Two lines stand beside each other when the middle of one lies within the height of the other.
    """
    rows: list[list[TextLine]] = []
    for line in sorted(lines, key=lambda line: line.box[1] + line.box[3]):
        middle = (line.box[1] + line.box[3]) / 2
        if rows and rows[-1][0].box[1] <= middle <= rows[-1][0].box[3]:
            rows[-1].append(line)
        else:
            rows.append([line])
    return [line for row in rows for line in sorted(row, key=lambda line: line.box[0])]


class _Session:
    """One of rapidocr's networks, run by our engine."""

    def __init__(self, net: Compiled) -> None:
        self._net = net
        self.close = net.close

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        return self._net(batch)[0]


def _pipeline(folder: Path, settings: EngineSettings) -> Any:
    """The three stages of rapidocr, loaded from ``folder`` and nothing fetched or logged."""
    missing = [name for name in _MODELS.values() if not (folder / name).is_file()]
    if missing:
        raise WeightsError(f"rapidocr: its package has no {missing[0]}", "install rapidocr again")
    from rapidocr import EngineType, RapidOCR

    params: dict[str, Any] = {"Global.log_level": "critical", "Global.use_preprocess_img": False}
    for stage, name in _MODELS.items():
        # With a path given, rapidocr never looks for a download.
        params |= {f"{stage}.engine_type": EngineType.OPENVINO, f"{stage}.model_path": str(folder / name)}
    ocr = RapidOCR(params=params)
    for name, stage in _stages(ocr).items():
        stage.session = _Session(compile(folder / _MODELS[name], settings))
    return ocr


def _stages(ocr: Any) -> dict[str, Any]:
    """The stages by name; each is loaded on first use."""
    return {"Det": ocr._load_det_model(), "Cls": ocr._load_cls_model(), "Rec": ocr._load_rec_model()}
