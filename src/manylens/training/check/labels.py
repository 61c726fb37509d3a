"""How many examples of each class there are in each split, and what that allows to learn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from manylens.training.check.findings import Finding, Findings, many, some

IMBALANCE = 10.0
"""Ratio of the most to the least frequent class from which a word is due."""
_SHOWN = 12


@dataclass(frozen=True)
class Labels:
    """Examples of classes.

    Attributes:
        of: ``picture`` where a picture has one label, ``object`` where classes are of its parts.
        counts: By split, then by class: pictures, or objects.
        train: Name of the split that is learned from.
        known: All classes, in the order of the data set.
    """

    of: str
    counts: Mapping[str, Mapping[str, int]]
    train: str
    known: tuple[str, ...]

    @property
    def learned(self) -> dict[str, int]:
        """Training examples of each class that has any, the most frequent first."""
        found = self.counts.get(self.train, {})
        return dict(
            sorted(((name, count) for name, count in found.items() if count), key=lambda one: (-one[1], one[0]))
        )

    @property
    def ratio(self) -> float:
        """Training examples of the most frequent class by those of the least frequent; 1 for one class, 0 for none."""
        found = self.learned.values()
        return max(found) / min(found) if found else 0.0

    @property
    def majority(self) -> float:
        """Share of the most frequent class among the training examples: what always answering it would score."""
        found = self.learned.values()
        return max(found) / sum(found) if found else 0.0

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "of": self.of,
            "counts": {split: dict(counts) for split, counts in self.counts.items()},
            "ratio": self.ratio,
            "majority": self.majority,
        }

    def lines(self) -> Iterator[str]:
        """For people: a line a split, and the balance."""
        for split, counts in self.counts.items():
            ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
            more = f", and {len(ordered) - _SHOWN} more classes" if len(ordered) > _SHOWN else ""
            told = ", ".join(f"{name} {count}" for name, count in ordered[:_SHOWN])
            yield f"{self.of}s of {split or 'no split'}: {told or 'none'}{more}"
        if len(self.learned) > 1:
            yield f"balance: 1:{self.ratio:.3g}, the most frequent class is {self.majority:.1%} of the training"


@dataclass
class LabelCounts:
    """Counts as records come by.

    Attributes:
        of: As in :class:`Labels`.
    """

    of: str
    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, split: str, names: Sequence[str]) -> None:
        """Take the classes of one record."""
        self.counts.setdefault(split, Counter()).update(names)

    def labels(self, train: str, known: Sequence[str]) -> Labels:
        """What was counted."""
        found = {split: dict(counts) for split, counts in self.counts.items()}
        return Labels(self.of, found, train, tuple(known))


def judge(labels: Labels, findings: Findings) -> None:
    """Say what the counts do not allow.

    Of pictures' labels, two classes with two examples each are the least; of objects, one class is enough, and a
    single example is only a warning, as detectors learn most of an object from the others.
    """
    pictures = labels.of == "picture"
    learned, train = labels.learned, labels.train
    held = Counter[str]()
    for split, counts in labels.counts.items():
        if split != train:
            held.update(counts)
    everywhere = set(learned) | {name for name, count in held.items() if count}
    if pictures and len(everywhere) == 1:
        (only,) = everywhere
        findings.error(
            Finding(
                "one-label",
                f"labels: all {many(sum(learned.values()) + held.total(), 'picture')} are {only!r}",
                "give pictures of two or more classes",
            )
        )
        return
    unseen = sorted(name for name in everywhere if name not in learned)
    if unseen:
        count = sum(held[name] for name in unseen)
        findings.error(
            Finding(
                "held-out-only",
                f"class {_named(unseen)}: no {labels.of} of split {train!r} is of it, {many(count, labels.of)} of "
                f"other splits {'is' if count == 1 else 'are'}",
                f"split again with --stratify {'label' if pictures else 'annotations'}, or leave the class out",
                len(unseen),
                some(unseen),
            )
        )
    _judge_single(labels, held, findings)
    none = [name for name in labels.known if name not in everywhere] if everywhere else []
    if none:
        findings.warn(
            Finding(
                "no-example",
                f"class {_named(none)}: has no example",
                "leave it out, or give some",
                len(none),
                some(none),
            )
        )
    if held:
        unjudged = [name for name in learned if not held[name]]
        if unjudged and len(unjudged) < len(learned):
            findings.warn(
                Finding(
                    "never-judged",
                    f"class {_named(unjudged)}: has no {labels.of} outside of split {train!r}, so nothing tells "
                    "whether it is learned",
                    f"split again with --stratify {'label' if pictures else 'annotations'}",
                    len(unjudged),
                    some(unjudged),
                )
            )
    if labels.ratio >= IMBALANCE:
        rarest = list(learned)[-1]
        findings.warn(
            Finding(
                "imbalance",
                f"classes: {next(iter(learned))!r} has {next(iter(learned.values()))} training examples, "
                f"{rarest!r} has {learned[rarest]} (1:{labels.ratio:.3g})",
                "try imbalance.loss or imbalance.sampling, and look at each class's own figure",
                len(learned),
            )
        )


def _judge_single(labels: Labels, held: Counter[str], findings: Findings) -> None:
    single = [name for name, count in labels.learned.items() if count == 1]
    alone = [name for name in single if not held[name]]
    if alone and labels.of == "picture":
        findings.error(
            Finding(
                "one-example",
                f"class {_named(alone)}: has one example",
                "give it two or more, or leave it out",
                len(alone),
                some(alone),
            )
        )
        single = [name for name in single if held[name]]
    if single:
        findings.warn(
            Finding(
                "few-examples",
                f"class {_named(single)}: has one example in split {labels.train!r}",
                "give it more, or expect little of it",
                len(single),
                some(single),
            )
        )


def _named(names: Sequence[str]) -> str:
    return repr(names[0]) + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
