"""SSD MobileNet v2 (Liu et al., 2016; Sandler et al., 2018): boxes of the 80 things of COCO.

The graph is cut at the raw predictions; anchors, decoding and suppression are done here, as the TensorFlow Object
Detection API does them, so that a threshold and a choice of classes cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from manylens.errors import UnsupportedError
from manylens.models import names
from manylens.models.base import Model
from manylens.models.nms import nms
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings, compile
from manylens.tasks import DetectRequest, Request, detections

if TYPE_CHECKING:
    from supervision import Detections

    from manylens.catalog import Row

SIDE = 300
_SOURCE = "Preprocessor/sub"
_HEADS = tuple(
    f"BoxPredictor_{i}/{kind}/BiasAdd" for i in range(6) for kind in ("BoxEncodingPredictor", "ClassPredictor")
)
_GRIDS = (19, 10, 5, 3, 2, 1)
_CLASSES = 91  # background and the 90 numbers of COCO
_VARIANCES = np.array([10, 10, 5, 5], np.float32)
_CANDIDATES = 1000  # boxes that go into the suppression; more only slow it down
_OPEN_WORDS = (
    "segment takes any words with a checkpoint such as CIDAS/clipseg-rd64-refined; for detect, the loader of one "
    "is not in this version yet"
)


@dataclass(frozen=True)
class _Wanted:
    """What one request looks for: class numbers, each with the user's own word, or all."""

    words: Mapping[int, str]
    notes: tuple[str, ...] = ()


class Ssd(Model):
    """Finds the things of COCO, all of them or those that names ask for."""

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        super().__init__(row, files, settings)
        from manylens.models.tfgraph import build

        self._net = compile(build(files["frozen_inference_graph.pb"], _SOURCE, _HEADS, SIDE), settings)

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Detections]:
        """Serve ``detect`` requests; see :meth:`manylens.models.base.Model.run`.

        Raises:
            UnsupportedError: A name is none of COCO's things.
        """
        for request in requests:
            assert isinstance(request, DetectRequest)
            ctx.check()
            wanted = _wanted(request.names)
            boxes, scores = decode(self._net(_square(request.image.array)))
            if wanted.notes:
                ctx.notes.setdefault("notes", []).extend(wanted.notes)
            yield select(boxes, scores, wanted.words, request.threshold, request.image.size)

    def probe(self) -> Callable[[], np.ndarray]:
        """See :meth:`manylens.models.base.Model.probe`; gives class scores of all anchors."""
        picture = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)
        return lambda: decode(self._net(picture))[1]

    def close(self) -> None:
        """Give the network's memory back."""
        self._net.close()


def _square(rgb: np.ndarray) -> np.ndarray:
    """``(H, W, 3)`` to the network's ``(1, SIDE, SIDE, 3)``, its aspect not kept (so it was trained)."""
    import cv2

    shrinks = min(rgb.shape[:2]) > SIDE
    return cv2.resize(rgb, (SIDE, SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)[None]


@cache
def anchors() -> np.ndarray:
    """The 1,917 anchors: float32 ``(1917, 4)``, centre y, centre x, height, width, in parts of the picture."""
    scales = [*np.linspace(0.2, 0.95, len(_GRIDS)), 1.0]
    rows = []
    for level, grid in enumerate(_GRIDS):
        if level == 0:  # the lowest level has fewer: its cells are many
            shapes = [(0.1, 1.0), (scales[0], 2.0), (scales[0], 0.5)]
        else:
            shapes = [(scales[level], ratio) for ratio in (1.0, 2.0, 0.5, 3.0, 1 / 3)]
            shapes.append((float(np.sqrt(scales[level] * scales[level + 1])), 1.0))
        sizes = np.array([(scale / np.sqrt(ratio), scale * np.sqrt(ratio)) for scale, ratio in shapes])
        centres = (np.indices((grid, grid)).reshape(2, -1).T + 0.5) / grid
        rows.append(np.hstack([np.repeat(centres, len(sizes), axis=0), np.tile(sizes, (len(centres), 1))]))
    return np.concatenate(rows).astype(np.float32)


def decode(outputs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Raw predictions to boxes and probabilities.

    Args:
        outputs: For each of the six levels the box encodings ``(1, h, w, 4 * k)`` and the class scores
            ``(1, h, w, 91 * k)``.

    Returns:
        Boxes ``(1917, 4)`` ``xyxy`` in parts of the picture, and scores ``(1917, 91)`` in 0..1; column 0 is background.
    """
    encodings = np.concatenate([output.reshape(-1, 4) for output in outputs[0::2]]) / _VARIANCES
    logits = np.concatenate([output.reshape(-1, _CLASSES) for output in outputs[1::2]])
    anchor = anchors()
    centre = encodings[:, :2] * anchor[:, 2:] + anchor[:, :2]
    half = np.exp(encodings[:, 2:]) * anchor[:, 2:] / 2
    boxes = np.hstack([centre - half, centre + half])[:, [1, 0, 3, 2]]
    return boxes, 1 / (1 + np.exp(-logits))


def select(
    boxes: np.ndarray, scores: np.ndarray, words: Mapping[int, str], threshold: float, size: tuple[int, int]
) -> Detections:
    """The detections of the wanted classes.

    Args:
        boxes: ``(N, 4)`` ``xyxy`` in parts of the picture.
        scores: ``(N, 91)``.
        words: The wanted class numbers, each with the name to show.
        threshold: The least score that is kept.
        size: ``(width, height)`` of the picture in pixels.
    """
    numbers = np.array(sorted(words))
    which, column = np.nonzero(scores[:, numbers] >= threshold)
    score = scores[which, numbers[column]]
    best = np.argsort(-score, kind="stable")[:_CANDIDATES]
    which, kind, score = which[best], numbers[column[best]], score[best]
    kept = nms(boxes[which], score, kind)
    extent = np.array([*size, *size], np.float32)
    known = names.coco_classes()
    return detections(
        np.clip(boxes[which[kept]], 0, 1) * extent,
        score[kept],
        names=[words[number] for number in kind[kept]],
        class_ids=kind[kept].tolist(),
        things=[known[number].is_thing for number in kind[kept]],
    )


def _wanted(asked: Sequence[str] | None) -> _Wanted:
    if asked is None:
        return _Wanted({number: thing.name for number, thing in names.coco_classes().items()})
    numbers = {thing.name: number for number, thing in names.coco_classes().items()}
    meanings = [_meaning(name) for name in asked]
    words: dict[int, str] = {}
    notes = [meaning.note for meaning in meanings if meaning.note]
    # "cup" and "glass": what says cup exactly is called cup, the rest of what glass may be is called glass.
    for meaning in sorted(meanings, key=lambda found: ("same", "narrower", "broader").index(found.kind)):
        for thing in meaning.classes:
            kept = words.setdefault(numbers[thing], meaning.phrase)
            if kept != meaning.phrase and meaning.kind != "broader":
                notes.append(f"{kept!r} and {meaning.phrase!r} are both {thing!r} here; shown as {kept!r}")
    return _Wanted(words, tuple(notes))


def _meaning(name: str) -> names.Meaning:
    meaning = names.coco().find(name)
    if meaning is not None:
        return meaning
    near = names.coco().nearest(name) or ["person", "cat", "car"]
    raise UnsupportedError(
        f"{name!r}: the embedded detector knows 80 things and this is none of them",
        f"ask for one of the things it knows, such as {', '.join(near)}; {_OPEN_WORDS}",
    )
