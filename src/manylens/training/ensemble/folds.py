"""k folds: each record is held out once, classes alike in all folds, and groups in one piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from manylens.data import Dataset
from manylens.data.splits import assigned, check_strata
from manylens.training.errors import TrainError


def fold_numbers(
    ids: Sequence[str],
    folds: int,
    *,
    strata: Sequence[Any] | None = None,
    groups: Sequence[Any] | None = None,
    seed: int = 0,
) -> npt.NDArray[np.int64]:
    """The fold of each record, from 0; see :func:`manylens.data.splits.assigned` for how they are drawn.

    Args:
        ids: Of the records, unique.
        folds: 2 or more.
        strata: Class of each record, of which every fold gets its share.
        groups: What each record belongs to and is never parted from.
        seed: Of the order.

    Returns:
        int64 ``(records,)``.

    Raises:
        TrainError: There are fewer records or groups than folds, or fewer than two folds.
    """
    if folds < 2:
        raise TrainError(f"folds {folds}: too few", "give 2 or more")
    units = len(ids) if groups is None else len({*(one for one in groups if one is not None)}) + [*groups].count(None)
    if units < folds:
        what = "records" if groups is None else "groups"
        raise TrainError(f"folds {folds}: there are only {units} {what}", f"give at most {units}")
    shares = {str(number): 1 / folds for number in range(folds)}
    return assigned(ids, shares, strata=strata, groups=groups, seed=seed).astype(np.int64)


def fold(
    dataset: Dataset, number: int, folds: int, *, stratify: str | None = None, group: str | None = None, seed: int = 0
) -> tuple[Dataset, Dataset]:
    """What is learned from and what is held out in one fold.

    Args:
        dataset: What is parted: the training and validation records; a test split stays out of it.
        number: Of the fold, from 0.
        folds: How many there are.
        stratify: Column of classes.
        group: Column of what must not be parted.
        seed: Of the order; the same for all folds of one ensemble.

    Raises:
        TrainError: See :func:`fold_numbers`; or there is no such fold.
    """
    if not 0 <= number < folds:
        raise TrainError(f"fold {number}: there are {folds}", f"name one of 0 to {folds - 1}")
    strata = None if stratify is None else dataset.values(stratify)
    if stratify is not None and strata is not None:
        check_strata(stratify, strata)
    groups = None if group is None else dataset.values(group)
    ids = dataset.values("id")
    found = fold_numbers(ids, folds, strata=strata, groups=groups, seed=seed)
    parts = [[id for id, one in zip(ids, found, strict=True) if (one == number) == held] for held in (False, True)]
    for held, part in zip((False, True), parts, strict=True):
        if not part:
            where = "held out" if held else "left to learn from"
            raise TrainError(f"fold {number}: has no record {where}", "use fewer folds, or another group column")
    return dataset.select(ids=parts[0]), dataset.select(ids=parts[1])
