"""The run of a memorisation audit: embed, search, compare pixels, count."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from manylens.audit.control import NEAR_EXACT, Control, in_both
from manylens.audit.copies import NONE, Likeness, Look, likeness
from manylens.audit.memorisation import LEAST, NEAREST, Memorisation, MemorisationTally, Pair
from manylens.audit.nearest import Encoder, Neighbours
from manylens.data import Dataset
from manylens.data.problems import DataError, Problems
from manylens.data.records import Record
from manylens.errors import ManylensError, UserError
from manylens.evaluation.intervals import RESAMPLES, estimates
from manylens.evaluation.measures.driving import Rows
from manylens.evaluation.tally import FloatArray, Units, ratio
from manylens.media import Image
from manylens.runtime.meter import Meter

if TYPE_CHECKING:
    import os

    from manylens.session import Session

NEIGHBOURS = 50
_CANDIDATES = 5  # nearest training pictures whose pixels are compared
_LEAK = 0.15  # of features: a held-out picture farther away than this is no copy
_CONTROL = 200  # training pictures that are held against the others where there are too few held-out ones
_PAIRS = 12
_PERCENTILE = 5.0

Progress = Callable[[float, str], None]


def memorisation(
    made: Dataset | str | os.PathLike[str],
    train: Dataset | str | os.PathLike[str],
    held_out: Dataset | str | os.PathLike[str] | None = None,
    *,
    train_split: str | None = None,
    held_out_split: str | None = None,
    model: str | None = None,
    neighbours: int = NEIGHBOURS,
    percentile: float = _PERCENTILE,
    columns: Sequence[str] = (),
    session: Session | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    strict: bool = False,
    limit: int | None = None,
    max_cost: float | None = None,
    progress: Progress | None = None,
) -> Memorisation:
    """Say which made pictures are copies of training pictures, and whether all are closer to them than chance has it.

    Vectors are kept in the session's embedding store: a run that was stopped does not encode again.

    Args:
        made: Pictures that the model made: a data set or a folder.
        train: What it was trained on: a data set, or what :meth:`manylens.data.Dataset.read` reads.
        held_out: Real pictures like these that it never saw, as a control; None for none.
        train_split: Only this split of ``train``.
        held_out_split: Only this split of ``held_out``, or of ``train`` where there is no ``held_out``.
        model: Makes the features; None as the session chooses.
        neighbours: How many training pictures after the nearest it is compared with.
        percentile: Of the held-out distances, below which a made picture is too close.
        columns: Columns of made pictures to keep for slices.
        session: Runs the model; by default the one behind the package's verbs.
        resamples: Of the bootstrap, over made pictures.
        seed: Of every random step.
        strict: Whether the first picture that cannot be read is an error.
        limit: Only so many made pictures, the first.
        max_cost: Stop before it costs more.
        progress: Called with the share done and a line.

    Raises:
        DataError: There is no made or no training picture.
        ManylensError: One line that names the input and the remedy.
    """
    from manylens.session import default_session

    if neighbours < 1 or not 0 < percentile < 100:
        bad = f"neighbours {neighbours}" if neighbours < 1 else f"percentile {percentile:g}"
        raise UserError(f"{bad}: out of range", "give at least 1 neighbour, and a percentile between 0 and 100")
    problems = Problems(strict)
    sources = _Sources.opened(made, train, held_out, train_split, held_out_split, limit, strict)
    for source in sources.all():
        problems.extend(source.problems)
    encoder = Encoder(session or default_session(), model, seed, Meter(max_cost), problems)
    steps = _Steps(progress, [len(source) for source in sources.all()])
    made_records, made_vectors = _table(encoder, sources.made, "made picture", steps.next())
    held_records: list[Record] = []
    held_vectors = made_vectors[:0]
    if sources.held is not None:
        held_records, held_vectors = _table(encoder, sources.held, "held-out picture", steps.next())
    samples, sample_vectors = _sample(encoder, sources.train) if len(held_records) < LEAST else ([], made_vectors[:0])
    search = Neighbours(np.concatenate([made_vectors, held_vectors, sample_vectors]), neighbours + 1)
    trained: list[_Trained] = []
    for record, vector in encoder.vectors(sources.train, "training picture", steps.next()):
        search.add(vector)
        trained.append(_Trained(record.id, str(record.path)))
    if not trained:
        raise DataError(f"{sources.train.name}: no training picture can be read", "give pictures")
    distances, places = search.found([record.id for record in trained])
    count, both, looks = len(made_records), len(made_records) + len(held_records), _Looks()
    compared = [looks.closest(record, [trained[j] for j in places[i]]) for i, record in enumerate(made_records)]
    nearest = [trained[j] for j in places[count:both, 0]]
    unseen = _unseen(held_records, distances[count:both, 0], nearest, looks, problems)
    held = distances[count:both, 0][unseen]
    asked = list(zip(samples, range(both, len(places)), strict=True))
    asked = asked or [(held_records[i], count + i) for i in unseen]
    beside = [
        (record, [one for j in places[row] if (one := trained[j]).path != str(record.path)]) for record, row in asked
    ]
    alike = [looks.closest(record, others)[1] for record, others in beside if others]
    control = Control.of("training" if samples else "held-out", alike)
    other = _nearest(made_vectors, held_vectors[unseen], [held_records[i].id for i in unseen])
    tally = MemorisationTally(
        _units(made_records, columns),
        distance=distances[:count, 0],
        ratio=_ratios(distances[:count]),
        copied=np.array([control.copy(one) for _, one in compared], bool),
        other=other,
        held=held,
        threshold=float(np.quantile(held, percentile / 100)) if len(held) else math.nan,
        trained=len(trained),
    )
    return Memorisation(
        tally,
        estimates(tally, resamples=resamples, seed=seed),
        _pairs(tally, made_records, trained, distances[:count], places, compared),
        model=encoder.used,
        made=sources.made.name,
        train=sources.train.name,
        problems=problems,
        notes=[
            *_notes(tally, neighbours, percentile, sources.held is not None),
            *_overlap(in_both(made_records, [held_records[i] for i in unseen], other) if len(other) else 0, count),
        ],
        control=control,
    )


class _Trained(NamedTuple):
    """What is kept of a training picture, of which there may be a million."""

    id: str
    path: str


@dataclass(frozen=True, eq=False)
class _Sources:
    """The three sets of pictures."""

    made: Dataset
    train: Dataset
    held: Dataset | None

    @classmethod
    def opened(
        cls,
        made: Any,
        train: Any,
        held_out: Any,
        train_split: str | None,
        held_out_split: str | None,
        limit: int | None,
        strict: bool,
    ) -> _Sources:
        whole = _opened(train, strict)
        if held_out is None and held_out_split is None:
            held = None
        elif held_out is None and (train_split is None or train_split == held_out_split):
            raise DataError(
                f"held-out split {held_out_split}: is a part of the training data",
                "name another split as the one that the model was trained on",
            )
        else:
            held = (whole if held_out is None else _opened(held_out, strict)).select(split=held_out_split)
        return cls(_opened(made, strict, made=True).select(limit=limit), whole.select(split=train_split), held)

    def all(self) -> list[Dataset]:
        """In the order in which they are embedded."""
        return [self.made, *([self.held] if self.held is not None else []), self.train]


def _opened(source: Any, strict: bool, *, made: bool = False) -> Dataset:
    """A data set. A folder of made pictures may hold files of their lineage, which are no labels."""
    if isinstance(source, Dataset):
        return source
    plain = made and Path(source).is_dir() and not (Path(source) / "dataset.json").is_file()
    return Dataset.read(source, format="folders" if plain else None, strict=strict)


class _Steps:
    """One progress for several passes, by the number of their pictures."""

    def __init__(self, progress: Progress | None, sizes: Sequence[int]) -> None:
        self._progress, self._sizes, self._total, self._done = progress, list(sizes), max(sum(sizes), 1), 0

    def next(self) -> Progress | None:
        """Of the next pass."""
        size, before, progress = self._sizes.pop(0), self._done, self._progress
        self._done += size
        if progress is None:
            return None
        return lambda done, line: progress((before + done * size) / self._total, line)


class _Looks:
    """Pixels of pictures, the last ones kept."""

    def __init__(self) -> None:
        self._of = lru_cache(maxsize=2048)(_look)

    def closest(self, record: Record, nearest: Sequence[_Trained]) -> tuple[int, Likeness]:
        """Which of the nearest a picture is a copy of, and how alike they are; the first where it is of none."""
        found = [self.compare(record, other) for other in nearest[:_CANDIDATES]]
        copies = [place for place, one in enumerate(found) if one.copy]
        best = min(copies, key=lambda place: found[place].distance, default=0)
        return best, found[best]

    def compare(self, one: Record, other: _Trained) -> Likeness:
        """How alike two pictures are."""
        looks = self._of(str(one.path)), self._of(other.path)
        return NONE if looks[0] is None or looks[1] is None else likeness(looks[0], looks[1])


def _look(path: str) -> Look | None:
    try:
        return Look.of(Image.of(path))
    except ManylensError:
        return None


def _table(
    encoder: Encoder, source: Dataset, what: str, progress: Progress | None
) -> tuple[list[Record], npt.NDArray[np.float32]]:
    """The records that could be read, and their vectors ``(n, D)``."""
    pairs = list(encoder.vectors(source, what, progress))
    if not pairs:
        raise DataError(f"{source.name}: no {what} can be read", "give pictures")
    return [record for record, _ in pairs], np.stack([vector for _, vector in pairs])


def _sample(encoder: Encoder, source: Dataset) -> tuple[list[Record], npt.NDArray[np.float32]]:
    """Training pictures, evenly taken, and their vectors ``(n, D)``; their vectors are kept and not made again."""
    step = max(1, len(source) // _CONTROL)
    ids = [record.id for place, record in enumerate(source) if place % step == 0][:_CONTROL]
    pairs = list(replace(encoder, problems=Problems()).vectors(source.select(ids=ids), "training picture"))
    if not pairs:
        raise DataError(f"{source.name}: no training picture can be read", "give pictures")
    return [record for record, _ in pairs], np.stack([vector for _, vector in pairs])


def _unseen(
    held: Sequence[Record], distances: FloatArray, nearest: Sequence[_Trained], looks: _Looks, problems: Problems
) -> list[int]:
    """The held-out pictures that are no copies of training pictures."""
    kept = []
    for place, (record, other) in enumerate(zip(held, nearest, strict=True)):
        if distances[place] <= _LEAK and looks.compare(record, other).distance <= NEAR_EXACT:
            what = f"held-out picture {record.id}: is training picture {other.id}; left out of the control"
            problems.add("held-out in training", record.id, what)
        else:
            kept.append(place)
    return kept


def _nearest(queries: npt.NDArray[np.float32], searched: npt.NDArray[np.float32], names: Sequence[str]) -> FloatArray:
    """Distance of each query to the nearest vector; empty where there is none."""
    if not len(searched):
        return np.zeros(0)
    search = Neighbours(queries, 1)
    for vector in searched:
        search.add(vector)
    return search.found(names)[0][:, 0]


def _ratios(distances: FloatArray) -> FloatArray:
    """The first distance by the mean of the others; NaN where there are none, or all are 0."""
    if distances.shape[1] < 2:
        return np.full(len(distances), np.nan)
    mean = distances[:, 1:].mean(axis=1)
    return ratio(distances[:, 0], mean)


def _units(records: Sequence[Record], columns: Sequence[str]) -> Units:
    rows = Rows("made picture", columns)
    for record in records:
        rows.add(record.id, record.id, record, None, {})
    return rows.units()


def _pairs(
    tally: MemorisationTally,
    made: Sequence[Record],
    trained: Sequence[_Trained],
    distances: FloatArray,
    places: npt.NDArray[np.int64],
    compared: Sequence[tuple[int, Likeness]],
) -> list[Pair]:
    """All copies and likenesses, and the closest others up to a dozen."""
    scores = tally.scores()
    order = sorted(range(len(made)), key=lambda i: (scores[i], made[i].id))
    told = int((tally.copied | tally.close).sum())
    pairs = []
    for i in order[: max(told, _PAIRS)]:
        which, alike = compared[i]
        other = trained[places[i, which]]
        pairs.append(
            Pair(
                made[i].id,
                other.id,
                str(made[i].path),
                other.path,
                float(distances[i, which]),
                float(tally.ratio[i]),
                alike.distance,
                alike.bits,
                alike.mirrored,
                tally.kind(i),
            )
        )
    return pairs


def _overlap(shared: int, made: int) -> list[str]:
    if not shared:
        return []
    return [
        f"{shared} of {made} made pictures are held-out pictures too, byte for byte: the control is no other than these"
    ]


def _notes(tally: MemorisationTally, neighbours: int, percentile: float, control: bool) -> list[str]:
    made, held, notes = len(tally.units), len(tally.held), []
    if made < LEAST:
        notes.append(f"{made} made pictures are few: {LEAST} or more are needed to speak of shares")
    if not control:
        notes.append("no held-out pictures were given: there is no threshold, and no test against chance")
    elif not held:
        notes.append("every held-out picture is a training picture: there is no control")
    elif held < LEAST:
        notes.append(f"{held} held-out pictures are few: the threshold and the test need {LEAST} or more")
    if held:
        notes.append(
            f"too close is less than {tally.threshold:.4f} from a training picture, the {percentile:g}th percentile of "
            f"{held} held-out pictures; by chance {percentile / 100:g} of the made pictures are"
        )
        notes.append(f"{NEAREST}: by chance {tally.chance:.3f}, the share of training pictures among all real ones")
    if tally.trained <= neighbours:
        notes.append(
            f"{tally.trained} training pictures are few: the nearest is held against the other {tally.trained - 1}, "
            f"not the next {neighbours}"
        )
    return notes
