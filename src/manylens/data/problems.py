"""What is wrong with labels or predictions: each with its id, counted by kind, and an error where that is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from manylens.errors import UserError

KEPT_OF_A_KIND = 100
_LONGEST = 500


class DataError(UserError):
    """Labels or predictions are not what they should be."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: Such as ``missing image``, ``box outside``, ``empty mask``, ``duplicate id``, ``unknown category``.
        id: Of the image, annotation or prediction, as the file has it.
        message: One line that names the id and says what is wrong.
        left_out: Whether the row was left out; False where it was mended, such as a box that was clipped.
    """

    kind: str
    id: str
    message: str
    left_out: bool = True


class Problems:
    """Problems as they are met; bounded in memory: the first hundred of each kind are kept, all are counted.

    Args:
        strict: Raise at the first one.
    """

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict
        self.counts: Counter[str] = Counter()
        self.left_out = 0
        self._kept: dict[str, list[Problem]] = {}

    def add(self, kind: str, id: str | int, message: str, *, left_out: bool = True) -> None:
        """Take a problem down.

        Raises:
            DataError: When problems are errors (``--strict``).
        """
        if self.strict:
            raise DataError(_written(message), "mend the file, or leave --strict away to go on without it")
        self.counts[kind] += 1
        self.left_out += left_out
        kept = self._kept.setdefault(kind, [])
        if len(kept) < KEPT_OF_A_KIND:
            kept.append(Problem(kind, _written(str(id)), _written(message), left_out))

    def extend(self, others: Problems) -> None:
        """Take over what another list holds."""
        for problem in others:
            kept = self._kept.setdefault(problem.kind, [])
            if len(kept) < KEPT_OF_A_KIND:
                kept.append(problem)
        self.counts.update(others.counts)
        self.left_out += others.left_out

    def __iter__(self) -> Iterator[Problem]:
        for kept in self._kept.values():
            yield from kept

    def __len__(self) -> int:
        return sum(self.counts.values())

    def to_json(self) -> dict[str, Any]:
        """Counts by kind, how many rows were left out, and the problems that were kept."""
        return {"left_out": self.left_out, "counts": dict(self.counts), "problems": [asdict(one) for one in self]}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """What :meth:`to_json` gave."""
        made = cls()
        for row in body["problems"]:
            made._kept.setdefault(row["kind"], []).append(Problem(**row))
        made.counts.update(body["counts"])
        made.left_out = body["left_out"]
        return made


def _written(text: str) -> str:
    """Text that any file can hold, and no longer than a reader wants; half a character is written as its number."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
