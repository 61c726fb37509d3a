"""How far features carry the masks of a first frame through a video, judged by J and F.

The propagation is that of :mod:`manylens.models.dense.propagation`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from manylens.data.problems import Problems
from manylens.data.records import Record
from manylens.evaluation.measures import driving
from manylens.evaluation.measures.driving import BoolMask, OnUnit, Progress, Rows
from manylens.evaluation.measures.tracks import JFMeasure, add_object, frame_of, jf_tally, masks_of, objects_of, size_of
from manylens.evaluation.tally import RatioTally
from manylens.models.dense.propagation import FloatMap, Propagation, shares

if TYPE_CHECKING:
    from manylens.session import Session


def run(
    dataset: Iterable[Record],
    session: Session | None,
    *,
    model: str | None = None,
    seed: int = 0,
    columns: Sequence[str] = (),
    problems: Problems,
    progress: Progress | None = None,
    how: Propagation | None = None,
    last: bool = False,
    done: Mapping[str, Sequence[float]] | None = None,
    on_unit: OnUnit | None = None,
) -> RatioTally:
    """Carry the masks of each video's first frame on by the model's patch features, and judge them.

    Args:
        dataset: Frames: records with the columns ``video`` and ``frame``, in any order. Objects are told apart by their
            annotations' column ``track``, else by category.
        session: Runs the model's ``embed``; None judges only what is in ``done``.
        model: As in :meth:`manylens.session.Session.run`.
        seed: Of every random step of the model.
        columns: Columns to keep for slices, beside ``class`` and ``size``; as the object's first frame has them.
        problems: Takes frames and masks that cannot be judged; they are left out.
        progress: Called after each video.
        how: The propagation.
        last: Whether to judge the last frame of a video too, which DAVIS does not.
        done: Values by ``video/object`` from an earlier run with the same arguments: not judged again.
        on_unit: Called with such an id and its values as soon as a video is judged.

    Returns:
        Units are objects of the first frames, clusters videos. Figures: ``J&F``, ``J``, ``F``.

    Raises:
        UnsupportedError: The model gives no patch features.
        DataError: The first problem, where problems are errors.
    """
    how = how or Propagation()
    follow = None if session is None else partial(_followed, session, model, seed, how, problems)
    return judged(
        dataset, follow, columns=columns, problems=problems, progress=progress, last=last, done=done, on_unit=on_unit
    )


Follow = Callable[[Sequence[Record]], Iterator[tuple[Record, dict[str, BoolMask]]]]
"""The frames of a video to each of them with the masks that reach it, by object; the first with its own."""


def judged(
    dataset: Iterable[Record],
    follow: Follow | None,
    *,
    columns: Sequence[str],
    problems: Problems,
    progress: Progress | None,
    last: bool,
    done: Mapping[str, Sequence[float]] | None,
    on_unit: OnUnit | None,
) -> RatioTally:
    """Follow the objects of each video's first frame, however that is done, and judge the masks; see :func:`run`."""
    values = dict(done or {})
    rows = Rows("object", columns)
    videos = sorted(_videos(dataset, problems).items())
    for video, frames in driving.watched(videos, progress, lambda item: item[0]):
        objects = objects_of(frames[0])
        if not objects:
            no_first_mask(frames[0], problems)
        if follow is not None and any(f"{video}/{track}" not in values for track in objects):
            measure = JFMeasure(problems=problems, last=last)
            for record, prediction in follow(frames):
                measure.add(record, prediction)
            found = measure.tally()
            for id, pair in zip(found.units.ids, found.numerators[:, 1:].tolist(), strict=True):
                if id.removeprefix(f"{video}/") not in objects:
                    problems.add("late object", id, f"object {id}: it is not in the first frame, which is carried on")
                    continue
                values[id] = pair
                if on_unit is not None:
                    on_unit(id, pair)
        for track, annotation in sorted(objects.items()):
            if f"{video}/{track}" in values:
                add_object(rows, video, track, frames[0], annotation)
    return jf_tally(rows, [values[id] for id in rows.ids])


def _followed(
    session: Session, model: str | None, seed: int, how: Propagation, problems: Problems, frames: Sequence[Record]
) -> Iterator[tuple[Record, dict[str, BoolMask]]]:
    """Each frame of a video with the masks that reach it, the first with its own."""
    from manylens.runtime.executors import Failure

    size = size_of(frames[0])
    first, _ = masks_of(frames[0], size, Problems())  # the measure tells what is wrong with them
    if not first or size is None:
        no_first_mask(frames[0], problems)
        return
    names = sorted(first)
    requests = ({"image": record.path, "dense": True} for record in frames)
    results = session.map("embed", requests, model=model, seed=seed, errors="return")
    there: deque[Record] = deque()

    def features() -> Iterator[FloatMap]:
        for record, result in zip(frames, results, strict=True):
            if isinstance(result, Failure):
                driving.failed(problems, "frame", record.id, result.error, record)
                if record is frames[0]:
                    return
            else:
                there.append(record)
                yield np.asarray(result.dense, np.float32)

    stream = features()
    start = next(stream, None)
    if start is None:
        return
    yield there.popleft(), first
    labels = shares([first[name] for name in names], start.shape[:2])
    for carried in how.through(_chain(start, stream), labels):
        record = there.popleft()
        number = how.masks(carried, size_of(record) or size)
        yield record, {name: number == i + 1 for i, name in enumerate(names)}


def no_first_mask(record: Record, problems: Problems) -> None:
    """Tell that a video's first frame shows nothing to follow."""
    problems.add("no first mask", record.id, f"image {record.id}: the first of its video, without a mask to carry on")


def _chain(first: FloatMap, rest: Iterator[FloatMap]) -> Iterator[FloatMap]:
    yield first
    yield from rest


def _videos(dataset: Iterable[Record], problems: Problems) -> dict[str, list[Record]]:
    """Frames in order by video."""
    found: dict[str, list[tuple[int, Record]]] = {}
    for record in dataset:
        place = frame_of(record, problems)
        if place is not None:
            found.setdefault(place[0], []).append((place[1], record))
    return {
        video: [record for _, record in sorted(frames, key=lambda pair: pair[0])] for video, frames in found.items()
    }
