"""Slices of any measure by any field: of records, of annotations, by class, by size.

Where a unit has the field, its units are sliced (:mod:`manylens.evaluation.slices`). Where units are pictures and the
field belongs to annotations, as with detection, the measure is taken again for each group from the kept predictions,
the annotations of all other groups being ignored: a prediction that matches one of those is no false alarm, one that
matches nothing is a false alarm in every group.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from manylens.data.problems import DataError, Problems
from manylens.evaluation.comparing import compare
from manylens.evaluation.intervals import Estimate, estimates
from manylens.evaluation.measures.driving import column, size_name
from manylens.evaluation.predictions import Known, read
from manylens.evaluation.protocols import Asked
from manylens.evaluation.slices import LEAST_CLUSTERS, Gap, Group, Sliced, groups_of, slice_by
from manylens.evaluation.tally import RatioTally, Tally, Units

if TYPE_CHECKING:
    from manylens.data import Dataset
    from manylens.data.records import Annotation, Record
    from manylens.evaluation.measuring import Job

BUILT_IN = ("class", "size")
_FIELDS = ("split", "label")
_MOST_GROUPS = 50


def check_fields(names: Iterable[str], dataset: Dataset) -> None:
    """Refuse a field that the data does not have, before anything is run.

    Raises:
        DataError: Names the fields that there are.
    """
    there = list(dict.fromkeys((*BUILT_IN, *_FIELDS, *dataset.columns, *dataset.annotation_columns)))
    for name in names:
        if name not in there:
            raise DataError(f"slice {name!r}: the data has no such field", f"slice by one of {', '.join(there)}")


def sliced(job: Job, tally: Tally, name: str, *, resamples: int, seed: int) -> Sliced:
    """The figures for each group of a field.

    Args:
        job: What was measured, with its predictions spooled.
        tally: What came of it.
        name: The field.
        resamples: Of the bootstrap.
        seed: Of its drawing.

    Raises:
        DataError: No unit has a value in the field, or the measure's units do not have such a field.
    """
    tally = _with_labels(job, tally, name)
    if _known(tally, name):
        return slice_by(tally, name, resamples=resamples, seed=seed)
    figures = _of_figures(tally, name)
    if figures:
        return _from_figures(job, tally, name, figures, estimates(tally, resamples=resamples, seed=seed))
    of_annotations = name in (*BUILT_IN, *job.dataset.annotation_columns)
    if of_annotations and isinstance(job.protocol, Asked) and job.protocol.regroups:
        return _again(job, tally, name, resamples=resamples, seed=seed)
    if of_annotations:
        raise DataError(
            f"slice {name!r}: belongs to annotations, and {job.protocol.name} counts each {tally.units.kind} as one",
            "slice by a field of the records",
        )
    return slice_by(tally, name, resamples=resamples, seed=seed)  # says that no unit has a value


def _known(tally: Tally, name: str) -> bool:
    return any(value not in (None, "", []) for value in tally.units.columns.get(name, ()))


def _with_labels(job: Job, tally: Tally, name: str) -> Tally:
    """The tally with the class of each picture, where pictures have one and the measure did not keep it."""
    if name not in ("class", "label", "split") or _known(tally, name):
        return tally
    field = "label" if name == "class" else name
    values = {record.id: getattr(record, field) for record in job.dataset.records()}
    column_of = [values.get(cluster) or None for cluster in tally.units.clusters]
    return tally.like(units=replace(tally.units, columns={**tally.units.columns, name: column_of}))


# ---------------------------------------------------------------------- groups that the figures know already


def _of_figures(tally: Tally, name: str) -> dict[str, dict[str, str]]:
    """Figures of each group by their plain names, where the measure has a figure for each class or size."""
    every = list(tally.figures(np.ones((1, len(tally.units)))))
    groups: dict[str, dict[str, str]] = {}
    if name == "class":
        for figure in every:
            plain, slash, group = figure.partition("/")
            if slash:
                groups.setdefault(group, {})[plain] = figure
    elif name == "size":
        for short, group in (("s", "small"), ("m", "medium"), ("l", "large")):
            for plain in ("AP", "AR"):
                if f"{plain}{short}" in every:
                    groups.setdefault(group, {})[plain] = f"{plain}{short}"
    return groups


def _from_figures(
    job: Job, tally: Tally, name: str, groups: Mapping[str, Mapping[str, str]], found: Mapping[str, Estimate]
) -> Sliced:
    units: dict[str, int] = {}
    pictures: dict[str, set[str]] = {}
    judged = set(tally.units.clusters)
    for record in job.dataset.records():
        if record.id not in judged:
            continue
        for one in record.annotations:
            group = str(_value(name, record, one))
            units[group] = units.get(group, 0) + 1
            pictures.setdefault(group, set()).add(record.id)
    made = [
        Group(
            group,
            units.get(group, 0),
            len(pictures.get(group, ())),
            {plain: found[figure] for plain, figure in figures.items()},
            len(pictures.get(group, ())) >= LEAST_CLUSTERS,
        )
        for group, figures in groups.items()
        if units.get(group)
    ]
    main = tally.main_figure if any(tally.main_figure in figures for figures in groups.values()) else ""
    return Sliced(name, main or next(iter(made[0].figures), "") if made else "", "object", made, {}, 0)


# ---------------------------------------------------------------------- the measure taken again


def _again(job: Job, tally: Tally, name: str, *, resamples: int, seed: int) -> Sliced:
    members, rows, unknown = _groups(job, tally, name)
    measures = {group: job.measure(Problems(), ()) for group in members}
    saved = job.saved
    if saved is None:
        assert job.spool is not None
        saved = read(job.spool, Known.of(job.dataset), Problems())
    judged = set(tally.units.clusters)
    for record in job.dataset.records():
        if record.id not in judged:
            continue
        prediction = saved.get(record.id)
        for group, inside in members.items():
            mine = [replace(one, ignore=one.ignore or not inside[rows[one.id]]) for one in record.annotations]
            measures[group].add(replace(record, annotations=tuple(mine)), prediction)
    tallies = {group: measure.tally() for group, measure in measures.items()}
    clusters = np.array([record.id for record in job.dataset.records() for _ in record.annotations])
    groups = []
    for group, inside in members.items():
        pictures = len(set(clusters[inside]) & judged)
        found = estimates(tallies[group], resamples=resamples, seed=seed)
        groups.append(Group(group, int(inside.sum()), pictures, found, pictures >= LEAST_CLUSTERS))
    gaps = _gap(tally.main_figure, groups, tallies, resamples, seed)
    return Sliced(name, tally.main_figure, "object", groups, gaps, unknown)


def _groups(job: Job, tally: Tally, name: str) -> tuple[dict[str, npt.NDArray[np.bool_]], dict[str, int], int]:
    """The annotations of each group, bool by place; the place of each annotation; how many have no value."""
    ids, clusters, values = [], [], []
    for record in job.dataset.records():
        for one in record.annotations:
            ids.append(one.id)
            clusters.append(record.id)
            values.append(_value(name, record, one))
    units = Units("object", ids, clusters, {name: values})
    members, unknown = groups_of(RatioTally(units), name)
    if len(members) > _MOST_GROUPS:
        raise DataError(f"slice {name!r}: has {len(members)} values", f"slice by a field of at most {_MOST_GROUPS}")
    return members, {id: place for place, id in enumerate(ids)}, unknown


def _value(name: str, record: Record, one: Annotation) -> Any:
    if name == "class":
        return one.category
    if name == "size":
        return None if one.area is None else size_name(one.area)
    return column(name, record, one)


def _gap(main: str, groups: Sequence[Group], tallies: Mapping[str, Tally], resamples: int, seed: int) -> dict[str, Gap]:
    """The gap between best and worst of the main figure.

    Its p-value is that of the paired comparison of these two, times the number of pairs (Bonferroni): they were picked
    because they lie far apart.
    """
    known = [one for one in groups if one.judged and not math.isnan(one.figures[main].value)]
    if len(known) < 2:
        return {}
    lower = next(iter(tallies.values())).lower(main)
    known.sort(key=lambda one: one.figures[main].value, reverse=not lower)
    best, worst = known[0], known[-1]
    found = compare(tallies[worst.name], tallies[best.name], resamples=resamples, seed=seed).differences[main]
    sign = -1.0 if lower else 1.0
    low, high = sorted((sign * found.difference.low, sign * found.difference.high))
    top, bottom = (found.a, found.b) if lower else (found.b, found.a)
    pairs = len(known) * (len(known) - 1) / 2
    gap = Estimate(sign * found.difference.value, low, high)
    return {main: Gap(main, best.name, worst.name, gap, bottom / top if top else math.nan, min(1.0, found.p * pairs))}
