"""What must hold of every tally."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from manylens.data.records import Record
from manylens.evaluation.tally import Tally

Pairs = Sequence[tuple[Record, Any]]


def tally_of(measure: Any, pairs: Pairs) -> Any:
    for record, prediction in pairs:
        measure.add(record, prediction)
    return measure.tally()


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-6, atol=1e-9, err_msg=name)


def order_and_batches_do_not_matter(make: Callable[[], Any], pairs: Pairs) -> None:
    """Another order of pictures changes no figure, nor does asking for all weightings at once."""
    tally = tally_of(make(), pairs)
    turned = tally_of(make(), pairs[::-1])
    assert turned.all().keys() == tally.all().keys()
    for name, value in tally.all().items():
        np.testing.assert_allclose(turned.all()[name], value, rtol=1e-6, err_msg=name)
    weights = np.random.default_rng(0).integers(0, 4, (5, len(tally.units))).astype(float)
    together = tally.figures(weights)
    for i, row in enumerate(weights):
        same({name: values[i : i + 1] for name, values in together.items()}, tally.figures(row[None]))
    nothing = tally.figures(np.zeros((2, len(tally.units))))
    assert all(np.isnan(values).all() and values.shape == (2,) for values in nothing.values())


def a_weight_repeats(make: Callable[[], Any], pairs: Pairs, counts: Sequence[int]) -> None:
    """A whole weight k is the unit k times (each picture one unit)."""
    tally = tally_of(make(), pairs)
    repeated = tally_of(
        make(),
        [
            (replace(record, id=f"{record.id}#{i}"), prediction)
            for (record, prediction), count in zip(pairs, counts, strict=True)
            for i in range(count)
        ],
    )
    same(
        tally.figures(np.array([counts], float)),
        repeated.figures(np.ones((1, len(repeated.units)))),
    )


def survives_a_file(tally: Tally, folder: Path) -> None:
    again = Tally.load(tally.save(folder / "tally.npz"))
    assert type(again) is type(tally)
    assert again.main_figure == tally.main_figure
    assert list(again.units.ids) == list(tally.units.ids)
    assert {f: again.lower(f) for f in again.all()} == {f: tally.lower(f) for f in tally.all()}
    same(again.figures(np.ones((1, len(again.units)))), tally.figures(np.ones((1, len(tally.units)))))
