"""The tally: what a measure keeps of every unit, enough to compute its figures under any weighting of the units.

A slice weighs the units of a group 1 and all others 0; a bootstrap resample weighs each unit by how often it was drawn;
both at once is their product. So intervals, slices, gaps and comparisons are written once, for every measure, and a
thousand resamples cost arithmetic on kept numbers instead of a thousand evaluations.
"""

from __future__ import annotations

import io
import json
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from manylens.data.problems import DataError
from manylens.media import atomic_write

FloatArray = npt.NDArray[np.float64]

_KINDS: dict[str, type[Tally]] = {}
_ROOMS = ("evaluation", "evaluation.measures", "audit")
_HOMES = {"detection": "detection_tally"}
"""Modules of kinds that are not named like their module; a kind is registered as its module is imported."""


@dataclass(frozen=True, eq=False)
class Units:
    """What is counted: images, objects, questions, ...

    Attributes:
        kind: The singular noun, such as ``image`` or ``object``.
        ids: Id of each unit, unique.
        clusters: Id of the image (video, document) that each unit comes from; units of one cluster are drawn together,
            for they are not independent.
        columns: Values of each unit by column, for slices; None or empty where unknown.
    """

    kind: str
    ids: Sequence[str]
    clusters: Sequence[str]
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {"clusters": len(self.clusters)} | {name: len(values) for name, values in self.columns.items()}
        for name, length in lengths.items():
            if length != len(self.ids):
                raise ValueError(f"{name}: {length} values for {len(self.ids)} units")

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Tally(ABC):
    """Base of all tallies. Subclasses are frozen dataclasses whose further fields are arrays or JSON values.

    Attributes:
        measure: Name of the kind, for files.
        main: The figure that a reader looks at first.
        lower_is_better: Figures of which less is more (errors, FID).
        recentred: Figures that repeated pictures push to one side (FID sees too little variety): their intervals are
            moved to lie about the figure itself.
        limits: Least and most that such a figure can be: no interval is moved past them.
        resamples: The most bootstrap resamples that are worth their cost; None for as many as are asked for.
    """

    measure: ClassVar[str] = ""
    main: ClassVar[str] = ""
    lower_is_better: ClassVar[frozenset[str]] = frozenset()
    recentred: ClassVar[frozenset[str]] = frozenset()
    limits: ClassVar[Mapping[str, tuple[float, float]]] = {}
    resamples: ClassVar[int | None] = None

    units: Units

    def __init_subclass__(cls) -> None:
        if "measure" in cls.__dict__:  # one that inherits its name does not take it over
            _KINDS[cls.measure] = cls

    @abstractmethod
    def figures(self, weights: FloatArray) -> dict[str, FloatArray]:
        """Every figure under each weighting.

        Args:
            weights: ``(R, n)``, at least 0, one row for each weighting of the n units.

        Returns:
            ``(R,)`` by name of the figure, the same names whatever the weights; NaN where a figure is not defined
            (no unit left, no positive). Per-class figures are named ``figure/class``, such as ``AP/cat``.
        """

    def details(self) -> dict[str, Any]:
        """Tables and curves of all units, JSON-ready; see :mod:`manylens.evaluation.details` for the forms."""
        return {}

    def scores(self) -> FloatArray | None:
        """``(n,)``: how well each unit was served, more is better, NaN where it cannot be said; for worst examples."""
        return None

    @property
    def main_figure(self) -> str:
        """:attr:`main`, unless it depends on what was measured."""
        return self.main

    @property
    def score_name(self) -> str:
        """What :meth:`scores` are, for people: the main figure, unless a unit alone has another."""
        return self.main_figure

    def lower(self, figure: str) -> bool:
        """Whether less of a figure is better, per-class figures included."""
        return figure.split("/")[0] in self.lower_is_better

    def all(self) -> dict[str, float]:
        """Every figure over all units, each weighed 1."""
        return {name: float(values[0]) for name, values in self.figures(np.ones((1, len(self.units)))).items()}

    def save(self, path: str | Path) -> Path:
        """Write it as ``.npz``, without pickles."""
        arrays: dict[str, np.ndarray] = {}
        plain: dict[str, Any] = {
            "measure": self.measure,
            "kind": self.units.kind,
            "ids": list(self.units.ids),
            "clusters": list(self.units.clusters),
            "columns": {name: list(values) for name, values in self.units.columns.items()},
        }
        for part in fields(self):
            value = getattr(self, part.name)
            if isinstance(value, np.ndarray):
                arrays[part.name] = value
            elif part.name != "units":
                plain.setdefault("fields", {})[part.name] = value
        arrays["__json__"] = np.frombuffer(json.dumps(plain, default=_plain).encode(), dtype=np.uint8)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        return atomic_write(path, buffer.getvalue())

    @staticmethod
    def load(path: str | Path) -> Tally:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: It is no such file.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            plain = json.loads(arrays.pop("__json__").tobytes())
            kind = _kind(plain["measure"])
            units = Units(plain["kind"], plain["ids"], plain["clusters"], plain["columns"])
            return kind(units=units, **arrays, **plain.get("fields", {}))
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: not a tally of this version ({error})", "evaluate again") from error

    def like(self, **changes: Any) -> Self:
        """The same with some fields changed."""
        return type(self)(**({part.name: getattr(self, part.name) for part in fields(self)} | changes))


@dataclass(frozen=True, eq=False)
class RatioTally(Tally):
    """Figures that are a weighted sum over a weighted sum: means, accuracies, error rates.

    Attributes:
        names: Name of each figure, F of them.
        numerators: float64 ``(n, F)``.
        denominators: float64 ``(n, F)``; 1 for a plain mean, 0 where a unit has no part in a figure.
        errors: Figures of which less is better, by name.
        first: The main figure.
        extra: Details that do not depend on weights, JSON-ready.
    """

    measure: ClassVar[str] = "ratios"

    names: Sequence[str] = ()
    numerators: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    denominators: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    errors: Sequence[str] = ()
    first: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_values(cls, units: Units, values: Mapping[str, Sequence[float] | FloatArray], **rest: Any) -> Self:
        """Plain means of values by figure; NaN where a unit has no part in it."""
        table = np.array([np.asarray(column, float) for column in values.values()]).reshape(len(values), len(units)).T
        known = ~np.isnan(table)
        return cls(
            units=units, names=list(values), numerators=np.where(known, table, 0.0), denominators=known * 1.0, **rest
        )

    def figures(self, weights: FloatArray) -> dict[str, FloatArray]:
        """See :meth:`Tally.figures`."""
        values = ratio(weights @ self.numerators, weights @ self.denominators)
        return {name: values[:, i] for i, name in enumerate(self.names)}

    def details(self) -> dict[str, Any]:
        """See :meth:`Tally.details`."""
        return dict(self.extra)

    def scores(self) -> FloatArray:
        """The main figure of each unit, its sign turned where less is better."""
        at = list(self.names).index(self.main_figure)
        values = ratio(self.numerators[:, at], self.denominators[:, at])
        return -values if self.lower(self.main_figure) else values

    @property
    def main_figure(self) -> str:
        """The one named, else the first."""
        return self.first or self.names[0]

    def lower(self, figure: str) -> bool:
        """See :meth:`Tally.lower`."""
        return figure.split("/")[0] in self.errors


def _kind(name: str) -> type[Tally]:
    """The class of a kind. A file can name modules of this package only."""
    if name not in _KINDS and name.isidentifier():
        for room in _ROOMS:
            with suppress(ModuleNotFoundError):
                import_module(f"manylens.{room}.{_HOMES.get(name, name)}")
                break
    return _KINDS[name]


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """``numerator / denominator``, NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=denominator != 0)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
