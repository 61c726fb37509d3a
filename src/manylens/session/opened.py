"""What keeps state between calls: clicks on one picture, and streams that a model itself follows."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from manylens.errors import PromptError
from manylens.media import Image
from manylens.tasks import SegmentRequest
from manylens.tasks.results import LOW_RES

if TYPE_CHECKING:
    from supervision import Detections

    from manylens.session.door import Session


class Opened:
    """Media opened for one task: its model stays in memory until :meth:`close`. Use it as a context manager."""

    def __init__(self, pins: ExitStack) -> None:
        self._pins = pins
        self.closed = False

    def close(self) -> None:
        """Let the model go; it stays loaded while there is room."""
        self.closed = True
        self._pins.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Clicks(Opened):
    """Clicks on one picture, each refining the mask; the encoder runs for the first one only.

    Attributes:
        image: The picture.
        result: What the last click gave: up to three masks, the best first; None before the first.
    """

    def __init__(self, session: Session, image: Image, model: str | None, seed: int, pins: ExitStack) -> None:
        super().__init__(pins)
        self.image = image
        self.result: Detections | None = None
        self._session, self._model, self._seed = session, model, seed
        self._steps: list[dict[str, Any]] = []

    def click(self, x: float, y: float, *, background: bool = False) -> Detections:
        """Add a click at ``(x, y)`` in pixels, on the object or on what is not the object."""
        return self._step({"background_points" if background else "points": (x, y)})

    def box(self, x0: float, y0: float, x1: float, y1: float) -> Detections:
        """Set the box around the object, in pixels, max exclusive."""
        return self._step({"box": (x0, y0, x1, y1)})

    def undo(self) -> Detections | None:
        """Take the last click or box back."""
        if not self._steps:
            raise PromptError(f"{self.image.name}: nothing to undo", "click first")
        steps = self._steps[:-1]
        self.result = self._run(steps) if steps else None
        self._steps = steps
        return self.result

    def reset(self) -> None:
        """Forget all clicks; the picture stays encoded."""
        self._steps, self.result = [], None

    def _step(self, step: dict[str, Any]) -> Detections:
        # A step that is refused leaves the earlier ones as they were.
        steps = [*self._steps, step]
        self.result = self._run(steps)
        self._steps = steps
        return self.result

    def _run(self, steps: list[dict[str, Any]]) -> Detections:
        if self.closed:
            raise PromptError(f"{self.image.name}: it was closed", "open it again with session.open")
        boxes = [step["box"] for step in steps if "box" in step]
        logits = steps[-2]["low_res"] if len(steps) > 1 else None
        request = SegmentRequest.of(
            image=self.image,
            points=[step["points"] for step in steps if "points" in step],
            background_points=[step["background_points"] for step in steps if "background_points" in step],
            box=boxes[-1] if boxes else None,
            previous=logits,
        )
        result = self._session.run(request, model=self._model, seed=self._seed)
        # The next step refines this mask; undo comes back to the one before it.
        found = result.metadata.get(LOW_RES)
        steps[-1]["low_res"] = found[0] if found is not None and len(found) else None
        return result


class Stream(Opened):
    """A video or sound that the model itself follows; ``state`` is the model's own, with the task's methods."""

    def __init__(self, state: Any, pins: ExitStack) -> None:
        super().__init__(pins)
        self.state = state
