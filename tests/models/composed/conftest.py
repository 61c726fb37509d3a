"""A scripted door: composed models ask it for other tasks, and it answers what the test says is on the picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from manylens.errors import UnsupportedError
from manylens.media import Image
from manylens.models.composed.answers import Answers
from manylens.models.composed.words_to_mask import WordsToMask
from manylens.runtime.context import Context
from manylens.tasks import Classification, Label, Reading, TextLine, detections

KNOWN = {"cat", "dog", "cup", "spoon", "bus", "person", "scissors"}
WIDTH, HEIGHT = 300, 200


@dataclass
class World:
    """What a picture shows; every call is kept in ``calls``."""

    things: list[tuple[str, float, tuple[float, float, float, float]]] = field(default_factory=list)
    labels: list[tuple[str, float]] = field(default_factory=lambda: [("tabby, tabby cat", 0.62)])
    lines: list[tuple[str, float, tuple[float, float, float, float]]] = field(default_factory=list)
    pixels: np.ndarray = field(default_factory=lambda: np.full((HEIGHT, WIDTH, 3), 128, np.uint8))
    calls: list[tuple[str, Any]] = field(default_factory=list)

    def context(self) -> Context:
        return Context(call=self.call)

    def image(self) -> Image:
        return Image.of(self.pixels)

    def call(self, task: str, request: Any) -> Any:
        self.calls.append((task, request))
        return getattr(self, task)(request)

    def detect(self, request: Any) -> Any:
        for name in request.names or ():
            if name not in KNOWN:
                raise UnsupportedError(f"'{name}' is not among the things that this model knows")
        rows = [t for t in self.things if t[1] >= request.threshold and (not request.names or t[0] in request.names)]
        return detections([r[2] for r in rows], [r[1] for r in rows], names=[r[0] for r in rows])

    def segment(self, request: Any) -> Any:
        if request.text is not None:
            return next(WordsToMask(None, {}, None).run([request], self.context()))  # type: ignore[arg-type]
        masks, scores, objects, boxes = [], [], [], []
        for number, prompt in enumerate(request.objects):
            for score in (0.5, 0.9):  # the second is the better mask of each box
                mask = np.zeros((HEIGHT, WIDTH), bool)
                x0, y0, x1, y1 = (int(v) for v in prompt.box)
                mask[y0 : y1 if score > 0.6 else y0 + 2, x0:x1] = True
                masks.append(mask)
                scores.append(score)
                objects.append(number)
                boxes.append(prompt.box)
        return detections(boxes, scores, masks=np.array(masks), objects=objects)

    def classify(self, request: Any) -> Any:
        return Classification(tuple(Label(*row) for row in self.labels))

    def read(self, request: Any) -> Any:
        return Reading(tuple(TextLine(*row) for row in self.lines))

    def ask(self, question: str) -> Any:
        from manylens.tasks import AnswerRequest

        request = AnswerRequest.of(image=self.image(), question=question)
        return next(Answers(None, {}, None).run([request], self.context()))  # type: ignore[arg-type]


@pytest.fixture
def world() -> type[World]:
    return World
