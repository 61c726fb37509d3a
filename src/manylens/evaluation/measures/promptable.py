"""Masks from clicks and boxes, judged as SAM and the interactive segmenters are.

One click, the best of the masks that the first click gives, the intersection over union after each of up to twenty
simulated clicks, how many clicks it takes to reach 85 and 90 % (NoC; Sofiiuk et al. 2021, Kirillov et al. 2023), and
masks from the annotations' own boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from manylens.data.problems import Problems
from manylens.data.records import BACKGROUND, Annotation, Record
from manylens.evaluation.details import curve
from manylens.evaluation.measure import Measure, Regions
from manylens.evaluation.measures import driving
from manylens.evaluation.measures.clicker import Click, Clicker
from manylens.evaluation.measures.driving import BoolMask, OnUnit, Progress, Rows
from manylens.evaluation.tally import FloatArray, RatioTally, Units

if TYPE_CHECKING:
    from manylens.media import Image
    from manylens.session import Session
    from manylens.tasks import ObjectPrompt

TARGETS = (0.85, 0.90)
_AT_ONCE = 16
"""Objects in one request: more would hold more masks of a whole picture in memory than they save calls."""


def run_clicks(
    dataset: Iterable[Record],
    session: Session | None,
    *,
    model: str | None = None,
    seed: int = 0,
    columns: Sequence[str] = (),
    problems: Problems,
    progress: Progress | None = None,
    clicks: int = 20,
    previous_mask: bool | None = None,
    done: Mapping[str, Sequence[float]] | None = None,
    on_unit: OnUnit | None = None,
) -> RatioTally:
    """Click on every object of a data set as the standard simulated user does.

    The model is given all clicks so far, and takes its own last mask back where it can. The next click goes by the
    first of its masks. Each picture is encoded once; crowds and annotations that are not judged are passed over.

    Args:
        dataset: Records whose annotations have masks.
        session: Runs the model; None judges only what is in ``done``.
        model: As in :meth:`manylens.session.Session.run`.
        seed: Of every random step of the model.
        columns: Columns of annotations or records to keep for slices, beside ``class`` and ``size``.
        problems: Takes objects that cannot be judged, and those that the model failed on; they are left out.
        progress: Called after each picture.
        clicks: How many at most, at least 1.
        previous_mask: Whether to give the last mask back; None where the model's row says that it takes masks.
        done: Values by annotation id from an earlier run with the same arguments: not judged again.
        on_unit: Called with an id and its values as soon as an object is judged.

    Returns:
        Units are objects, clusters pictures. Figures: ``1-click mIoU``, ``oracle mIoU`` (the best of the first click's
        masks, three at most models), ``IoU@1`` to ``IoU@N``, ``NoC@85``, ``NoC@90`` (N where it is never reached) and
        ``failed@85``, ``failed@90`` (the share that never reaches it).

    Raises:
        UnsupportedError: The model takes no clicks.
        DataError: The first problem, where problems are errors.
    """
    if clicks < 1:
        raise ValueError(f"clicks: {clicks}, at least 1 is needed")
    judge: _Judge | None = None
    if session is not None:
        judge = partial(_click, _Model(session, model, seed), clicks=clicks, previous=previous_mask)
    units, values = _run(dataset, judge, 1 + clicks, columns, problems, progress, done or {}, on_unit)
    return clicks_tally(units, values[:, 1:], values[:, 0])


def run_boxes(
    dataset: Iterable[Record],
    session: Session | None,
    *,
    model: str | None = None,
    seed: int = 0,
    columns: Sequence[str] = (),
    problems: Problems,
    progress: Progress | None = None,
    done: Mapping[str, Sequence[float]] | None = None,
    on_unit: OnUnit | None = None,
) -> RatioTally:
    """Give the model the box of every object; where an annotation has none, the box around its mask.

    Arguments and units are those of :func:`run_clicks`; the figure is ``box mIoU``.
    """
    judge: _Judge | None = None
    if session is not None:
        judge = partial(_box, _Model(session, model, seed))
    units, values = _run(dataset, judge, 1, columns, problems, progress, done or {}, on_unit)
    return RatioTally.of_values(units, {"box mIoU": values[:, 0]}, first="box mIoU")


def clicks_tally(units: Units, ious: FloatArray, oracle: FloatArray) -> RatioTally:
    """The tally of clicked objects.

    Args:
        units: n objects.
        ious: ``(n, K)`` in 0..1 after each of K clicks.
        oracle: ``(n,)``, the best of the masks that the first click gave.
    """
    most = ious.shape[1]
    values: dict[str, FloatArray] = {"1-click mIoU": ious[:, 0], "oracle mIoU": oracle}
    values |= {f"IoU@{k + 1}": ious[:, k] for k in range(most)}
    errors = []
    for target in TARGETS:
        reached = ious >= target
        short = ~reached.any(axis=1)
        noc, failures = f"NoC@{target * 100:.0f}", f"failed@{target * 100:.0f}"
        values |= {
            noc: np.where(short, most, reached.argmax(axis=1) + 1).astype(np.float64),
            failures: np.where(short, 1.0, 0.0),
        }
        errors += [noc, failures]
    extra: dict[str, Any] = {}
    if len(units):
        line = {"all": (range(1, most + 1), ious.mean(axis=0).tolist())}
        extra["IoU by clicks"] = curve("IoU after each click", "clicks", "mean IoU", line)
    return RatioTally.of_values(units, values, errors=errors, first="1-click mIoU", extra=extra)


@dataclass
class PromptableMeasure(Measure):
    """Saved masks of prompted objects: ``1-click mIoU`` and ``oracle mIoU``, or ``box mIoU``.

    A prediction maps ids of annotations to :class:`Regions` whose masks are the answers to that object's prompt. An
    object without an answer counts 0: the model was asked and gave nothing.

    Args:
        prompt: What the masks were made from.
    """

    name: ClassVar[str] = "promptable"

    prompt: Literal["click", "box"] = "click"
    _rows: Rows = field(init=False, repr=False)
    _values: list[tuple[float, float]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        self._rows = Rows("object", self.columns)

    def add(self, record: Record, prediction: Mapping[str, Regions] | None) -> None:
        """See :meth:`Measure.add`."""
        given = dict(prediction or {})
        for annotation in record.annotations:
            answer = given.pop(annotation.id, None)
            if not _is_object(annotation):
                continue
            size = _size(record, annotation)
            truth = driving.mask_of(annotation, size, self.problems)
            if truth is None:
                continue
            ious = [driving.iou(mask, truth) for mask in self._masks(annotation.id, answer, size)]
            self._values.append((ious[0], max(ious)) if ious else (0.0, 0.0))
            _add(self._rows, record, annotation, truth)
        for unknown in given:
            self.problems.add("unknown object", unknown, f"prediction for {unknown}: image {record.id} has no such one")

    def tally(self) -> RatioTally:
        """See :meth:`Measure.tally`."""
        first, best = np.array(self._values, np.float64).reshape(-1, 2).T
        name = f"{'1-click' if self.prompt == 'click' else 'box'} mIoU"
        values = {name: first} | ({"oracle mIoU": best} if self.prompt == "click" else {})
        return RatioTally.of_values(self._rows.units(), values, first=name)

    def _masks(self, id: str, answer: Regions | None, size: tuple[int, int]) -> Iterator[BoolMask]:
        """The masks of an answer, best first, without those that cannot be judged."""
        from manylens.errors import MediaError
        from manylens.media import from_rle

        if answer is None or answer.masks is None:
            return
        scores = np.asarray(answer.scores, np.float64)
        for i in np.argsort(-scores, kind="stable"):  # NaN goes last
            if np.isnan(scores[i]):
                self.problems.add("NaN score", id, f"prediction for {id}: a score is not a number")
                continue
            try:
                mask = from_rle(answer.masks[i])
            except MediaError as error:
                self.problems.add("bad mask", id, f"prediction for {id}: {error.what}")
                continue
            if mask.shape == (size[1], size[0]):
                yield mask
            else:
                shapes = f"its mask is {mask.shape[1]} x {mask.shape[0]} pixels, the picture {size[0]} x {size[1]}"
                self.problems.add("mask size", id, f"prediction for {id}: {shapes}")


# ---------------------------------------------------------------------- running a model


@dataclass
class _Target:
    """An object on its way through the clicks."""

    annotation: Annotation
    truth: BoolMask
    clicker: Clicker
    mask: BoolMask | None = None
    ious: list[float] = field(default_factory=list)
    oracle: float = 0.0


_Judged = tuple[_Target, list[float] | Exception]
_Judge = Callable[["Image", Sequence[_Target]], Iterable[_Judged]]


class _Model:
    """The model behind the session, and whether it takes masks back."""

    def __init__(self, session: Session, model: str | None, seed: int) -> None:
        self._session, self._model, self._seed = session, model, seed
        self._served = ""

    @property
    def takes_masks(self) -> bool:
        """Whether the model that served the last request takes masks as prompts."""
        row = self._session.catalog.resolve(self._served)
        return "mask" in row.tasks.get("segment", ())

    def answers(self, image: Image, prompts: Sequence[ObjectPrompt]) -> Iterator[list[BoolMask] | Exception]:
        """The masks of each prompt, best first; where a request of several fails, each is asked on its own."""
        if len(prompts) > 1:
            try:
                yield from self._ask(image, {"objects": tuple(prompts)}, len(prompts))
                return
            except driving.OF_THE_RUN:
                raise
            except Exception:
                pass  # a model that takes one object only, or one object that breaks it: the next lines find out
        for prompt in prompts:
            try:
                (found,) = self._ask(image, dict(prompt), 1)
                yield found
            except driving.OF_THE_RUN:
                raise
            except Exception as error:
                yield error

    def _ask(self, image: Image, fields: Mapping[str, Any], count: int) -> list[list[BoolMask]]:
        from manylens.tasks import SegmentRequest, provenance_of

        found = self._session.run(SegmentRequest.of(image=image, **fields), model=self._model, seed=self._seed)
        made = provenance_of(found)
        self._served = made.model if made is not None else self._served
        masks = np.zeros((0, image.height, image.width), bool) if found.mask is None else found.mask
        if masks.shape[1:] != (image.height, image.width):
            raise ValueError(f"masks of {masks.shape[2]} x {masks.shape[1]} pixels")
        numbers = np.asarray(found.data.get("object", np.zeros(len(masks), int)))
        return [list(masks[numbers == number]) for number in range(count)]


def _click(
    model: _Model, image: Image, targets: Sequence[_Target], *, clicks: int, previous: bool | None
) -> Iterator[_Judged]:
    """Click round by round: the objects of a picture share each round's request."""
    going = list(targets)
    for _ in range(clicks):
        asked = [target for target in going if target.clicker.click(target.mask) is not None]
        back = bool(asked and asked[0].ious) and (model.takes_masks if previous is None else previous)
        prompts = [_prompt(target.clicker.clicks, target.mask if back else None) for target in asked]
        for target, answer in zip(asked, list(model.answers(image, prompts)), strict=True):
            if isinstance(answer, Exception):
                going.remove(target)
                yield target, answer
                continue
            target.mask = answer[0] if answer else np.zeros_like(target.truth)
            if not target.ious:
                target.oracle = max((driving.iou(mask, target.truth) for mask in answer), default=0.0)
        for target in going:  # where nothing was left to click on, the mask stays as it is
            assert target.mask is not None
            target.ious.append(driving.iou(target.mask, target.truth))
    for target in going:
        yield target, [target.oracle, *target.ious]


def _prompt(clicks: Sequence[Click], mask: BoolMask | None) -> ObjectPrompt:
    from manylens.tasks import ObjectPrompt

    fields = {
        "points": [(click.x, click.y) for click in clicks if click.inside],
        "background_points": [(click.x, click.y) for click in clicks if not click.inside],
        "mask": mask if mask is not None and mask.any() else None,
    }
    return ObjectPrompt.model_validate(fields)


def _box(model: _Model, image: Image, targets: Sequence[_Target]) -> Iterator[_Judged]:
    from manylens.media import bounds
    from manylens.tasks import ObjectPrompt

    boxes = [target.annotation.box or bounds(target.truth) for target in targets]
    prompts = [ObjectPrompt.model_validate({"box": box}) for box in boxes]
    for target, answer in zip(targets, model.answers(image, prompts), strict=True):
        if isinstance(answer, Exception):
            yield target, answer
        else:
            yield target, [driving.iou(answer[0], target.truth) if answer else 0.0]


def _run(
    dataset: Iterable[Record],
    judge: _Judge | None,
    width: int,
    columns: Sequence[str],
    problems: Problems,
    progress: Progress | None,
    done: Mapping[str, Sequence[float]],
    on_unit: OnUnit | None,
) -> tuple[Units, FloatArray]:
    """Units and their values, ``(n, width)``, picture by picture."""
    rows = Rows("object", columns)
    values: dict[str, Sequence[float]] = {}
    for record in driving.watched(dataset, progress, lambda record: record.id):
        judged = [one for one in record.annotations if _is_object(one)]
        values |= {one.id: done[one.id] for one in judged if one.id in done}
        fresh = iter([one for one in judged if one.id not in values])
        if judge is not None:
            image: Image | None = None
            while chunk := list(islice(fresh, _AT_ONCE)):
                image = image or driving.image_of(record, problems)
                if image is None:
                    break
                for id, made in _judged(judge, image, chunk, problems):
                    values[id] = made
                    if on_unit is not None:
                        on_unit(id, made)
        for one in judged:
            if one.id in values:
                _add(rows, record, one)
    return rows.units(), driving.table(rows, values, width)


def _judged(
    judge: _Judge, image: Image, annotations: Sequence[Annotation], problems: Problems
) -> Iterator[tuple[str, list[float]]]:
    targets = []
    for annotation in annotations:
        truth = driving.mask_of(annotation, image.size, problems)
        if truth is not None:
            targets.append(_Target(annotation, truth, Clicker(truth)))
    for target, outcome in judge(image, targets):
        if isinstance(outcome, Exception):
            driving.failed(problems, "object", target.annotation.id, outcome)
        else:
            yield target.annotation.id, outcome


def _add(rows: Rows, record: Record, annotation: Annotation, truth: BoolMask | None = None) -> None:
    area = annotation.area
    if area is None:
        area = float(np.count_nonzero(truth)) if truth is not None else _area(annotation)
    known = {"class": annotation.category, "size": driving.size_name(area)}
    rows.add(annotation.id, record.id, record, annotation, known)


def _area(annotation: Annotation) -> float:
    from manylens.media import from_rle

    return float(np.count_nonzero(from_rle(annotation.mask))) if annotation.mask is not None else 0.0


def _size(record: Record, annotation: Annotation) -> tuple[int, int]:
    """Width and height of the picture, as the labels say; no picture is read for them."""
    if record.width and record.height:
        return record.width, record.height
    height, width = (annotation.mask or {}).get("size", (0, 0))
    return int(width), int(height)


def _is_object(annotation: Annotation) -> bool:
    """Whether it is one object that is judged, such as a group or the background is not."""
    return not (annotation.crowd or annotation.ignore or annotation.category == BACKGROUND)
