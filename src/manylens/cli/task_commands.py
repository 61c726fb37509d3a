"""One command for each task, made from its declaration."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from manylens.cli import output
from manylens.cli.parameters import COMMON, cost_cap, fields_from, flag_of, session_for, signature
from manylens.errors import ManylensError, MediaError, UserError
from manylens.tasks import Task

_PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jp2", ".avif", ".heic", ".dcm"}


def command(task: Task) -> Callable[..., None]:
    """The function behind ``manylens TASK``; typer reads its signature."""
    flags = {name: flag_of(info) for name, info in task.request.model_fields.items()}
    positional = [name for name, flag in flags.items() if not flag.name and not flag.hidden]
    several = positional == ["image"]

    def run(**values: Any) -> None:
        options = {name: values.pop(name) for name in COMMON}
        given = values.get("image") if several else None
        if given and (len(given) > 1 or Path(given[0]).is_dir()):
            _run_many(task, list(_files(given)), values, options)
        else:
            if several:
                values["image"] = given[0] if given else None
            _run_one(task, values, options)

    run.__name__ = task.name
    run.__doc__ = task.meaning
    run.__signature__ = signature(task.request, several)  # type: ignore[attr-defined]
    return run


def _run_one(task: Task, values: dict[str, Any], options: dict[str, Any]) -> None:
    from manylens.tasks import request

    asked = request(task.name, **fields_from(task.request, values))
    output.check_folder(options["out"])
    session = session_for(options)
    cap = cost_cap(session, options["max_cost"])
    with output.bar_when_told(task.name, quiet=options["json"]) as progress:
        result = session.run(asked, model=options["model"], seed=options["seed"], cost_cap=cap, progress=progress)
    output.show(task.name, asked, result, out=options["out"], as_json=options["json"])


def _run_many(task: Task, files: list[Path], values: dict[str, Any], options: dict[str, Any]) -> None:
    from manylens.runtime.executors import Failure
    from manylens.tasks import request

    fields = fields_from(task.request, {**values, "image": None})
    items = ({**fields, "image": str(file)} for file in files)
    output.check_folder(options["out"])
    names = distinct_stems(files)
    session = session_for(options)
    cap = cost_cap(session, options["max_cost"])
    results = session.map(task.name, items, model=options["model"], seed=options["seed"], errors="return", cost_cap=cap)
    failures: list[Exception] = []
    shown = output.progress(files, task.name, quiet=options["json"])
    for file, name, result in zip(shown, names, results, strict=True):
        if isinstance(result, Failure):
            failures.append(result.error)
            output.complain(result.error)
            continue
        asked = request(task.name, **{**fields, "image": str(file)})
        output.show(task.name, asked, result, out=options["out"], as_json=options["json"], line=True, name=name)
    if failures:
        # Ours outweighs the user's: exit code 1 as soon as one failure is not a mistake of theirs.
        kind = UserError if all(isinstance(error, UserError) for error in failures) else ManylensError
        raise kind(f"{len(failures)} of {len(files)} pictures failed", "the lines above say why; the others are done")


def _files(given: list[str]) -> Iterator[Path]:
    for name in given:
        path = Path(name)
        if not path.is_dir():
            yield path
            continue
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in _PICTURES and not p.name.startswith("."))
        if not inside:
            raise MediaError(f"{name}: no pictures in this folder", "give a folder with JPEG, PNG or other pictures")
        yield from inside


def distinct_stems(files: Sequence[Path]) -> list[str]:
    """What the files of each picture's result begin with, so that no result overwrites another's.

    A picture's name without its ending; with it where another is called so too (``cat.jpg`` and ``cat.png``), and with
    its folder's name before it where that is not enough; else numbered.
    """
    forms: list[Callable[[Path], str]] = [
        lambda file: file.name.replace(".", "-"),
        lambda file: f"{file.absolute().parent.name}-{file.name.replace('.', '-')}",
    ]
    names = [file.stem for file in files]
    for form in forms:
        count = Counter(name.lower() for name in names)  # some disks do not tell capitals apart
        names = [form(file) if count[name.lower()] > 1 else name for file, name in zip(files, names, strict=True)]
    taken: set[str] = set()
    for place, name in enumerate(names):
        numbered = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
        names[place] = next(each for each in numbered if each.lower() not in taken)
        taken.add(names[place].lower())
    return names
