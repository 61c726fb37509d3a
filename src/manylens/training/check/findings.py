"""What a check of the data found, and the report that is kept with the run."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from manylens.training.errors import TrainError

if TYPE_CHECKING:
    from manylens.training.check.copies import Copies
    from manylens.training.check.labels import Labels
    from manylens.training.check.sizes import SizeCounts, Sizes

EXAMPLES = 8
"""How many ids a finding names."""

ERRORS = ("one-label", "one-example", "held-out-only", "no-objects", "leak", "group-leak")
"""Kinds that stop a training, unless they are allowed."""

NOTHING = "no-training-data"
"""The kind that cannot be allowed."""


@dataclass(frozen=True)
class Finding:
    """One thing that the user should know.

    Attributes:
        kind: Such as ``leak``, ``one-example``, ``unreadable``.
        what: What is wrong, beginning with the name of the input at fault.
        remedy: What can be done about it.
        count: Of how many pictures, objects or groups this is true.
        examples: Some ids.
    """

    kind: str
    what: str
    remedy: str
    count: int = 1
    examples: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """One line: what, and the remedy."""
        return f"{self.what}; {self.remedy}" if self.remedy else self.what


class Findings:
    """Findings as they are met.

    Args:
        allow: Kinds of errors that the user takes for a warning.

    Raises:
        TrainError: There is no such kind of error.
    """

    def __init__(self, allow: Iterable[str] = ()) -> None:
        self.allow = frozenset(allow)
        for kind in sorted(self.allow - {*ERRORS}):
            near = difflib.get_close_matches(kind, ERRORS, 1)
            there = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(ERRORS)}"
            raise TrainError(f"check {kind!r}: cannot be allowed, there is no such kind", there)
        self.errors: list[Finding] = []
        self.warnings: list[Finding] = []

    def error(self, finding: Finding) -> None:
        """Take down what stops a training."""
        (self.warnings if finding.kind in self.allow else self.errors).append(finding)

    def warn(self, finding: Finding) -> None:
        """Take down what does not."""
        self.warnings.append(finding)


@dataclass(frozen=True)
class Report:
    """All that a check found.

    Attributes:
        errors: What stops the training.
        warnings: What the user should know.
        splits: Pictures of each split that can be used.
        left_out: Ids of pictures that cannot be used: not readable, without a label where one is needed, or of another
            size than their labels.
        labels: Examples of each class, where the task has classes.
        copies: Pictures that are there twice; None where they were not looked for.
        sizes: Of pictures and objects, and what the training's size makes of them.
        counts: What these are reckoned from.
    """

    errors: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    splits: Mapping[str, int]
    left_out: tuple[str, ...] = field(repr=False)
    labels: Labels | None
    copies: Copies | None
    sizes: Sizes
    counts: SizeCounts = field(repr=False)

    def stop(self, *, strict: bool = False) -> None:
        """Raise where the data does not allow a training.

        Args:
            strict: Whether warnings count too.

        Raises:
            TrainError: The first finding, how many more there are, and how it is allowed where it can be.
        """
        wrong = (*self.errors, *(self.warnings if strict else ()))
        if wrong:
            more = f" (and {many(len(wrong) - 1, 'more finding')})" if len(wrong) > 1 else ""
            raise TrainError(f"{wrong[0].what}{more}", f"{wrong[0].remedy}{self._allowing(wrong[0])}")

    def lines(self) -> list[str]:
        """All of it for people: errors, warnings, then figures."""
        return list(self._lines())

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "errors": [asdict(one) | {"examples": list(one.examples)} for one in self.errors],
            "warnings": [asdict(one) | {"examples": list(one.examples)} for one in self.warnings],
            "splits": dict(self.splits),
            "left_out": list(self.left_out),
            "labels": None if self.labels is None else self.labels.to_json(),
            "copies": None if self.copies is None else self.copies.to_json(),
            "sizes": self.sizes.to_json(),
        }

    def _allowing(self, finding: Finding) -> str:
        """How a finding is allowed, beside those that are already; empty where it cannot be."""
        if finding not in self.errors or finding.kind not in ERRORS:
            return ""
        already = (one.kind for one in self.warnings if one.kind in ERRORS)
        kinds = ",".join(dict.fromkeys((*already, finding.kind)))
        return f", or allow it with --set data.allow=[{kinds}]"

    def _lines(self) -> Iterator[str]:
        for name, findings in (("error", self.errors), ("warning", self.warnings)):
            for one in findings:
                ids = f" (such as {', '.join(one.examples[:3])})" if one.examples else ""
                yield f"{name}: {one.line}{ids}"
        counts = ", ".join(f"{name or 'no split'} {count}" for name, count in self.splits.items())
        yield f"pictures: {counts or 'none'}" + (f"; left out {len(self.left_out)}" if self.left_out else "")
        if self.labels is not None:
            yield from self.labels.lines()
        yield from self.sizes.lines()
        if self.copies is not None:
            yield from self.copies.lines()


def some(ids: Sequence[str]) -> tuple[str, ...]:
    """The first few, for :attr:`Finding.examples`."""
    return tuple(ids[:EXAMPLES])


def many(count: int, noun: str) -> str:
    """``1 picture``, ``3 pictures``; of nouns that take an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
