"""The data set: opened lazily, seen in parts, split, saved, changed into other formats."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.data import selection, store
from manylens.data.check import checked, unique
from manylens.data.describe import describe
from manylens.data.fingerprint import fingerprint
from manylens.data.places import Places
from manylens.data.problems import DataError, Problems
from manylens.data.records import Category, Record
from manylens.data.selection import Splits
from manylens.data.splits import assigned, check_strata
from manylens.data.tables import Rows

if TYPE_CHECKING:
    import pyarrow as pa

ANNOTATIONS = "annotations"
"""What :meth:`Dataset.split` calls the categories of a record's annotations."""

_FIELDS = ("id", "split", "label", "width", "height", "file")


class Dataset:
    """Pictures with labels, masks, splits and any columns; rows stream, and no picture is read.

    Make one with :meth:`read` (any format, each row checked), :meth:`open` (our own folder, at once) or :meth:`of`
    (records). It never changes: :meth:`select` and :meth:`split` give another view of the same rows.

    Attributes:
        name: Of the data set.
        root: Its folder, where it is of our own form.
        categories: Classes of things and stuff.
        problems: What was wrong as it was read.
        columns: Names of what records hold beyond their fields.
        annotation_columns: Likewise of annotations.
    """

    def __init__(
        self,
        rows: store.Store,
        categories: tuple[Category, ...],
        name: str,
        problems: Problems,
        *,
        view: Rows | None = None,
        splits: Splits | None = None,
    ) -> None:
        self._store, self._view, self._splits = rows, view, splits
        self.name, self.categories, self.problems = name, categories, problems
        self.root = rows.base
        self.columns = tuple(rows.kinds)
        self.annotation_columns = tuple(rows.annotation_kinds)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Dataset:
        """Open a folder of our own form; neither rows nor pictures are read.

        Raises:
            DataError: It is none, or is damaged.
        """
        rows, name, categories = store.load(Path(folder))
        return cls(rows, categories, name, Problems())._filled()

    @classmethod
    def read(
        cls,
        source: str | os.PathLike[str],
        *,
        images: str | os.PathLike[str] | None = None,
        format: str | None = None,
        strict: bool = False,
    ) -> Dataset:
        """Read labels of any format; every row is checked, and what is wrong stands in ``problems``.

        Args:
            source: Our own folder, a COCO file (instances or panoptic), a folder with a folder a class, a folder of
                mask PNGs, or a CSV file.
            images: Folder that the names of pictures are relative to; by default the reader looks where they use to be.
            format: One of ``manylens``, ``coco``, ``panoptic``, ``folders``, ``masks``, ``csv``; recognised by default.
            strict: Whether the first row that is wrong is an error.

        Raises:
            DataError: It is of no format, cannot be read, or no row is right.
        """
        from manylens.data import formats

        path = Path(source)
        if not path.exists():
            raise DataError(f"{source}: there is no such file or folder", "give a file of labels or a folder")
        if format is None:
            format = formats.OWN if (path / store.HEADER).is_file() else formats.recognise(path)
        problems = Problems(strict=strict)
        if format == formats.OWN:
            opened = cls.open(path.parent if path.name == store.HEADER else path)
            for _ in checked(opened.records(), opened.categories, problems):
                pass
            if not problems:
                return opened
            problems = Problems()
            stream, categories, name = opened.records(), opened.categories, opened.name
        else:
            found = formats.get(format).read(path, None if images is None else Path(images), problems)
            stream, categories, name = iter(found.records), found.categories, found.name
        right = checked(stream, categories, problems)
        return cls(store.collect(right, problems), categories, name, problems)._with_categories()._filled()

    @classmethod
    def of(
        cls,
        records: Iterable[Record],
        categories: Iterable[Category] = (),
        *,
        name: str = "",
        problems: Problems | None = None,
    ) -> Dataset:
        """Make one of records; few stay in memory, many go to temporary files.

        Args:
            records: Gone through once. Columns that are None are not kept. The rows are taken as they are: only
                :meth:`read` and :meth:`check` look for boxes outside and the like.
            categories: All classes; by default the names that occur, sorted.
            name: Of the data set.
            problems: Takes columns of mixed types, which are kept as text.

        Raises:
            DataError: There is no record, or two have the same id.
        """
        problems = Problems() if problems is None else problems
        rows = store.collect(unique(records), problems)
        return cls(rows, tuple(categories), name, problems)._with_categories()._filled()

    def __len__(self) -> int:
        return self._store.images.rows if self._view is None else len(self._view)

    def __iter__(self) -> Iterator[Record]:
        return self.records()

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {len(self)} records, {len(self.categories)} categories)"

    @cached_property
    def splits(self) -> dict[str, int]:
        """Records of each split; the empty name counts those of none."""
        return self._split_codes().counts()

    @property
    def annotations(self) -> int:
        """How many annotations there are."""
        if self._view is None:
            return self._store.annotations.rows
        offsets = self._store.offsets
        return int((offsets[self._view + 1] - offsets[self._view]).sum())

    def records(self, *, batch: int = 1024) -> Iterator[Record]:
        """The records with their annotations, in the order in which they are stored.

        Args:
            batch: How many are held in memory.
        """
        found = self._store.records(self._rows(), batch)
        if self._splits is None:
            return found
        return _with_splits(found, self._splits)

    def values(self, column: str) -> list[Any]:
        """A field (``id``, ``split``, ``label``, ...) or column of all records, in their order; None is unknown.

        Raises:
            DataError: There is no such column.
        """
        values: list[Any] = self.column(column).to_pylist()
        return values

    def categories_of(self) -> list[frozenset[str]]:
        """Names of the categories of each record's annotations; those that are not judged (``ignore``) do not count."""
        rows = self._rows()
        counts = self._store.offsets[rows + 1] - self._store.offsets[rows]
        named = self.annotation_column("category").to_pylist()
        ignored = self.annotation_column("ignore").to_pylist()
        pairs = iter(zip(named, ignored, strict=True))
        return [frozenset(name for name, ignore in islice(pairs, n) if name and not ignore) for n in counts.tolist()]

    def select(
        self,
        *,
        split: str | None = None,
        ids: Iterable[str] | None = None,
        where: Mapping[str, Any] | None = None,
        limit: int | None = None,
    ) -> Dataset:
        """A part of it, as a view: no row is read before it is asked for.

        Args:
            split: Only this split.
            ids: Only these.
            where: Only records that have these values in these columns; a list stands for any of its values.
            limit: Only so many of them, the first.

        Raises:
            DataError: There is no such split, id or column, or no record is left.
        """
        keep = np.ones(len(self), dtype=bool)
        if split is not None:
            keep &= selection.in_split(self._split_codes(), split)
        if ids is not None:
            keep &= selection.with_ids(self.column("id"), ids)
        selection.check_where(where or {}, (*_FIELDS, *self.columns))
        for name, value in (where or {}).items():
            keep &= selection.where_equal(name, self.column(name), value)
        if limit is not None and limit < 1:
            raise DataError(f"limit: {limit} records are none", "give 1 or more")
        if not keep.any():
            asked = [
                f"{name} {value!r}" for name, value in {"split": split, **(where or {})}.items() if value is not None
            ]
            raise DataError(f"{self.name or 'data set'}: no record has {' and '.join(asked)}", "ask for less at once")
        kept = np.flatnonzero(keep)[:limit]
        return self._viewed(kept)

    def split(
        self, fractions: Mapping[str, float], *, stratify: str | None = None, group: str | None = None, seed: int = 0
    ) -> Dataset:
        """The same records with new splits.

        Args:
            fractions: Share of each split, such as ``{"train": 0.8, "val": 0.2}``; they sum to 1.
            stratify: Column of classes, such as ``label``, of which each split gets its share; a column of lists holds
                several classes a record. ``annotations`` stands for the categories of a record's annotations.
            group: Column of what must not be parted, such as ``patient``.
            seed: Another seed is another split; the order of rows does not matter.

        Raises:
            DataError: There is no such column, or it holds no classes; the shares do not sum to 1.
        """
        strata = None if stratify is None else self._strata(stratify)
        groups = None if group is None else self.values(group)
        codes = assigned(self.values("id"), fractions, strata=strata, groups=groups, seed=seed)
        return self._like(self._view, Splits(tuple(fractions), codes))

    def save(self, folder: str | os.PathLike[str], *, copy: bool = False) -> Dataset:
        """Write it in our own form: ``dataset.json``, ``images.parquet``, ``annotations.parquet``.

        Args:
            folder: Made where it is missing. A data set that stands there is replaced once all is written.
            copy: Whether pictures that lie elsewhere are copied into it; else they are named where they lie.

        Returns:
            The data set as it is saved.

        Raises:
            OutputError: It cannot be written; what stood there is untouched.
        """
        target = Path(folder)
        places = Places(target, copy)
        try:
            rows = places.placed(self.records())
            name = self.name or target.resolve().name
            store.save(rows, target, name=name, categories=self.categories, problems=self.problems)
        except BaseException:
            places.undo()
            raise
        saved = Dataset.open(target)
        saved.problems = self.problems
        return saved

    def export(self, target: str | os.PathLike[str], format: str) -> Path:
        """Write it in any format: ``coco``, ``panoptic``, ``folders``, ``masks``, ``csv``, or our own.

        Raises:
            DataError: There is no such format, or it cannot hold what is here.
            OutputError: It cannot be written.
        """
        from manylens.data import formats

        if format == formats.OWN:
            self.save(target)
            return Path(target)
        return formats.get(format).write(self, Path(target))

    def check(self) -> Problems:
        """Look at each row as :meth:`read` does: what is wrong, and what was as it was read."""
        problems = Problems()
        problems.extend(self.problems)
        for _ in checked(self.records(), self.categories, problems):
            pass
        return problems

    def fingerprint(self, *, pixels: bool = True) -> str:
        """The content hash: 64 hexadecimal digits; order, place on the disk and format do not matter.

        Args:
            pixels: Whether the bytes of the pictures count; without them no picture is opened.

        Raises:
            DataError: A picture is missing.
        """
        return fingerprint(self.records(), self.categories, pixels=pixels)

    def describe(self) -> dict[str, Any]:
        """Counts by split, label and category, and what each column holds, as plain values for JSON."""
        return describe(self)

    def column(self, name: str) -> pa.ChunkedArray:
        """A field or column of all records as Arrow, the fast way where there are many.

        Raises:
            DataError: There is no such column.
        """
        import pyarrow as pa

        selection.known(name, (*_FIELDS, *self.columns))
        if name == "split" and self._splits is not None:
            held = pa.DictionaryArray.from_arrays(pa.array(self._splits.codes), pa.array(self._splits.names))
            return pa.chunked_array([held.dictionary_decode()])
        column = self._store.column(name)
        return column if self._view is None else column.take(pa.array(self._view))

    def annotation_column(self, name: str) -> pa.ChunkedArray:
        """A field or column of all annotations as Arrow.

        Raises:
            DataError: There is no such column.
        """
        import pyarrow as pa

        selection.known(name, (*store.ANNOTATION_FIELDS, *self.annotation_columns))
        column = self._store.annotation_column(name)
        return column if self._view is None else column.take(pa.array(self._store.annotation_rows(self._view)))

    def _strata(self, stratify: str) -> list[Any]:
        if stratify == ANNOTATIONS and ANNOTATIONS not in self.columns:
            held: list[Any] = self.categories_of()
            if not any(held):
                raise DataError(f"stratify {stratify!r}: no annotation has a category", "name a column of classes")
            return held
        values = self.values(stratify)
        check_strata(stratify, values)
        return values

    def _viewed(self, kept: Rows) -> Dataset:
        splits = None if self._splits is None else Splits(self._splits.names, self._splits.codes[kept])
        return self._like(self._rows()[kept], splits)

    def _like(self, view: Rows | None, splits: Splits | None) -> Dataset:
        return Dataset(self._store, self.categories, self.name, self.problems, view=view, splits=splits)

    def _rows(self) -> Rows:
        return np.arange(len(self), dtype=np.int64) if self._view is None else self._view

    def _split_codes(self) -> Splits:
        return self._splits if self._splits is not None else Splits.of(self.column("split"))

    def _filled(self) -> Dataset:
        if len(self):
            return self
        left_out = f"; {self.problems.left_out} rows were left out" if self.problems.left_out else ""
        first = next((f", the first: {one.message}" for one in self.problems if one.left_out), "")
        raise DataError(
            f"{self.name or 'data set'}: holds no record{left_out}{first}",
            "give the folder of the pictures (--images)" if self.problems.counts["missing image"] else "give labels",
        )

    def _with_categories(self) -> Dataset:
        """Categories that no one named are the names that occur."""
        if not self.categories and len(self):
            names = set(self._store.column("label").unique().to_pylist())
            names |= set(self._store.annotations.column("category").unique().to_pylist())
            names -= {"", None}
            self.categories = tuple(Category(i, name) for i, name in enumerate(sorted(names), 1))
        return self


def _with_splits(records: Iterator[Record], splits: Splits) -> Iterator[Record]:
    from dataclasses import replace

    for record, code in zip(records, splits.codes, strict=True):
        yield replace(record, split=splits.names[code])
