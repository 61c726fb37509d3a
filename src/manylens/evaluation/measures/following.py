"""How well a tracker follows the objects of a first frame through a video, judged by J and F as DAVIS does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from manylens.data.problems import Problems
from manylens.data.records import Record
from manylens.errors import ManylensError
from manylens.evaluation.measures import driving, propagation
from manylens.evaluation.measures.driving import BoolMask, OnUnit, Progress
from manylens.evaluation.measures.tracks import masks_of, size_of
from manylens.evaluation.tally import RatioTally

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
    last: bool = False,
    done: Mapping[str, Sequence[float]] | None = None,
    on_unit: OnUnit | None = None,
) -> RatioTally:
    """Give the model's ``track`` the masks of each video's first frame, and judge those of the others.

    Args:
        dataset: Frames, as in :func:`manylens.evaluation.measures.propagation.run`.
        session: Runs the model's ``track``; None judges only what is in ``done``.
        model: As in :meth:`manylens.session.Session.run`, like ``seed``.
        seed: Of every random step of the model.
        columns: As in :func:`~manylens.evaluation.measures.propagation.run`, like all that follow.
        problems: Takes videos that cannot be followed or judged; they are left out.
        progress: Called after each video.
        last: Whether to judge the last frame of a video too.
        done: Values by ``video/object`` from an earlier run.
        on_unit: Called with such an id and its values.

    Returns:
        Units are objects of the first frames, clusters videos. Figures: ``J&F``, ``J``, ``F``.
    """
    follow = None if session is None else partial(_followed, session, model, seed, problems)
    return propagation.judged(
        dataset, follow, columns=columns, problems=problems, progress=progress, last=last, done=done, on_unit=on_unit
    )


def _followed(
    session: Session, model: str | None, seed: int, problems: Problems, frames: Sequence[Record]
) -> Iterator[tuple[Record, dict[str, BoolMask]]]:
    from manylens.media import from_rle
    from manylens.tasks import TrackRequest

    first, _ = masks_of(frames[0], size_of(frames[0]), Problems())  # the measure tells what is wrong with them
    if not first:
        propagation.no_first_mask(frames[0], problems)
        return
    names = sorted(first)
    try:
        asked = TrackRequest.of(
            video=[record.path for record in frames], objects=[{"mask": first[name]} for name in names]
        )
        tracks = session.run(asked, model=model, seed=seed)
    except ManylensError as error:
        driving.failed(problems, "video", frames[0].id, error, frames[0])
        return
    yield frames[0], first
    for record, frame in zip(frames[1:], tracks.frames[1:], strict=True):
        yield record, {names[one.tracker_id - 1]: from_rle(one.mask) for one in frame.objects}
