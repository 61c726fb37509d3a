"""The files of a run: masks, cut-outs, labels, drawings, the answer; each whole or not at all."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from manylens.agent.mentions import distinct, renamed
from manylens.agent.plan import Ref
from manylens.errors import OutputError
from manylens.media import atomic_write, save_cutout_png, save_image, save_mask_png
from manylens.media.image import Image
from manylens.render import coco_json, draw, write_result
from manylens.render.files import slug
from manylens.tasks import Answer, Reading
from manylens.tasks.results import Caption, Classification, Match, Transcript

if TYPE_CHECKING:
    from manylens.agent.executor import Run, StepRun

LABELS, ANSWER, RECORD, PAGE = "labels.json", "answer.txt", "run.json", "report.html"


@dataclass(frozen=True)
class Made:
    """A file that a run made.

    Attributes:
        path: Where it is.
        what: What it is, in a few words.
        step: Id of the step that it belongs to; 0 for the run as a whole.
    """

    path: Path
    what: str
    step: int = 0


class UnsavedError(OutputError):
    """The files of a run could not be written; the run itself is not lost.

    Attributes:
        run: The run, without files.
    """

    def __init__(self, failure: OutputError, run: Run) -> None:
        super().__init__(failure.what, failure.remedy)
        self.run = run

    def __reduce__(self) -> Any:
        return type(self), (OutputError(self.what, self.remedy), self.run)


def check_folder(folder: str | Path) -> None:
    """Make a folder where it is missing, and see that files can be written to it.

    Raises:
        OutputError: They cannot.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to ({error.strerror})", "name another folder") from error


def save(run: Run, folder: str | Path) -> Run:
    """Write the files of a run.

    A file that has the name of one of them is replaced; everything else in the folder stays.

    Args:
        run: The run.
        folder: Where to; made where it is missing.

    Returns:
        The run with its files.

    Raises:
        UnsavedError: A file could not be written.
    """
    from manylens.agent.report import page

    try:
        files = Folder(folder)
        files.write(run.steps)
        return files.finish(run, page)
    except OutputError as failure:
        raise UnsavedError(failure, run) from failure


class Folder:
    """Writes the files of one run into a folder; names are given once, and nothing is ever deleted.

    Args:
        folder: Where to; made where it is missing.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.made: list[Made] = []
        self._taken: set[str] = set()

    def write(self, steps: Sequence[StepRun]) -> tuple[Made, ...]:
        """Write what the steps made, and ``labels.json`` if any found things.

        Raises:
            OutputError: A file could not be written; what stood there before is untouched.
        """
        for run in steps:
            if run.state == "done":
                self.made += self._step(run)
        found = list(_told_apart(_labelled(steps)))
        if found:
            self._text(LABELS, json.dumps(coco_json(found), indent=1), "labels as COCO JSON")
        return tuple(self.made)

    def finish(self, run: Run, page: Callable[[Run], str]) -> Run:
        """Write the answer, the page and the record.

        Args:
            run: The run with the files made so far.
            page: Makes the page of a run.

        Returns:
            The run with all its files.
        """
        last = ((ANSWER, "the answer in words"), (PAGE, "each step with its picture"), (RECORD, "the run for machines"))
        run = replace(run, made=(*self.made, *(Made(self.folder / name, what) for name, what in last)))
        names = [made.path.name for made in run.made]
        record = json.dumps(run.to_json() | {"files": names}, indent=1)
        for (name, what), text in zip(last, (run.answer + "\n", page(run), record), strict=True):
            self._text(name, text, what)
        return run

    def _step(self, run: StepRun) -> Iterator[Made]:
        number, result, image = run.step.id, run.result, run.image
        stem = _stem(image) if image is not None else slug(run.step.task)
        if getattr(result, "mask", None) is not None and image is not None:
            for mask, name in zip(result.mask, result.data["class_name"], strict=True):
                base = self._name(f"{stem}-{slug(str(name))}", "-mask.png", "-cutout.png")
                yield Made(
                    save_mask_png(mask, self.folder / f"{base}-mask.png"), f"mask of the {name or 'object'}", number
                )
                cutout = save_cutout_png(image, mask, self.folder / f"{base}-cutout.png")
                yield Made(cutout, f"the {name or 'object'} cut out", number)
        if (
            isinstance(run.step.args.get("image"), str)
            and Ref.parse(run.step.args["image"]) is None
            and image is not None
        ):
            drawn = draw(image, result) if hasattr(result, "xyxy") or isinstance(result, (Answer, Reading)) else None
            if drawn is not None:
                base = self._name(f"{stem}-{run.step.task}", ".png")
                yield Made(save_image(Image.of(drawn), self.folder / f"{base}.png"), f"{run.step.task}, drawn", number)
        if not hasattr(result, "xyxy") and not isinstance(result, _IN_WORDS):
            base = self._name(f"{stem}-{run.step.task}", ".png", ".npz", ".json")
            for path in write_result(result, image, self.folder, base):
                yield Made(path, run.step.task, number)

    def _text(self, name: str, text: str, what: str) -> None:
        self.made.append(Made(atomic_write(self.folder / name, text.encode()), what))

    def _name(self, base: str, *endings: str) -> str:
        """A base whose names with these endings are not taken: ``cat-cat``, then ``cat-cat-2``."""
        number, name = 1, base
        while any(name + ending in self._taken for ending in endings):
            number += 1
            name = f"{base}-{number}"
        self._taken.update(name + ending for ending in endings)
        return name


_IN_WORDS = (Answer, Reading, Caption, Classification, Match, Transcript)


def _labelled(steps: Sequence[StepRun]) -> Iterator[tuple[Image, Any]]:
    """The pictures with what was found on them; boxes that a later step cut out are not counted twice."""
    cut = {
        ref.step
        for run in steps
        if run.state == "done" and run.step.task == "segment"
        for ref in run.step.refs
        if ref.output in ("boxes", "masks")
    }
    for run in steps:
        if run.state == "done" and hasattr(run.result, "xyxy") and run.image is not None and run.step.id not in cut:
            yield run.image, run.result


def _told_apart(found: Iterable[tuple[Image, Any]]) -> Iterator[tuple[Image, Any]]:
    """The same pairs; of different pictures with one name, the later ones are numbered."""
    names: dict[tuple[str, str], str] = {}
    for image, result in found:
        key = image.name, image.id
        if key not in names:
            names[key] = distinct(image.name, names.values())
        yield renamed(image, names[key]), result


def _stem(image: Image) -> str:
    """How the names of a picture's files begin: ``cat``, or ``p1-cat`` for a picture that goes by its path."""
    path = PurePath(image.name)
    return slug(" ".join((*path.parent.parts[-1:], path.stem)))
