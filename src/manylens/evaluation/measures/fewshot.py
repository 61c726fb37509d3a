"""Segmentation by example, judged by the protocols of few-shot segmentation: PASCAL-5i, COCO-20i, FSS-1000.

An episode is a query and k other pictures of the same class with their masks; the model is shown these and cuts the
class out of the query. The protocols are data (``data/fewshot.toml``); the pictures are the user's own.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from manylens.data.problems import DataError, Problems
from manylens.data.records import BACKGROUND, Annotation, Record
from manylens.errors import MediaError
from manylens.evaluation.measures import driving
from manylens.evaluation.measures.driving import BoolMask, OnUnit, Progress, Rows
from manylens.evaluation.tally import FloatArray, Tally, ratio

if TYPE_CHECKING:
    from manylens.session import Session

_PARTS = ("part", "subpart")


@dataclass(frozen=True)
class Protocol:
    """Which classes each fold is judged on, and how its episodes are drawn.

    Attributes:
        name: Such as ``PASCAL-5i``.
        folds: Classes of each fold; empty tuples where the classes are those of the data.
        draw: ``pictures``: every picture of every class is the query once before any is again; ``classes``: a class is
            drawn, then a query of it.
    """

    name: str
    folds: tuple[tuple[str, ...], ...]
    draw: Literal["pictures", "classes"] = "pictures"

    @classmethod
    def of(cls, name: str, classes: Sequence[str] | None = None) -> Protocol:
        """A protocol by its name.

        Args:
            name: ``PASCAL-5i``, ``COCO-20i`` or ``FSS-1000``, in any case.
            classes: The classes to divide instead of the official ones, such as the test classes of FSS-1000.

        Raises:
            DataError: No protocol has that name, or the classes cannot be divided into its folds.
        """
        known = {key.casefold(): key for key in _protocols()}
        if name.casefold() not in known:
            raise DataError(f"{name}: no such few-shot protocol", f"name one of {', '.join(known.values())}")
        key = known[name.casefold()]
        row = _protocols()[key]
        order = tuple(row["classes"] if classes is None else classes)
        count = row["folds"]
        if len(order) % count:
            raise DataError(f"{key}: {len(order)} classes do not fill {count} folds", "give a multiple of that")
        length = len(order) // count
        blocks, stride = (
            (order[i * length : (i + 1) * length] for i in range(count)),
            (order[i::count] for i in range(count)),
        )
        return cls(key, tuple(blocks if row["rule"] == "blocks" else stride), row["draw"])


@dataclass(frozen=True)
class Episode:
    """One question: cut the class out of the query as it is cut out of the support.

    Attributes:
        id: Unique in a run: fold, number, class and query.
        fold: From 0.
        category: The class.
        query: The picture to cut.
        support: The k examples, none of them the query.
    """

    id: str
    fold: int
    category: str
    query: Record
    support: tuple[Record, ...]


def episodes(
    dataset: Iterable[Record],
    protocol: Protocol,
    *,
    fold: int | None = None,
    shots: int = 1,
    count: int = 1000,
    seed: int = 0,
    problems: Problems | None = None,
) -> list[Episode]:
    """Draw episodes; the same for the same seed, whatever the order of the rows, and a longer draw begins as a shorter.

    Args:
        dataset: Records whose annotations have masks and a class (the annotation's, else the record's label); gone
            through twice.
        protocol: Says which classes.
        fold: From 0; None for every fold in turn.
        shots: Examples in each episode.
        count: Episodes of each fold.
        seed: Of the draw.
        problems: Takes classes that the data lacks, or has too few pictures of.

    Raises:
        DataError: There is no such fold, or no class of a fold has enough pictures.
    """
    if fold is not None and not 0 <= fold < len(protocol.folds):
        raise DataError(f"fold {fold}: {protocol.name} has folds 0 to {len(protocol.folds) - 1}", "name one of these")
    if shots < 1 or count < 1:
        raise ValueError(f"shots {shots}, count {count}: at least 1 of each is needed")
    problems = Problems() if problems is None else problems
    dataset = list(dataset) if isinstance(dataset, Iterator) else dataset
    found = _pictures(dataset)
    drawn: list[tuple[int, int, str, list[str]]] = []
    for number in range(len(protocol.folds)) if fold is None else [fold]:
        classes = _enough(found, protocol, number, shots, problems)
        rng = np.random.default_rng([seed, number, shots])
        pictures = _queries(found, classes, protocol.draw, rng)
        for i in range(count):
            category, query = next(pictures)
            others = [id for id in found[category] if id != query]
            support = [others[k] for k in rng.choice(len(others), shots, replace=False)]
            drawn.append((number, i, category, [query, *support]))
    wanted = {id for *_, ids in drawn for id in ids}
    records = {record.id: record for record in dataset if record.id in wanted}
    return [
        Episode(
            f"{of}/{i:05d} {category} {ids[0]}", of, category, records[ids[0]], tuple(records[id] for id in ids[1:])
        )
        for of, i, category, ids in drawn
    ]


def run(
    dataset: Iterable[Record],
    session: Session | None,
    *,
    model: str | None = None,
    seed: int = 0,
    columns: Sequence[str] = (),
    problems: Problems,
    progress: Progress | None = None,
    protocol: Protocol | str = "PASCAL-5i",
    classes: Sequence[str] | None = None,
    fold: int | None = None,
    shots: int = 1,
    count: int = 1000,
    done: Mapping[str, Sequence[float]] | None = None,
    on_unit: OnUnit | None = None,
) -> FewShotTally:
    """Draw episodes and let the model cut each query by its examples.

    Args:
        dataset: As in :func:`episodes`. Annotations with ``ignore`` mark pixels of a query that are not judged.
        session: Runs the model; None judges only what is in ``done``.
        model: As in :meth:`manylens.session.Session.run`.
        seed: Of the draw, and of every random step of the model.
        columns: Columns of the query to keep for slices, beside ``class``, ``fold`` and ``size``.
        problems: Takes episodes that cannot be judged, and those that the model failed on; they are left out.
        progress: Called after each episode.
        protocol: One of :class:`Protocol`, or its name.
        classes: With a name: as in :meth:`Protocol.of`.
        fold: As in :func:`episodes`.
        shots: As in :func:`episodes`.
        count: As in :func:`episodes`.
        done: Values by episode from an earlier run with the same arguments: not judged again.
        on_unit: Called with an id and its values as soon as an episode is judged.

    Returns:
        Units are episodes, clusters query pictures.

    Raises:
        UnsupportedError: No model at hand, or not the one named, is prompted by examples.
        DataError: See :func:`episodes`; or the first problem, where problems are errors.
    """
    protocol = Protocol.of(protocol, classes) if isinstance(protocol, str) else protocol
    drawn = episodes(dataset, protocol, fold=fold, shots=shots, count=count, seed=seed, problems=problems)
    rows, values = Rows("episode", columns), dict(done or {})
    judged: list[Episode] = []
    for episode in driving.watched(drawn, progress, lambda episode: episode.id):
        if episode.id not in values and session is not None:
            made = _judged(episode, session, model, seed, problems)
            if made is not None:
                values[episode.id] = made
                if on_unit is not None:
                    on_unit(episode.id, made)
        if episode.id in values:
            known = {"class": episode.category, "fold": episode.fold, "size": driving.size_name(values[episode.id][4])}
            rows.add(episode.id, episode.query.id, episode.query, None, known)
            judged.append(episode)
    names = sorted({episode.category for episode in judged})
    return FewShotTally(
        units=rows.units(),
        areas=driving.table(rows, values, 5)[:, :4],
        category=np.array([names.index(episode.category) for episode in judged], np.int64),
        fold=np.array([episode.fold for episode in judged], np.int64),
        names=names,
    )


@dataclass(frozen=True, eq=False)
class FewShotTally(Tally):
    """Areas of each episode: figures are ratios of their sums, as the protocols have it.

    ``mIoU`` is the mean over classes of summed intersections over summed unions; ``FB-IoU`` the mean of that of the
    class and that of the rest of the picture, all classes in one, averaged over folds.

    Attributes:
        areas: float64 ``(n, 4)``: intersection and union of the class, then of the rest, in pixels.
        category: int64 ``(n,)``, index into names.
        fold: int64 ``(n,)``.
        names: The classes.
    """

    measure: ClassVar[str] = "fewshot"
    main: ClassVar[str] = "mIoU"

    areas: FloatArray = field(default_factory=lambda: np.zeros((0, 4)))
    category: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    fold: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    names: Sequence[str] = ()

    def figures(self, weights: FloatArray) -> dict[str, FloatArray]:
        """See :meth:`Tally.figures`."""
        ious = np.full((len(weights), len(self.names)), np.nan)
        for i in range(len(self.names)):
            at = self.category == i
            sums = weights[:, at] @ self.areas[at]
            ious[:, i] = ratio(sums[:, 0], sums[:, 1])
        folds = np.unique(self.fold)
        both = np.full((len(weights), len(folds)), np.nan)
        for i, fold in enumerate(folds):
            at = self.fold == fold
            sums = weights[:, at] @ self.areas[at]
            both[:, i] = (ratio(sums[:, 0], sums[:, 1]) + ratio(sums[:, 2], sums[:, 3])) / 2
        by_class = {f"IoU/{name}": ious[:, i] for i, name in enumerate(self.names)}
        return {"mIoU": _mean(ious), "FB-IoU": _mean(both)} | by_class

    def scores(self) -> FloatArray:
        """Intersection over union of the class in each episode."""
        return ratio(self.areas[:, 0], self.areas[:, 1])


def _mean(values: FloatArray) -> FloatArray:
    """Mean over the columns that are defined."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1))


# ---------------------------------------------------------------------- drawing


@cache
def _protocols() -> dict[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath("data", "fewshot.toml").read_text("utf-8"))


def _class(record: Record, annotation: Annotation) -> str:
    return annotation.category or record.label


def _pictures(dataset: Iterable[Record]) -> dict[str, list[str]]:
    """Sorted ids of the pictures of each class."""
    found: dict[str, list[str]] = {}
    for record in dataset:
        shown = [one for one in record.annotations if one.mask is not None and not one.ignore and one.area != 0]
        for name in {_class(record, one) for one in shown} - {"", BACKGROUND}:
            found.setdefault(name, []).append(record.id)
    return {name: sorted(found[name]) for name in sorted(found)}


def _enough(
    found: Mapping[str, Collection[str]], protocol: Protocol, fold: int, shots: int, problems: Problems
) -> list[str]:
    """The classes of a fold that the data has enough pictures of."""
    named = protocol.folds[fold] or tuple(found)
    for name in named:
        have = len(found.get(name, ()))
        if have <= shots:
            what = f"class {name}: {have} pictures with a mask, an episode takes {shots + 1}"
            problems.add("too few pictures", name, what)
    classes = [name for name in named if len(found.get(name, ())) > shots]
    if not classes:
        raise DataError(
            f"{protocol.name}: no class of fold {fold} has {shots + 1} pictures with a mask in the data",
            f"give data with classes such as {', '.join(named[:3])}" if named else "give data with masks and classes",
        )
    return classes


def _queries(
    found: Mapping[str, Sequence[str]], classes: Sequence[str], draw: str, rng: np.random.Generator
) -> Iterator[tuple[str, str]]:
    """Class and query of one episode after another, without end."""
    if draw == "classes":
        while True:
            category = classes[int(rng.integers(len(classes)))]
            yield category, found[category][int(rng.integers(len(found[category])))]
    pairs = [(category, id) for category in classes for id in found[category]]
    while True:
        for i in rng.permutation(len(pairs)):
            yield pairs[i]


# ---------------------------------------------------------------------- judging


def _judged(episode: Episode, session: Session, model: str | None, seed: int, problems: Problems) -> list[float] | None:
    """Intersection and union of the class and of the rest, and the area of the class, in pixels of the query."""
    from manylens.tasks import SegmentRequest

    try:
        image = episode.query.image()
        truth, unjudged = _masks(episode.query, episode.category, image.size)
        like = []
        for record in episode.support:
            shown = record.image()
            like.append(
                {"image": shown, "mask": _masks(record, episode.category, shown.size)[0], "name": episode.category}
            )
    except MediaError as error:
        problems.add("bad episode", episode.id, f"episode {episode.id}: {error.what}")
        return None
    try:
        found = _merged(session.run(SegmentRequest.of(image=image, like=like), model=model, seed=seed), truth.shape)
    except Exception as error:
        driving.failed(problems, "episode", episode.id, error)
        return None
    judged = ~unjudged | truth
    pairs = [(found & judged, truth), (~found & judged, ~truth & judged)]
    areas = [float(np.count_nonzero(part)) for one, other in pairs for part in (one & other, one | other)]
    return [*areas, float(np.count_nonzero(truth))]


def _masks(record: Record, category: str, size: tuple[int, int]) -> tuple[BoolMask, BoolMask]:
    """All of a class in a picture, and the pixels that are not judged, each bool ``(H, W)``."""
    from manylens.media import Mask

    on, unjudged = np.zeros((2, size[1], size[0]), bool)
    for annotation in record.annotations:
        if annotation.mask is not None and annotation.ignore:
            unjudged |= Mask.of(annotation.mask, size)
        elif annotation.mask is not None and _class(record, annotation) == category:
            on |= Mask.of(annotation.mask, size)
    if not on.any():
        raise MediaError(f"{record.id}: its mask of {category} is empty")
    return on, unjudged


def _merged(found: Any, shape: tuple[int, ...]) -> BoolMask:
    """All instances in one mask; parts, which are other readings of the same prompt, stay out."""
    if found.mask is None or not len(found):
        return np.zeros(shape, bool)
    if found.mask.shape[1:] != shape:
        raise ValueError(f"masks of {found.mask.shape[2]} x {found.mask.shape[1]} pixels")
    levels = np.asarray(found.data.get("level", [""] * len(found)))
    return np.asarray(found.mask[~np.isin(levels, _PARTS)].any(axis=0), bool)
