"""Columns of every type, whose type becomes known on the way."""

import enum
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.data import Annotation, DataError, Dataset, Problems, Record, tables
from manylens.data.columns import canonical, kind_of, plain


class Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (np.bool_(True), True),
        (np.int32(3), 3),
        (np.float32(0.5), 0.5),
        (2**70, str(2**70)),
        (Colour.RED, "red"),
        (Path("a/b"), "a/b"),
        (("a", "b"), ["a", "b"]),
        ({"b", "a"}, ["a", "b"]),
        (np.array([1, 2]), [1, 2]),
        ([1, "a"], '[1, "a"]'),
        ([True], "[true]"),
        ({"b": 1, "a": [2]}, '{"a": [2], "b": 1}'),
        ([], []),
    ],
)
def test_plain(value, expected):
    assert plain(value) == expected
    assert type(plain(value)) in (type(expected), Colour)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([], ""),
        ([None], ""),
        ([True, None], "bool"),
        ([1, 2], "int"),
        ([1, 2.5], "float"),
        ([True, 1], "text"),
        (["a", 1], "text"),
        ([["a"], []], "texts"),
        ([[1], [2.5], []], "numbers"),
        ([[1], ["a"]], "text"),
        ([["a"], "a"], "text"),
    ],
)
def test_kind_of(values, kind):
    assert kind_of(values) == kind


@pytest.mark.parametrize(("one", "other"), [(3, 3.0), (float("nan"), float("nan")), ([1, 2], [1.0, 2.0])])
def test_canonical_is_blind_to_the_type(one, other):
    assert canonical(one) == canonical(other)


def dataset(values, problems=None):
    rows = (Record(str(i), Path("p"), columns={} if one is None else {"c": one}) for i, one in enumerate(values))
    return Dataset.of(rows, problems=problems)


@pytest.mark.parametrize("group", [2, 3, 100])
@pytest.mark.parametrize(
    ("values", "kept", "mixed"),
    [
        ([None, None, None, None, 5], [None, None, None, None, 5], 0),
        ([1, 2, 3, 4, 0.5], [1.0, 2.0, 3.0, 4.0, 0.5], 0),
        ([1, 2, 3, 4, "x", "y", 7], ["1", "2", "3", "4", "x", "y", "7"], 1),
        (["x", "y", "z", True, None], ["x", "y", "z", "true", None], 1),
        ([["a"], [], None, ["b", "c"]], [["a"], [], None, ["b", "c"]], 0),
        ([["a"], "b", ["c"], 4], ['["a"]', "b", '["c"]', "4"], 1),
        ([[1, 2], [], [0.5]], [[1.0, 2.0], [], [0.5]], 0),
    ],
)
def test_types_that_become_known_late(monkeypatch, tmp_path, group, values, kept, mixed):
    monkeypatch.setattr(tables, "GROUP", group)
    problems = Problems()
    ds = dataset(values, problems)
    for one in (ds, ds.save(tmp_path / "saved")):
        assert one.values("c") == kept
        assert [record.columns.get("c") for record in one.records(batch=2)] == kept
        assert [type(value) for value in one.values("c")] == [type(value) for value in kept]
    assert problems.counts.get("mixed column", 0) == mixed
    assert problems.left_out == 0


def test_mixed_columns_are_errors_under_strict():
    with pytest.raises(DataError, match="column 'c': holds int and text"):
        dataset([1, "x"], Problems(strict=True))


value = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-2, 2, width=16) | st.text("ab", max_size=2)
columns = st.dictionaries(st.sampled_from(["a", "id", "file", "column:id"]), value, max_size=3)


@given(st.lists(st.tuples(columns, st.lists(columns, max_size=3)), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_whatever_comes_in_comes_out(rows):
    counter = itertools.count()
    given_rows = []
    for columns, parts in rows:
        annotations = tuple(Annotation(str(next(counter)), columns=one) for one in parts)
        given_rows.append(Record(str(len(given_rows)), Path("p"), annotations=annotations, columns=columns))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "GROUP", 3)
        found = list(Dataset.of(given_rows).records(batch=2))
    assert [one.id for one in found] == [one.id for one in given_rows]

    parts_before, parts_after = ([part for one in side for part in one.annotations] for side in (given_rows, found))
    assert [one.id for one in parts_after] == [one.id for one in parts_before]
    assert pure(found, given_rows) == pure(given_rows, given_rows)
    assert pure(parts_after, parts_before) == pure(parts_before, parts_before)


def pure(holders, of):
    """What each holds in its columns; where a column has mixed types in ``of``, whether it holds anything."""
    types = {}
    for name, value in itertools.chain.from_iterable(one.columns.items() for one in of):
        types.setdefault(name, set()).add({int: float}.get(type(value), type(value)) if value is not None else None)
    mixed = {name for name, found in types.items() if len(found - {None}) > 1}
    known = [{name: value for name, value in one.columns.items() if value is not None} for one in holders]
    return [{name: name in mixed or value for name, value in one.items()} for one in known]
