"""Where the two groups of a membership audit come from: saved evaluations, files of losses, or two splits."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.audit.fairness import opened
from manylens.audit.membership import Membership, MembershipTally, audit
from manylens.data.problems import DataError, Problems
from manylens.evaluation.evaluate import evaluate
from manylens.evaluation.intervals import RESAMPLES
from manylens.evaluation.results import Evaluation
from manylens.evaluation.tally import Tally, Units
from manylens.runtime.meter import Meter

if TYPE_CHECKING:
    import os

    from manylens.data import Dataset
    from manylens.session import Session

_COLUMNS = ("loss", "score")


@dataclass(frozen=True, eq=False)
class Group:
    """One group.

    Attributes:
        units: Its pictures, objects, ...
        signal: float64 ``(n,)``: score, or loss with its sign turned; NaN where unknown.
        figure: What the signal is.
        measure: What made it.
        name: Of the data.
        data: What tells whether two groups are of one data set; empty where unknown.
        fingerprint: Hash of the data; empty where unknown.
        model: Its id; empty where unknown.
    """

    units: Units
    signal: np.ndarray
    figure: str
    measure: str
    name: str
    data: str = ""
    fingerprint: str = ""
    model: str = ""


def membership(
    members: Tally | Evaluation | Mapping[str, float] | str | os.PathLike[str],
    others: Tally | Evaluation | Mapping[str, float] | str | os.PathLike[str],
    *,
    figure: str = "score",
    resamples: int = RESAMPLES,
    seed: int = 0,
    strict: bool = False,
) -> Membership:
    """Audit two groups that were measured already.

    Args:
        members: What the model was trained on: an evaluation, the folder that it was saved in, a tally, a number by
            id, or a CSV file with a column ``loss`` or ``score`` and perhaps ``id``.
        others: What it was not trained on, in the same form.
        figure: What numbers by id are: ``loss`` (less speaks for a member), or else a score (more does).
        resamples: Of the bootstrap.
        seed: Of the drawing.
        strict: Whether the first number that is wrong is an error.

    Raises:
        DataError: A group cannot be read or is empty, they share no figure, or they are the same data.
    """
    problems = Problems(strict)
    one, other = (_group(source, figure) for source in (members, others))
    return _audited(one, other, problems, resamples=resamples, seed=seed)


def membership_of_splits(
    data: Dataset | str | os.PathLike[str],
    *,
    task: str,
    member_split: str = "train",
    other_split: str = "val",
    model: str | None = None,
    limit: int | None = None,
    session: Session | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    strict: bool = False,
    max_cost: float | None = None,
    progress: Callable[[float, str], None] | None = None,
    **options: Any,
) -> Membership:
    """Measure a model on two splits, and audit them.

    Args:
        data: As for :func:`manylens.evaluate`.
        task: As there, like the rest.
        member_split: The split that the model was trained on.
        other_split: A split that it was not trained on.
        model: As for :func:`manylens.evaluate`.
        limit: Only so many records of each split.
        session: As for :func:`manylens.evaluate`.
        resamples: Of the bootstrap.
        seed: Of every random step.
        strict: As for :func:`manylens.evaluate`.
        max_cost: The most that both runs may be charged: what was judged until then is audited.
        progress: Called with the share done and a line.
        options: As for :func:`manylens.evaluate`.

    Raises:
        ManylensError: One line that names the input and the remedy.
    """
    if member_split == other_split:
        raise DataError(f"{member_split}: both groups are this split", "name a split that the model was not trained on")
    meter, problems, found = Meter(max_cost), Problems(), []
    for half, split in enumerate((member_split, other_split)):
        made = evaluate(
            data,
            task=task,
            model=model,
            split=split,
            limit=limit,
            session=session,
            resamples=0,
            seed=seed,
            strict=strict,
            max_cost=meter,
            progress=_half(progress, half),
            **options,
        )
        problems.extend(made.problems)
        found.append((made, split))
    notes = [f"{split}: {made.stopped}; only what was judged is audited" for made, split in found if made.stopped]
    one, other = (_of_tally(made.tally, made, split) for made, split in found)
    return _audited(one, other, problems, notes, resamples=resamples, seed=seed)


def joined(members: Group, others: Group, problems: Problems) -> tuple[MembershipTally, list[str]]:
    """Both groups as one tally, and what is to be said of that.

    Ids get ``member:`` or ``other:`` in front: two data sets may name different pictures alike. Within one data set
    they may not, and what stands in both groups is left out.

    Args:
        members: What the model was trained on.
        others: What it was not trained on.
        problems: Takes numbers that are none, and units of both groups.

    Raises:
        DataError: They share no figure, or are the same data.
    """
    if (members.measure, members.figure, members.units.kind) != (others.measure, others.figure, others.units.kind):
        told = [f"{one.measure} has {one.figure} of {one.units.kind}s" for one in (members, others)]
        raise DataError(
            f"{members.name} and {others.name}: no shared figure ({'; '.join(told)})", "measure both the same way"
        )
    if members.model and others.model and members.model != others.model:
        raise DataError(
            f"{members.name} and {others.name}: of two models ({members.model}, {others.model})",
            "measure one model on both",
        )
    if members.fingerprint and members.fingerprint == others.fingerprint:
        raise DataError(
            f"{members.name} and {others.name}: are the same data", "give data that the model was not trained on"
        )
    shared = set(members.units.ids) & set(others.units.ids)
    both: set[str] = shared if members.data and members.data == others.data else set()
    notes = []
    if shared and not both:
        alike = f"{len(shared)} ids stand in both groups" if len(shared) > 1 else f"{min(shared)} stands in both groups"
        notes.append(f"{alike}: taken for different pictures, since the data sets differ")
    kept = [_kept(group, both, problems) for group in (members, others)]
    ids, clusters, signal, member = [], [], [], []
    columns = dict.fromkeys([*members.units.columns, *others.units.columns])
    values: dict[str, list[Any]] = {name: [] for name in columns}
    for mark, group, places in zip(("member", "other"), (members, others), kept, strict=True):
        ids += [f"{mark}:{group.units.ids[i]}" for i in places]
        clusters += [f"{mark}:{group.units.clusters[i]}" for i in places]
        signal += [float(group.signal[i]) for i in places]
        member += [mark == "member"] * len(places)
        for name, column in values.items():
            there = group.units.columns.get(name)
            column += [None if there is None else there[i] for i in places]
    units = Units(members.units.kind, ids, clusters, values)
    made = MembershipTally(units, np.array(member, bool), np.array(signal, np.float64), members.figure)
    return made, notes


def _audited(one: Group, other: Group, problems: Problems, notes: Any = (), **how: Any) -> Membership:
    tally, more = joined(one, other, problems)
    model = one.model or other.model
    return audit(
        tally, model=model, members=one.name, others=other.name, problems=problems, notes=[*notes, *more], **how
    )


def _kept(group: Group, both: set[str], problems: Problems) -> list[int]:
    kept = []
    for i, id in enumerate(group.units.ids):
        if not math.isfinite(group.signal[i]):
            problems.add("NaN score", id, f"{group.units.kind} {id}: its {group.figure} is not a number; left out")
        elif id in both:
            problems.add("in both groups", id, f"{group.units.kind} {id}: stands in both groups; left out")
        else:
            kept.append(i)
    return kept


def _group(source: Any, figure: str) -> Group:
    if isinstance(source, Mapping):
        return _of_numbers(source, figure, "numbers")
    if not isinstance(source, Tally | Evaluation) and Path(source).suffix.lower() == ".csv":
        return _read(Path(source))
    tally, evaluation = opened(source)
    return _of_tally(tally, evaluation, "" if isinstance(source, Tally | Evaluation) else Path(source).name)


def _of_tally(tally: Tally, evaluation: Evaluation | None, name: str) -> Group:
    scores = tally.scores()
    if scores is None:
        raise DataError(
            f"{name or tally.measure}: {tally.measure} has no score for each {tally.units.kind}",
            "give the evaluation of a task that has one, or a CSV of losses",
        )
    known: dict[str, str] = {}
    if evaluation is not None:
        of = evaluation.data
        known = {"data": of.name, "fingerprint": f"{of.fingerprint}/{of.split}", "model": evaluation.model.id}
        name = " ".join(dict.fromkeys(filter(None, (of.name, of.split)))) or name
    return Group(
        tally.units, np.asarray(scores, float), f"{tally.main_figure} score", tally.measure, name or "group", **known
    )


def _of_numbers(values: Mapping[str, float], figure: str, name: str) -> Group:
    ids = [str(id) for id in values]
    signal = np.array([float(value) for value in values.values()], np.float64)
    return Group(Units("image", ids, ids), -signal if figure == "loss" else signal, figure, "numbers", name)


def _read(path: Path) -> Group:
    remedy = "give a CSV with a column loss or score, and perhaps id"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})", remedy) from error
    figure = next((name for name in _COLUMNS if rows and name in rows[0]), None)
    if figure is None:
        raise DataError(f"{path}: " + ("has no column loss or score" if rows else "holds no row"), remedy)
    values = {str(row.get("id") or number): _number(row[figure]) for number, row in enumerate(rows, 1)}
    if len(values) < len(rows):
        raise DataError(f"{path}: {len(rows) - len(values)} ids occur twice", "give each row its own id")
    return _of_numbers(values, figure, path.name)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _half(progress: Callable[[float, str], None] | None, half: int) -> Callable[[float, str], None] | None:
    if progress is None:
        return None
    return lambda done, line: progress((half + done) / 2, line)
