"""The formats of data sets, in and out: each a module with ``read`` and ``write``, loaded on first use.

A format is a module of this folder with two functions:

- ``read(source: Path, images: Path | None, problems: Problems) -> Source`` looks at the file or folder and gives the
  categories at once and the records as a stream. It checks only what is peculiar to its format; what every format
  shares (missing pictures, boxes outside, masks of another size, unknown categories, duplicate ids) is checked
  afterwards, once for all, in :mod:`manylens.data.check`.
- ``write(dataset: Dataset, target: Path) -> Path`` writes the data set in that format and gives what it wrote.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from manylens.data.problems import DataError, Problems
from manylens.data.records import Category, Record

if TYPE_CHECKING:
    from manylens.data.dataset import Dataset

OWN = "manylens"
FOREIGN = ("coco", "panoptic", "folders", "masks", "csv")
FORMATS = (OWN, *FOREIGN)
_MODULES = {"csv": "table"}  # where the module is not named as the format


@dataclass(frozen=True)
class Source:
    """What a reader gives.

    Attributes:
        categories: All classes, in the order of the file.
        records: The records, as a stream that is gone through once; ids need not be unique yet.
        name: Of the data set.
    """

    categories: tuple[Category, ...]
    records: Iterable[Record]
    name: str


class Format(Protocol):
    """A module that reads and writes one format."""

    def read(self, source: Path, images: Path | None, problems: Problems) -> Source:
        """Open a file or folder of this format; ``images`` is the folder that its file names are relative to."""
        ...

    def write(self, dataset: Dataset, target: Path) -> Path:
        """Write a data set in this format."""
        ...


def get(name: str) -> Format:
    """The module of a format other than our own.

    Raises:
        DataError: There is no such format.
    """
    if name not in FOREIGN:
        raise DataError(f"format {name!r}: not known", f"name one of {', '.join(FORMATS)}")
    return cast(Format, import_module(f"{__name__}.{_MODULES.get(name, name)}"))


def recognise(source: Path) -> str:
    """Which of :data:`FORMATS` a file or folder is in.

    Raises:
        DataError: It is in none, or is not there.
    """
    from manylens.data.formats.recognition import recognise

    return recognise(source)
