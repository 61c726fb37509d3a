"""How large pictures and objects are, and what is left of them at the size of the training."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from manylens.training.check.findings import Finding, Findings, some

_QUANTILES = {"least": 0.0, "5%": 0.05, "median": 0.5, "95%": 0.95, "most": 1.0}
_SMALL_SHARE = 0.2  # of a class's objects, from which a word is due
_STRETCH = 2.0
_STRETCH_SHARE = 0.1


@dataclass(frozen=True)
class ClassSizes:
    """Objects of one class, or of all.

    Attributes:
        count: Of objects.
        before: Quantiles of the square root of their area, in pixels of their pictures.
        after: Likewise in pixels of the training's size; empty where that is not known.
        small: Share that comes out smaller than one cell of the encoder's map.
        lost: How many come out smaller than a pixel.
    """

    count: int
    before: Mapping[str, float]
    after: Mapping[str, float]
    small: float
    lost: int


@dataclass(frozen=True)
class Sizes:
    """Sizes of pictures and objects, and the plan for resizing.

    Attributes:
        width: Quantiles, in pixels.
        height: Likewise.
        aspect: Quantiles of width by height.
        side: Of the squares that are trained on; None where it is not known.
        cell: Side of what one cell of the encoder's map sees, in pixels of the square.
        enlarged: Share of pictures that are smaller than the square, both sides.
        stretched: Share whose aspect changes by more than 2.
        objects: By class; the empty name stands for all.
    """

    width: Mapping[str, float]
    height: Mapping[str, float]
    aspect: Mapping[str, float]
    side: int | None
    cell: int
    enlarged: float
    stretched: float
    objects: Mapping[str, ClassSizes]

    @property
    def side_for_most(self) -> int | None:
        """The side, a multiple of a cell, at which 95 % of the objects are a cell or more; None where nothing says."""
        everything = self.objects.get("")
        if everything is None or self.side is None:
            return None
        return int(np.ceil(self.side / max(everything.after["5%"], 1e-6))) * self.cell

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "width": dict(self.width),
            "height": dict(self.height),
            "aspect": dict(self.aspect),
            "side": self.side,
            "cell": self.cell,
            "enlarged": self.enlarged,
            "stretched": self.stretched,
            "objects": {
                name: {**vars(one), "before": dict(one.before), "after": dict(one.after)}
                for name, one in self.objects.items()
            },
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        if not self.width:
            return
        size = " to ".join(f"{self.width[at]:.0f} x {self.height[at]:.0f}" for at in ("5%", "95%"))
        plan = "" if self.side is None else f"; resized to {self.side} x {self.side}, {self.enlarged:.0%} enlarged"
        yield f"sizes: {size} pixels (5 to 95 %), median {self.width['median']:.0f} x {self.height['median']:.0f}{plan}"
        everything = self.objects.get("")
        if everything is not None:
            after = "" if self.side is None else f", {everything.after['median']:.0f} at {self.side}"
            yield f"objects: {everything.count}, median side {everything.before['median']:.0f} pixels{after}"


@dataclass
class SizeCounts:
    """Sizes as records come by: 8 bytes a picture, 12 an object.

    Attributes:
        side: Of the squares that are trained on.
        cell: As in :class:`Sizes`.
    """

    side: int | None
    cell: int
    _widths: array[int] = field(default_factory=lambda: array("i"))
    _heights: array[int] = field(default_factory=lambda: array("i"))
    _classes: array[int] = field(default_factory=lambda: array("i"))
    _areas: array[float] = field(default_factory=lambda: array("f"))
    _shares: array[float] = field(default_factory=lambda: array("f"))
    _names: dict[str, int] = field(default_factory=dict)

    def add(self, width: int, height: int, objects: Sequence[tuple[str, float]]) -> None:
        """Take a picture and its objects: class and area in pixels."""
        self._widths.append(width)
        self._heights.append(height)
        for name, area in objects:
            self._classes.append(self._names.setdefault(name, len(self._names)))
            self._areas.append(area)
            self._shares.append(area / (width * height))

    def sizes(self) -> Sizes:
        """What was measured."""
        widths, heights = np.asarray(self._widths, np.float64), np.asarray(self._heights, np.float64)
        enlarged = stretched = 0.0
        if self.side is not None and len(widths):
            enlarged = float(np.mean(np.maximum(widths, heights) < self.side))
            stretched = float(np.mean(np.maximum(widths / heights, heights / widths) > _STRETCH))
        return Sizes(
            _quantiles(widths),
            _quantiles(heights),
            _quantiles(widths / heights),
            self.side,
            self.cell,
            enlarged,
            stretched,
            self._objects(),
        )

    def _objects(self) -> dict[str, ClassSizes]:
        classes = np.asarray(self._classes)
        before = np.sqrt(np.asarray(self._areas, np.float64))
        after = np.sqrt(np.asarray(self._shares, np.float64)) * (self.side or 0)
        if not len(classes):
            return {}
        found = {"": self._of(before, after)}
        for name, code in sorted(self._names.items()):
            if name:
                found[name] = self._of(before[classes == code], after[classes == code])
        return found

    def _of(self, before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]) -> ClassSizes:
        if self.side is None:
            return ClassSizes(len(before), _quantiles(before), {}, 0.0, 0)
        small = float(np.mean(after < self.cell))
        return ClassSizes(len(before), _quantiles(before), _quantiles(after), small, int((after < 1).sum()))


def judge(sizes: Sizes, findings: Findings) -> None:
    """Say what the training's size does to small objects and to the aspect of pictures."""
    everything = sizes.objects.get("")
    if everything is not None and everything.lost:
        findings.warn(
            Finding(
                "vanishing",
                f"objects: {everything.lost} of {everything.count} are smaller than a pixel at {sizes.side}",
                "train at a larger side, or on tiles",
                everything.lost,
            )
        )
    small = [name for name, one in sizes.objects.items() if name and one.small >= _SMALL_SHARE]
    if not [name for name in sizes.objects if name] and everything is not None and everything.small >= _SMALL_SHARE:
        small = [""]
    if small:
        worst = max(small, key=lambda name: sizes.objects[name].small)
        of = f"class {worst!r}" if worst else "objects"
        more = f" (and {len(small) - 1} more)" if len(small) > 1 else ""
        findings.warn(
            Finding(
                "small-objects",
                f"{of}{more}: {sizes.objects[worst].small:.0%} come out smaller than a cell of {sizes.cell} pixels at "
                f"side {sizes.side}",
                f"train on tiles, or at a larger side; at {sizes.side_for_most} 95 % of all objects are a cell or more",
                len(small),
                some(small),
            )
        )
    if sizes.stretched >= _STRETCH_SHARE:
        findings.warn(
            Finding(
                "stretched",
                f"pictures: {sizes.stretched:.0%} are more than twice as long as wide, and become squares",
                "cut them into parts that are nearer to squares",
            )
        )


def _quantiles(values: npt.NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        return {}
    return {
        name: float(found) for name, found in zip(_QUANTILES, np.quantile(values, [*_QUANTILES.values()]), strict=True)
    }
