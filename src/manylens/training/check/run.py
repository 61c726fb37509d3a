"""The check: every picture is read once, on all cores, and rows stream."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import NamedTuple

from manylens.data import Dataset
from manylens.data.check import checked
from manylens.data.looks import KeptLooks, Look
from manylens.data.problems import Problems
from manylens.data.records import Record
from manylens.errors import MediaError
from manylens.runtime.executors import Failure
from manylens.runtime.executors.local import LocalExecutor
from manylens.training.check import copies, labels, sizes
from manylens.training.check.findings import NOTHING, Finding, Findings, Report, many, some
from manylens.training.errors import TrainError

Progress = Callable[[float, str], None]

_CLASSES = {"classify": "picture", "detect": "object", "segment": "object"}
"""What has the classes of a task; other tasks have none."""
_AHEAD = 16
_SEARCH = 0.1  # share of the progress that is kept for the search of copies


def check(
    dataset: Dataset,
    *,
    task: str,
    train: str = "train",
    side: int | None = None,
    cell: int = 14,
    group: str | None = None,
    allow: Collection[str] = (),
    unlabelled: Collection[str] = ("target",),
    search: bool = True,
    progress: Progress | None = None,
) -> Report:
    """Look over the data of a training.

    Each picture is decoded once, on all cores; about a kilobyte of it is kept while it runs. What was seen of a file
    is remembered on disk until the file changes, so another training on the same data decodes nothing.

    Args:
        dataset: With its splits.
        task: ``classify`` judges labels of pictures, ``detect`` and ``segment`` those of objects; others none.
        train: Name of the split to learn from; all others are held out, but for records of no split, which are passed
            over.
        side: Of the squares that pictures are resized to.
        cell: Side of what one cell of the encoder's map sees, such as its patch, in pixels of the square.
        group: Column of what must not be parted, such as ``patient``.
        allow: Kinds of errors to be taken for warnings, of :data:`manylens.training.check.findings.ERRORS`.
        unlabelled: Splits whose labels are not looked at, such as the target of a domain adaptation.
        search: Whether to look for pictures that are there twice.
        progress: Called with the share done and a line.

    Raises:
        TrainError: There is no such split, column or kind of error.
    """
    checker = Checker(
        dataset,
        task=task,
        train=train,
        side=side,
        cell=cell,
        group=group,
        allow=allow,
        unlabelled=unlabelled,
        search=search,
    )
    total = len(dataset)
    with KeptLooks() as kept:
        for done, (record, look) in enumerate(_looked(checker.records(), kept), 1):
            checker.see(record, look)
            if progress is not None:
                progress((1 - _SEARCH) * done / total, f"looking at picture {done} of {total}")
    return checker.report(progress)


def resized(report: Report, side: int, cell: int) -> Report:
    """A report of a check with what is left of pictures and objects at the size of the training.

    Args:
        report: Of :func:`check` without a side.
        side: Of the squares that pictures are resized to.
        cell: As of :func:`check`.
    """
    counts = replace(report.counts, side=side, cell=cell)
    measured, found = counts.sizes(), Findings()
    sizes.judge(measured, found)
    return replace(report, sizes=measured, counts=counts, warnings=(*report.warnings, *found.warnings))


class Checker:
    """A check in parts, for a caller who decodes the pictures anyway.

    Args:
        dataset: As in :func:`check`, like all others.
        task: Likewise.
        train: Likewise.
        side: Likewise.
        cell: Likewise.
        group: Likewise.
        allow: Likewise.
        unlabelled: Likewise.
        search: Likewise.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        task: str,
        train: str = "train",
        side: int | None = None,
        cell: int = 14,
        group: str | None = None,
        allow: Collection[str] = (),
        unlabelled: Collection[str] = ("target",),
        search: bool = True,
    ) -> None:
        self._findings = Findings(allow)
        if train not in dataset.splits:
            named = ", ".join(name or "''" for name in dataset.splits)
            raise TrainError(f"split {train!r}: there is none to learn from", f"name one of {named} (data.train)")
        self._dataset, self._task, self._train, self._group = dataset, task, train, group
        if group is not None:
            dataset.column(group)  # says at once where there is none
        self._problems = Problems()
        self._problems.extend(dataset.problems)
        self._search = search
        self._unlabelled = {*unlabelled} - {train}
        self._splits: dict[str, int] = {}
        self._left_out: dict[str, list[str]] = {}
        self._seen = copies.Seen()
        self._sizes = sizes.SizeCounts(side, cell)
        self._of = _CLASSES.get(task)
        self._labels = labels.LabelCounts(self._of or "picture")
        self._bare: dict[str, list[str]] = {}
        self._reason = ""
        self._groups: dict[str, set[str]] = {}

    def records(self) -> Iterator[Record]:
        """The records to see, their labels checked and mended; no picture is opened."""
        used = (one for one in self._dataset.records() if one.split or not self._train)
        return checked(used, self._dataset.categories, self._problems, pictures=False)

    def see(self, record: Record, look: Look | MediaError) -> None:
        """Take a record into account.

        Args:
            record: From :meth:`records`.
            look: Of its picture, or why it cannot be read.
        """
        why = self._unusable(record, look)
        if isinstance(look, MediaError) and not self._reason:
            self._reason = look.what
        if why is not None or isinstance(look, MediaError):
            self._left_out.setdefault(why or "unreadable", []).append(record.id)
            return
        self._splits[record.split] = self._splits.get(record.split, 0) + 1
        objects = [one for one in record.annotations if not one.crowd and not one.ignore and one.area]
        self._sizes.add(look.width, look.height, [(one.category, float(one.area or 0)) for one in objects])
        if record.split in self._unlabelled:
            return
        if self._search:
            self._seen.add(record.id, record.split, record.label if self._task == "classify" else "", look)
        if self._group is not None:
            value = record.columns.get(self._group, getattr(record, self._group, None))
            if value not in (None, ""):
                self._groups.setdefault(repr(value), set()).add(record.split)
        if self._of == "picture":
            self._labels.add(record.split, [record.label])
        elif self._of == "object":
            fits = [one for one in objects if one.mask is not None or self._task == "detect"]
            self._labels.add(record.split, [one.category for one in fits if one.category])
            if not fits:
                self._bare.setdefault(record.split, []).append(record.id)

    def report(self, progress: Progress | None = None) -> Report:
        """What all that was seen comes to."""
        findings = self._findings
        self._judge_pictures(findings)
        counted = self._labels.labels(self._train, [one.name for one in self._dataset.categories])
        known = self._of == "picture" or any(counts for counts in counted.counts.values())
        if self._of is not None and self._splits.get(self._train) and known:
            labels.judge(counted, findings)
        self._judge_groups(findings)
        found = None
        if self._search:
            found = self._seen.copies(self._train, _searching(progress))
            copies.judge(found, findings, self._train)
        measured = self._sizes.sizes()
        sizes.judge(measured, findings)
        self._judge_rows(findings)
        left_out = tuple(id for ids in self._left_out.values() for id in ids)
        kept = {name: count for name, count in self._splits.items() if count}
        return Report(
            tuple(findings.errors),
            tuple(findings.warnings),
            kept,
            left_out,
            counted if self._of is not None and known else None,
            found,
            measured,
            self._sizes,
        )

    def _unusable(self, record: Record, look: Look | MediaError) -> str | None:
        if isinstance(look, MediaError):
            return "unreadable"
        if self._task == "classify" and not record.label and record.split not in self._unlabelled:
            return "no-label"
        placed = any(one.box is not None or one.mask is not None for one in record.annotations)
        stated = (record.width or look.width, record.height or look.height)
        masks = {(int(one.mask["size"][1]), int(one.mask["size"][0])) for one in record.annotations if one.mask}
        if placed and {stated, *masks} != {(look.width, look.height)}:
            return "wrong-size"
        return None

    def _judge_pictures(self, findings: Findings) -> None:
        if not self._splits.get(self._train):
            reason = ", ".join(f"{len(ids)} {kind}" for kind, ids in self._left_out.items())
            what = f"split {self._train!r}: has no picture that can be used" + (f" ({reason})" if reason else "")
            findings.error(Finding(NOTHING, what, "mend the data"))
        elif not any(count for name, count in self._splits.items() if name not in {self._train, *self._unlabelled}):
            what = f"splits: only {self._train!r} has pictures, so nothing tells what is learned"
            findings.warn(Finding("no-validation", what, "hold some out (data.holdout)"))
        for kind, (what, remedy) in _LEFT_OUT.items():
            ids = self._left_out.get(kind, [])
            if ids:
                are = "is" if len(ids) == 1 else "are"
                line = f"pictures: {len(ids)} {what.format(are=are)}, and {are} left out"
                line += f" (the first: {self._reason})" if kind == "unreadable" else ""
                findings.warn(Finding(kind, line, remedy, len(ids), some(ids)))
        bare, noun = self._bare.get(self._train, []), "mask" if self._task == "segment" else "box"
        if bare and len(bare) == self._splits.get(self._train):
            what = f"split {self._train!r}: no picture has a {noun}"
            findings.error(
                Finding("no-objects", what, f"give {noun}{'es' if noun == 'box' else 's'}", len(bare), some(bare))
            )
        elif any(self._bare.values()):
            ids = [id for found in self._bare.values() for id in found]
            what = f"pictures: {len(ids)} of {sum(self._splits.values())} have no {noun}"
            findings.warn(
                Finding("bare", what, "see that they are really empty: they are learned as such", len(ids), some(ids))
            )

    def _judge_groups(self, findings: Findings) -> None:
        torn = [value for value, splits in self._groups.items() if len(splits) > 1]
        if torn:
            what = f"column {self._group!r}: {many(len(torn), 'group')} of {len(self._groups)} "
            what += f"{'has' if len(torn) == 1 else 'have'} pictures in several splits"
            findings.error(
                Finding("group-leak", what, f"split again with --group {self._group}", len(torn), some(torn))
            )

    def _judge_rows(self, findings: Findings) -> None:
        """What was wrong with rows of labels, a line a kind."""
        firsts: dict[str, list[str]] = {}
        for one in self._problems:
            firsts.setdefault(one.kind, []).append(one.id)
        for kind, count in self._problems.counts.items():
            what = f"labels: {many(count, 'row')} with {kind}"
            findings.warn(
                Finding(kind.replace(" ", "-"), what, "see 'manylens dataset check'", count, some(firsts.get(kind, [])))
            )


_LEFT_OUT = {
    "unreadable": ("cannot be read", "get whole copies of them"),
    "no-label": ("{are} without a label", "give them one"),
    "wrong-size": ("{are} of another size than their boxes and masks", "make the labels anew for the upright pictures"),
}


def _looked(records: Iterator[Record], kept: KeptLooks) -> Iterator[tuple[Record, Look | MediaError]]:
    """Records with what their pictures look like, in order; files are read ahead by threads."""

    def known() -> Iterator[_Asked]:
        for record in records:
            yield _Asked(record, kept.get(record.path), kept.stamp(record.path))

    def looked(asked: _Asked) -> tuple[_Asked, Look | MediaError]:
        if asked.look is not None:
            return asked, asked.look
        try:
            return asked, Look.of(asked.record.image())
        except MediaError as error:
            return asked, error

    for found in LocalExecutor().map(lambda batch: batch, known(), batch_size=8, prefetch=_AHEAD, prepare=looked):
        if isinstance(found, Failure):
            raise found.error
        asked, look = found
        if asked.look is None and isinstance(look, Look):
            kept.put(asked.stamp, look)
        yield asked.record, look


class _Asked(NamedTuple):
    record: Record
    look: Look | None
    stamp: tuple[str, int, int] | None


def _searching(progress: Progress | None) -> Callable[[float], None] | None:
    if progress is None:
        return None
    return lambda share: progress(1 - _SEARCH + _SEARCH * share, "looking for copies")
