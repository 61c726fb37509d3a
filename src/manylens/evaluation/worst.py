"""The units that came off worst, as the page shows them: the truth beside what was said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from manylens.errors import ManylensError
from manylens.evaluation.measure import Regions
from manylens.evaluation.measures.clicker import Clicker
from manylens.evaluation.page import Shown

if TYPE_CHECKING:
    from supervision import Detections

    from manylens.data.records import Annotation, Record
    from manylens.evaluation.results import Evaluation
    from manylens.media import Image
    from manylens.render.page import Picture
    from manylens.runtime.meter import Meter
    from manylens.session import Session

_LEAST_SCORE = 0.3
_MOST_REGIONS = 20
_MOST_LABELS = 3
_Caption = Literal["truth", "found", ""]


def shown(evaluation: Evaluation, records: Mapping[str, Record], predictions: Mapping[str, Any]) -> list[Shown]:
    """The worst examples with their pictures.

    Args:
        evaluation: What was measured.
        records: By cluster, those of the worst units.
        predictions: By record id; empty where the measure kept none.
    """
    found = []
    for example in evaluation.worst:
        record = records.get(example.cluster)
        if record is None:
            continue
        said = predictions.get(record.id)
        whole = evaluation.tally.units.kind == "image"  # a picture may have the number of an annotation
        one = [] if whole else [each for each in record.annotations if each.id == example.unit]
        drawn = said.get(example.unit) if isinstance(said, Mapping) else said
        pairs = _pictures(record, one or record.annotations, drawn)
        captions, pictures = [said for said, _ in pairs], [made for _, made in pairs]
        lines = [*_truth(record, one), *_said(said, example.unit)]
        score = -example.score if evaluation.tally.lower(evaluation.main_figure) else example.score  # as a figure
        found.append(Shown(example.unit, score, evaluation.tally.score_name, pictures, lines, captions))
    return found


def prompted_again(
    evaluation: Evaluation,
    records: Mapping[str, Record],
    session: Session,
    *,
    model: str | None,
    seed: int,
    meter: Meter,
) -> dict[str, dict[str, Any]]:
    """What a model says of the worst objects to one click or their box, for the page: masks were not kept.

    Args:
        evaluation: What was measured, by ``clicks`` or ``boxes``.
        records: By cluster, those of the worst units.
        session: Runs the model.
        model: As it was measured.
        seed: Likewise.
        meter: Of the job; what no longer fits under its cap is not asked.

    Returns:
        Detections by record id and annotation id: the best mask, with the prompt drawn beside it.
    """
    from manylens.media import bounds, from_rle
    from manylens.tasks import SegmentRequest

    found: dict[str, dict[str, Any]] = {}
    for example in evaluation.worst:
        record = records.get(example.cluster)
        one = next((each for each in record.annotations if each.id == example.unit), None) if record else None
        if record is None or one is None or one.mask is None:
            continue
        try:
            truth = from_rle(one.mask)
            click = Clicker(truth).click()
            prompt: dict[str, Any] = {"box": one.box or bounds(truth)}
            if evaluation.measure == "clicks":
                prompt = {"points": [(click.x, click.y)] if click else []}
            made = session.run(
                SegmentRequest.of(image=record.image(), **prompt), model=model, seed=seed, cost_cap=meter
            )
            found.setdefault(record.id, {})[one.id] = made
        except ManylensError:
            continue  # the page then shows what is there alone
    return found


def _pictures(record: Record, annotations: Sequence[Annotation], said: Any) -> list[tuple[_Caption, Picture]]:
    from manylens.render.draw import draw
    from manylens.render.page import jpeg

    try:
        image = record.image()
        judged = [one for one in annotations if not one.ignore and (one.box is not None or one.mask is not None)]
        boxes = isinstance(said, Regions) and said.masks is None and all(one.box is not None for one in judged)
        hues = _Hues()
        pictures: list[tuple[_Caption, Picture]] = []
        if judged:
            known = _drawn(image, _known(image, judged, boxes), hues)
            pictures.append(("truth", jpeg(known, f"{record.id}: what is there")))
        if isinstance(said, Regions) and len(said):
            found = _drawn(image, _found(image, said), hues)
            pictures.append(("found", jpeg(found, f"{record.id}: what was found")))
        elif said is not None and (made := draw(image, said)) is not None:
            pictures.append(("found", jpeg(made, f"{record.id}: what was said")))
        return pictures or [("", jpeg(image, record.id))]
    except ManylensError:
        return []  # a broken picture or mask is a problem of its own, and stands among those


class _Hues(dict[str, int]):
    """A colour for each class, the same in both pictures of a pair."""

    def __missing__(self, name: str) -> int:
        return self.setdefault(name, len(self))


def _drawn(image: Image, found: Detections, hues: _Hues) -> np.ndarray:
    from manylens.render.draw import draw

    names = [str(name) for name in found.data.get("class_name", ())]
    if any(names):
        found.data["hue"] = np.array([hues[name] for name in names])
    made = draw(image, found) if len(found) else None
    return image.array if made is None else made


def _known(image: Image, annotations: Sequence[Annotation], boxes_only: bool) -> Detections:
    masked = [] if boxes_only else [one for one in annotations if one.mask is not None]
    if masked:
        return _detections(image, [one.mask for one in masked], None, [1.0] * len(masked), [a.category for a in masked])
    boxes = [one.box for one in annotations]
    return _detections(image, None, boxes, [1.0] * len(boxes), [one.category for one in annotations])


def _found(image: Image, regions: Regions) -> Detections:
    order = np.argsort(-np.nan_to_num(regions.scores), kind="stable")[:_MOST_REGIONS]
    best = [int(i) for i in order if regions.scores[i] >= _LEAST_SCORE] or [int(i) for i in order[:1]]
    masks = None if regions.masks is None else [regions.masks[i] for i in best]
    boxes = None if regions.boxes is None else [regions.boxes[i] for i in best]
    return _detections(image, masks, boxes, [float(regions.scores[i]) for i in best], [regions.names[i] for i in best])


def _detections(image: Image, masks: Any, boxes: Any, scores: Sequence[float], names: Sequence[str]) -> Detections:
    from manylens.media import bounds, from_rle
    from manylens.tasks import detections

    stacked = None
    if masks is not None:
        stacked = np.stack([from_rle(mask) for mask in masks])
        if stacked.shape[1:] != (image.height, image.width):
            return detections([], [])
        boxes = [bounds(mask) or (0, 0, 0, 0) for mask in stacked]
    return detections(boxes, scores, masks=stacked, names=names)


def _truth(record: Record, one: Sequence[Annotation]) -> list[str]:
    lines = [f"is {record.label}"] if record.label else []
    for each in one:
        lines += [f"is {each.category}"] if each.category else []
        lines += [f"asked: {each.columns['question']}"] if each.columns.get("question") else []
    return lines


def _said(said: Any, unit: str) -> list[str]:
    from manylens.tasks.results import Answer, Caption, Classification

    match said:
        case Classification():
            best = ", ".join(f"{label.name} {label.score:.2f}" for label in said.labels[:_MOST_LABELS])
            return [f"was said to be {best}"]
        case Caption() | Answer():
            return [f"was said: {said.text}"]
        case Mapping():
            return _said(said.get(unit), unit)
    return []
