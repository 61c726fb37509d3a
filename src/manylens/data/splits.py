"""Splits of a data set: by share, alike in a column (strata), and with what belongs together kept together (groups).

A record may be of several classes at once, such as those of its instances: then the splits are alike in each of them.

Each record or group has its place in an order that a hash of the seed and its own name gives, so a split depends
neither on the order of rows nor on the machine.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from manylens.data.problems import DataError

Codes = npt.NDArray[np.int32]

_MANY = 0.5  # a column with more different values than this share of the records is no column of classes,
_FEW = 20  # unless they are few
_SEVERAL = (list, tuple, set, frozenset)


def assigned(
    ids: Sequence[str],
    fractions: Mapping[str, float],
    *,
    strata: Sequence[Any] | None = None,
    groups: Sequence[Any] | None = None,
    seed: int = 0,
) -> Codes:
    """Which split each record goes to.

    Without groups each stratum meets the shares to within one record. With groups the split that needs a group most,
    over all of its strata, gets it whole, the largest group first; shares are met as well as the groups allow.

    Where a record can be of several classes the shares of all classes are met as well as can be, by iterative
    stratification (Sechidis et al., 2011): the rarest class that is left is dealt out first, each record or group to
    the split that lacks most of that class.

    Args:
        ids: Of the records, unique.
        fractions: Share of each split, such as ``{"train": 0.8, "val": 0.2}``; they sum to 1.
        strata: Class of each record that every split shall hold alike; None is a class of its own. Or a set, list or
            tuple of its classes; records of none are a class of their own.
        groups: What each record belongs to and is never parted from; None belongs to nothing.
        seed: Of the order.

    Returns:
        int32 ``(records,)``: numbers in ``fractions``.

    Raises:
        DataError: The shares are not positive or do not sum to 1.
    """
    shares = _shares(fractions)
    names = ids
    if groups is not None:
        # A record of no group is a group by itself; the leading word keeps its name apart from those of groups.
        names = [f"id {id}" if one is None else f"group {one!r}" for id, one in zip(ids, groups, strict=True)]
    if strata is not None and any(isinstance(one, _SEVERAL) for one in strata):
        return _by_classes(names, shares, [_classes(one) for one in strata], seed)
    _, layer = _codes(["" if one is None else repr(one) for one in strata] if strata is not None else [""] * len(ids))
    return _by_record(ids, shares, layer, seed) if groups is None else _by_group(names, shares, layer, seed)


def check_strata(column: str, values: Sequence[Any]) -> None:
    """Raise where a column does not sort records into classes; a list stands for the classes that it holds.

    Raises:
        DataError: It holds nothing, or about as many values as there are records.
    """
    found = {one for value in values for one in _items(value)} - {None, ""}
    if not found:
        raise DataError(f"stratify {column!r}: no record has a value there", "name a column of classes")
    if len(found) > max(_MANY * len(values), _FEW):
        raise DataError(
            f"stratify {column!r}: holds {len(found)} different values among {len(values)} records",
            "name a column of classes",
        )


def _items(value: Any) -> Iterable[Any]:
    return value if isinstance(value, _SEVERAL) else (value,)


def _classes(value: Any) -> set[str]:
    """The classes of a record by name; of one that has none, the class of those."""
    return {repr(one) for one in _items(value) if one is not None} or {""}


def _shares(fractions: Mapping[str, float]) -> npt.NDArray[np.float64]:
    values = [float(share) for share in fractions.values()]
    for name, share in zip(fractions, values, strict=True):
        if not name or not (math.isfinite(share) and share > 0):
            raise DataError(f"split {name!r}: its share is {share:g}", "name each split and give it more than 0")
    if abs(sum(values) - 1) > 1e-6:
        raise DataError(
            f"splits: their shares sum to {sum(values):g}, not to 1", "give shares such as train=0.8 and val=0.2"
        )
    return np.asarray(values)


def _codes(names: Sequence[str]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The different names, sorted, and the number of each name among them."""
    found = sorted(set(names))
    numbers = {name: number for number, name in enumerate(found)}
    return found, np.fromiter((numbers[name] for name in names), dtype=np.int64, count=len(names))


def _keys(names: Sequence[str], seed: int) -> npt.NDArray[np.uint64]:
    """Two numbers of each name that look drawn by chance: ``(2, names)``, the keys of a sort, the second one first."""
    start = hashlib.sha256(f"{seed}|".encode())
    keys = bytearray()
    for name in names:
        one = start.copy()
        one.update(name.encode("utf-8", "surrogatepass"))
        keys += one.digest()[:16]
    return np.frombuffer(bytes(keys), dtype=">u8").reshape(-1, 2).T[::-1].astype(np.uint64)


def _by_record(ids: Sequence[str], shares: npt.NDArray[np.float64], layer: npt.NDArray[np.int64], seed: int) -> Codes:
    order = np.lexsort((*_keys(ids, seed), layer))
    codes = np.empty(len(ids), dtype=np.int32)
    owed = np.zeros(len(shares))  # what earlier strata were rounded away from, so that the whole comes out right too
    for rows in np.split(order, np.flatnonzero(np.diff(layer[order])) + 1):
        exact = shares * len(rows)
        counts = np.floor(exact + 1e-9).astype(np.int64)
        owed += exact - counts
        for _ in range(len(rows) - int(counts.sum())):
            # At most one more each: a share is met to within one record in every stratum.
            open_to = counts < np.ceil(exact - 1e-9)
            next_one = int(np.argmax(np.where(open_to, owed, -np.inf)))
            counts[next_one] += 1
            owed[next_one] -= 1
        codes[rows] = np.repeat(np.arange(len(shares), dtype=np.int32), counts)
    return codes


def _by_group(names: Sequence[str], shares: npt.NDArray[np.float64], layer: npt.NDArray[np.int64], seed: int) -> Codes:
    units, unit = _codes(names)
    sizes = np.bincount(unit)
    totals = np.bincount(layer).astype(np.float64)
    missing = shares[:, np.newaxis] * totals  # (splits, strata): what each still needs
    missing_all = shares * len(names)
    # The strata of each unit, with their counts, side by side.
    pairs, counts = np.unique(unit * len(totals) + layer, return_counts=True)
    strata = pairs % len(totals)
    starts = np.searchsorted(pairs // len(totals), np.arange(len(units) + 1))
    chosen = np.empty(len(units), dtype=np.int32)
    for one in np.lexsort((*_keys(units, seed), -sizes)):
        part = slice(starts[one], starts[one + 1])
        of, count = strata[part], counts[part]
        # How much the squared distance from the shares grows, in each stratum and in all, each by its size.
        growth = ((count - 2 * missing[:, of]) * count / totals[of]).sum(axis=1)
        growth += (sizes[one] - 2 * missing_all) * sizes[one] / len(names)
        best = int(np.argmin(growth))
        chosen[one] = best
        missing[best, of] -= count
        missing_all[best] -= sizes[one]
    return chosen[unit]


def _by_classes(
    names: Sequence[str], shares: npt.NDArray[np.float64], classes: Sequence[Iterable[str]], seed: int
) -> Codes:
    units, unit = _codes(names)
    sizes = np.bincount(unit)
    held = [sorted(one) for one in classes]
    lengths = np.fromiter(map(len, held), dtype=np.int64, count=len(held))
    found, code = _codes(list(chain.from_iterable(held)))
    # The classes of each unit, with their counts of records, side by side; and the units of each class in their order.
    pairs, counts = np.unique(np.repeat(unit, lengths) * len(found) + code, return_counts=True)
    owner, of_class = np.divmod(pairs, len(found))
    starts = np.searchsorted(owner, np.arange(len(units) + 1))
    rank = np.empty(len(units), dtype=np.int64)
    rank[np.lexsort((*_keys(units, seed), -sizes))] = np.arange(len(units))
    by_class = np.lexsort((rank[owner], of_class))
    members = np.split(owner[by_class], np.cumsum(np.bincount(of_class))[:-1])

    totals = np.bincount(of_class, counts).astype(np.int64)
    left = totals.copy()  # records of each class that are not dealt out
    missing = shares[:, np.newaxis] * totals
    owed = np.zeros(len(shares))  # by what is dealt out, so that the whole comes out right too
    chosen = np.full(len(units), -1, dtype=np.int32)
    while left.any():
        rarest = int(np.argmin(np.where(left > 0, left, np.iinfo(np.int64).max)))
        for one in members[rarest]:
            if chosen[one] >= 0:
                continue
            owed += shares * sizes[one]
            best = _neediest(missing[:, rarest], owed, first=left[rarest] == totals[rarest])
            part = slice(starts[one], starts[one + 1])
            chosen[one] = best
            missing[best, of_class[part]] -= counts[part]
            owed[best] -= sizes[one]
            left[of_class[part]] -= counts[part]
    return chosen[unit]


def _neediest(missing: npt.NDArray[np.float64], owed: npt.NDArray[np.float64], *, first: bool) -> int:
    """The split that lacks most of a class; where none lacks a whole record more, the one to which most is owed in all.

    The paper goes by fractions to the end, and so sends all records of many small classes to the largest split. Here
    only the first record of a class goes there for sure: what no training split holds could not be learnt.
    """
    lacks = np.round(missing, 6)  # so that the last bit of a fraction decides nothing
    if first or lacks.max() >= 1:
        return int(np.lexsort((-owed, -lacks))[0])
    return int(np.argmax(np.where(lacks > 0, owed, -np.inf)))
