"""Robustness: how a model's figures fall as pictures go bad, by corruption and severity."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.audit.corruptions import SEVERITIES, Corruption, named
from manylens.audit.writing import write
from manylens.data import Annotation, Dataset, Record
from manylens.errors import CostError, MediaError
from manylens.evaluation import details
from manylens.evaluation.evaluate import evaluate
from manylens.evaluation.intervals import Draws, Estimate, about, capped, estimates, interval
from manylens.evaluation.tally import FloatArray, Tally
from manylens.media import Image, atomic_write, bounds, from_rle, save_image, to_rle
from manylens.runtime.meter import Meter
from manylens.version import __version__

if TYPE_CHECKING:
    import os

    from manylens.session import Session

RESAMPLES = 500


@dataclass(frozen=True)
class Line:
    """One corruption.

    Attributes:
        name: Of the corruption.
        group: ``noise``, ``blur``, ``weather``, ``digital`` or ``extra``.
        about: What it looks like.
        figures: The main figure at severity 0 (the clean pictures), 1, 2, ...; fewer where the run was stopped.
        area: Mean of the main figure over severities 1 and up: the area under the line, of a width of 1.
        kept: ``area`` by the clean figure: how much is kept, 1 is everything.
    """

    name: str
    group: str
    about: str
    figures: Sequence[Estimate]
    area: Estimate
    kept: float

    def to_json(self) -> dict[str, Any]:
        """Plain, NaN as None."""
        return {
            "name": self.name,
            "group": self.group,
            "about": self.about,
            "figures": [one.to_json() for one in self.figures],
            "area": self.area.to_json(),
            "kept": None if math.isnan(self.kept) else self.kept,
        }


@dataclass(frozen=True)
class Robustness:
    """What a model keeps of its figures on bad pictures.

    Attributes:
        task: That was measured.
        measure: How.
        model: Its id.
        data: Name of the data.
        figure: The main figure of the measure.
        lower: Whether less of it is better.
        severities: That were tried.
        clean: The figure on the pictures as they are.
        lines: By corruption.
        area: Mean of the areas of all corruptions, with its interval.
        kept: That by the clean figure.
        stopped: Why the run ended early; empty where it did not.
        version: Of manylens.
    """

    task: str
    measure: str
    model: str
    data: str
    figure: str
    lower: bool
    severities: Sequence[int]
    clean: Estimate
    lines: Sequence[Line]
    area: Estimate
    kept: float
    records: int
    stopped: str = ""
    version: str = __version__

    def to_json(self) -> dict[str, Any]:
        """Plain, NaN as None."""
        return {
            "task": self.task,
            "measure": self.measure,
            "model": self.model,
            "data": self.data,
            "figure": self.figure,
            "lower_is_better": self.lower,
            "severities": list(self.severities),
            "records": self.records,
            "clean": self.clean.to_json(),
            "area": self.area.to_json(),
            "kept": None if math.isnan(self.kept) else self.kept,
            "corruptions": [line.to_json() for line in self.lines],
            "stopped": self.stopped,
            "version": self.version,
        }

    def curves(self) -> dict[str, dict[str, Any]]:
        """A plot of the figure against severity for each group of corruptions."""
        groups = dict.fromkeys(line.group for line in self.lines)
        return {group: self._curve(group, [line for line in self.lines if line.group == group]) for group in groups}

    def _curve(self, group: str, lines: Sequence[Line]) -> dict[str, Any]:
        at = [0, *self.severities]
        return details.curve(
            group,
            "severity",
            self.figure,
            {line.name: (at[: len(line.figures)], [one.value for one in line.figures]) for line in lines},
            bands={
                line.name: ([one.low for one in line.figures], [one.high for one in line.figures])
                for line in lines
                if len(lines) == 1
            },
        )

    def save(self, folder: str | Path, samples: Sequence[Any] = ()) -> list[Path]:
        """Write ``robustness.json`` and the page ``robustness.html``.

        Args:
            folder: Where to.
            samples: Pictures of the page, see :func:`manylens.audit.robustness_page.samples`.
        """
        from manylens.audit.robustness_page import page

        return write(folder, "robustness", self.to_json(), page(self, samples))


def robustness(
    data: Dataset | str | os.PathLike[str],
    *,
    task: str,
    model: str | None = None,
    corruptions: Sequence[str] = ("standard",),
    severities: Sequence[int] = SEVERITIES,
    measure: str | None = None,
    prompt: str | None = None,
    images: str | os.PathLike[str] | None = None,
    split: str | None = None,
    limit: int | None = None,
    session: Session | None = None,
    out: str | os.PathLike[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    max_cost: float | None = None,
    progress: Callable[[float, str], None] | None = None,
    **options: Any,
) -> Robustness:
    """Measure a model on pictures that go bad step by step.

    Args:
        data: Labelled data, as for :func:`manylens.evaluate`.
        task: The task, such as ``segment``.
        model: A catalog id, hub id or folder; None lets the session choose.
        corruptions: Names, groups (``noise``, ``blur``, ``weather``, ``digital``, ``extra``), ``standard`` or ``all``.
        severities: Of 1 to 5.
        measure: As for :func:`manylens.evaluate`, like the rest.
        prompt: As there.
        images: As there.
        split: As there.
        limit: As there.
        session: As there.
        out: Folder of the report. What was measured is kept there, and a second run goes on from it.
        resamples: Of the bootstrap.
        seed: Of corruptions and bootstrap.
        max_cost: Stop before it costs more; what is done is reported.
        progress: Called with the share done and what is next.
        options: As there.

    Returns:
        The figure by corruption and severity, and the area under each line.

    Raises:
        ManylensError: One line that names the input and the remedy.
    """
    chosen = named(corruptions)
    dataset = data if isinstance(data, Dataset) else Dataset.read(data, images=images)
    dataset = dataset.select(split=split, limit=limit)
    asked = {"task": task, "model": model, "measure": measure, "prompt": prompt, **options}
    meter = Meter(max_cost)
    cells = _Cells(Path(out) / "robustness" if out is not None else None, dataset, {**asked, "seed": seed})
    total, done, stopped = 1 + len(chosen) * len(severities), 0, ""

    def tally_of(corruption: Corruption | None, severity: int) -> Tally:
        nonlocal done
        if progress is not None:
            progress(done / total, f"{corruption.name} {severity}" if corruption else "clean pictures")
        done += 1
        return cells.get(corruption, severity, lambda source: _measured(source, asked, session, seed, meter), seed)

    clean = tally_of(None, 0)
    found: dict[str, list[Tally]] = {}
    try:
        for corruption in chosen:
            found[corruption.name] = []
            for severity in severities:
                found[corruption.name].append(tally_of(corruption, severity))
    except CostError as error:
        stopped = error.what
    whole = [(one, found[one.name]) for one in chosen if len(found.get(one.name, ())) == len(severities)]
    lines = [_line(one, clean, tallies, resamples, seed) for one, tallies in whole]
    area = _area(clean, [tally for _, tallies in whole for tally in tallies], resamples, seed)
    figure = clean.main_figure
    at_first = estimates(clean, resamples=resamples, seed=seed)[figure]
    return Robustness(
        task=task,
        measure=cells.measure,
        model=cells.model,
        data=dataset.name,
        figure=figure,
        lower=clean.lower(figure),
        severities=list(severities),
        clean=at_first,
        lines=lines,
        area=area,
        kept=area.value / at_first.value if at_first.value else math.nan,
        records=len(dataset),
        stopped=stopped,
    )


@dataclass(frozen=True)
class _Cell:
    """What one evaluation gave."""

    tally: Tally
    measure: str
    model: str


def _measured(source: Dataset, asked: Mapping[str, Any], session: Session | None, seed: int, meter: Meter) -> _Cell:
    made = evaluate(source, session=session, resamples=0, seed=seed, max_cost=meter, **asked)
    if made.stopped:
        raise CostError(made.stopped, "raise the cost cap; what is done is kept")
    return _Cell(made.tally, made.measure, made.model.id)


class _Cells:
    """The tallies by corruption and severity, kept on disk so that a second run goes on."""

    def __init__(self, folder: Path | None, dataset: Dataset, asked: Mapping[str, Any]) -> None:
        self._folder, self._dataset = folder, dataset
        told = json.dumps({**asked, "data": dataset.fingerprint(pixels=False)}, sort_keys=True, default=str)
        self._key = hashlib.sha256(told.encode()).hexdigest()[:12]
        self.measure = self.model = ""

    def get(
        self, corruption: Corruption | None, severity: int, measure: Callable[[Dataset], _Cell], seed: int
    ) -> Tally:
        """The tally of one corruption at one severity: kept, or measured now."""
        name = f"{self._key}-{corruption.name if corruption else 'clean'}-{severity}"
        path = self._folder / f"{name}.npz" if self._folder is not None else None
        about = path.with_suffix(".json") if path is not None else None
        if path is not None and about is not None and path.is_file() and about.is_file():
            said = json.loads(about.read_text(encoding="utf-8"))
            self.measure, self.model = said["measure"], said["model"]
            return Tally.load(path)
        if corruption is None:
            cell = measure(self._dataset)
        else:
            with tempfile.TemporaryDirectory(prefix="manylens-") as place:
                records = corrupted(self._dataset.records(), corruption, severity, Path(place), seed)
                cell = measure(
                    Dataset.of(records, self._dataset.categories, name=f"{self._dataset.name}, {corruption.name}")
                )
        self.measure, self.model = cell.measure, cell.model
        if path is not None and about is not None:
            cell.tally.save(path)
            atomic_write(about, json.dumps({"measure": cell.measure, "model": cell.model}).encode())
        return cell.tally


def corrupted(
    records: Iterator[Record], corruption: Corruption, severity: int, folder: Path, seed: int = 0
) -> Iterator[Record]:
    """Records whose pictures are corrupted copies in a folder; masks and boxes move where things do.

    A picture that cannot be read keeps its path, and is told of where it is used.

    Args:
        records: As they are.
        corruption: What is done to the pictures.
        severity: 1 to 5.
        folder: Takes the copies, as PNG.
        seed: Each picture gets its own of it and its id.
    """
    for number, record in enumerate(records):
        own = int.from_bytes(hashlib.sha256(f"{seed}/{record.id}".encode()).digest()[:4], "big")
        try:
            pixels = record.image().array
        except MediaError:
            yield record
            continue
        path = folder / f"{number:07d}.png"
        save_image(Image.of(corruption.apply(np.asarray(pixels), severity, own)), path)
        moved = record.annotations
        if corruption.moves:
            moved = tuple(_moved(one, corruption, severity, own, pixels.shape[:2]) for one in record.annotations)
        yield replace(record, path=path, annotations=moved)


def _moved(one: Annotation, corruption: Corruption, severity: int, seed: int, shape: tuple[int, ...]) -> Annotation:
    """An annotation where it lies afterwards; one that has left the picture is not judged."""
    if one.mask is None and one.box is None:
        return one
    if one.mask is not None:
        inside = from_rle(one.mask)
    else:
        inside = np.zeros(shape, dtype=bool)
        x0, y0, x1, y1 = (round(side) for side in one.box or (0, 0, 0, 0))
        inside[max(0, y0) : y1, max(0, x0) : x1] = True
    there = corruption.move(inside, severity, seed)
    box = bounds(there)
    if box is None:
        return replace(one, ignore=True)
    x0, y0, x1, y1 = box
    return replace(
        one,
        mask=to_rle(there) if one.mask is not None else None,
        box=(float(x0), float(y0), float(x1), float(y1)) if one.box is not None else None,
        area=float(np.count_nonzero(there)) if one.mask is not None else float((x1 - x0) * (y1 - y0)),
    )


def _line(corruption: Corruption, clean: Tally, tallies: Sequence[Tally], resamples: int, seed: int) -> Line:
    figure = clean.main_figure
    area = _area(clean, tallies, resamples, seed)
    first = clean.all()[figure]
    return Line(
        name=corruption.name,
        group=corruption.group,
        about=corruption.about,
        figures=[estimates(one, resamples=resamples, seed=seed)[figure] for one in (clean, *tallies)],
        area=area,
        kept=area.value / first if first else math.nan,
    )


def _area(clean: Tally, tallies: Sequence[Tally], resamples: int, seed: int) -> Estimate:
    """Mean of the main figure over tallies; each resample draws the same pictures for all of them."""
    if not tallies:
        return Estimate(math.nan)
    figure = clean.main_figure
    points = [one.all()[figure] for one in tallies]
    value = float(np.mean(points))
    draws = Draws(clean.units.clusters, capped(clean, resamples), seed)
    if len(draws.names) < 2 or resamples == 0:
        return Estimate(value)
    rows: list[FloatArray] = []
    for one, point in zip(tallies, points, strict=True):
        blocks = [one.figures(weights)[figure] for weights in draws.weights(one.units.clusters)]
        rows.append(about(one, figure, point, np.concatenate(blocks)))
    return Estimate(value, *interval(np.mean(rows, axis=0), clusters=len(draws.names)))
