"""What commands print and write: results for people or for machines, errors in one line."""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from manylens.errors import ManylensError, UserError
from manylens.tasks import Request, provenance_of, to_json

_BETWEEN = 10.0  # seconds between two lines of progress


def complain(error: BaseException) -> None:
    """One line on standard error."""
    text = " ".join(str(error).split()) or type(error).__name__
    print(f"error: {text}", file=sys.stderr, flush=True)


def exit_code(error: BaseException) -> int:
    """2 for the user's mistake, 1 for ours."""
    return error.exit_code if isinstance(error, ManylensError) else 1


def check_folder(folder: Path | None) -> None:
    """See that files can be written to a folder, before work begins; a folder that is missing is not made yet.

    Raises:
        UserError: They cannot.
    """
    if folder is None:
        return
    there = folder.absolute()
    try:
        there = next(place for place in (there, *there.parents) if place.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        why = f"{there} is a file" if there.is_file() else str(error.strerror)
        raise UserError(f"{folder}: cannot be written to ({why})", "name another folder with -o") from error


def show(
    task: str,
    request: Request,
    result: Any,
    *,
    out: Path | None,
    as_json: bool,
    line: bool = False,
    name: str | None = None,
) -> None:
    """Print a result, and write its files where the user asked for them.

    Args:
        task: The task's name.
        request: What was asked.
        result: What came of it.
        out: Folder for files, or None.
        as_json: JSON instead of words.
        line: One JSON object a line, or the picture's name before the words, for many results.
        name: How the files' names begin instead of the picture's own name.
    """
    from manylens.render import say, write_result

    pictures = request.pictures()
    image = pictures[0] if pictures else None
    video = getattr(request, "video", None)
    about = video if video is not None else image
    stem = name or (Path(about.name).stem if about is not None else task)
    files = write_result(result, image, out, f"{stem}-{task}", video) if out is not None else []
    if as_json:
        body: dict[str, Any] = {"task": task, "input": about.name if about is not None else None}
        body |= {**to_json(result), "files": [str(file) for file in files]}
        print(json.dumps(body, indent=None if line else 1))
        return
    if line and image is not None:
        print(f"{image.name}:", end=" ")
    words = say(result)
    print(words)
    provenance = provenance_of(result)
    if provenance is not None:
        for note in provenance.notes:
            if note not in words:  # where nothing was found, the words say why
                print(f"note: {note}", file=sys.stderr)
        if not line:
            engine = f", {provenance.engine} {provenance.precision}" if provenance.engine else ""
            print(f"({provenance.model}{engine}, {provenance.seconds:.2f} s)")
    many = Counter(file.parent for file in files if file.parent != out)  # masks have a folder where they are many
    for file in dict.fromkeys(file.parent if file.parent in many else file for file in files):
        print(f"wrote {file}" + (f" ({many[file]} files)" if file in many else ""))


def progress(items: Sequence[Any], label: str, quiet: bool) -> Iterator[Any]:
    """The items, with a progress bar on standard error where that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return iter(
        track(items, description=label, console=console, disable=quiet or not console.is_terminal, transient=True)
    )


@contextmanager
def bar(label: str, quiet: bool) -> Iterator[Callable[[float, str], None] | None]:
    """A progress bar on standard error: call it with the share done and a line.

    Where that is no terminal, plain lines: what is said before anything is done, and then the share done
    every ten seconds at most, so that a log of a slow run is neither silent nor long.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if quiet:
        yield None
        return
    if not console.is_terminal:
        yield _lines(label)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task(label, total=1.0)
        yield lambda done, line: shown.update(task, completed=done, description=line[:40])


@contextmanager
def bar_when_told(label: str, quiet: bool) -> Iterator[Callable[[float, str], None]]:
    """As :func:`bar`, which only appears with the first word of progress: a quick call, or a download, has none."""
    with ExitStack() as open_bar:
        told: list[Callable[[float, str], None] | None] = []

        def tell(done: float, line: str) -> None:
            if not told:
                told.append(open_bar.enter_context(bar(label, quiet)))
            if told[0] is not None:
                told[0](done, line)

        yield tell


def _lines(label: str) -> Callable[[float, str], None]:
    last = monotonic()

    def tell(done: float, line: str) -> None:
        nonlocal last
        if done == 0 or monotonic() - last >= _BETWEEN:
            last = monotonic()
            print(f"{label}: {100 * done:.0f} %, {line}", file=sys.stderr, flush=True)

    return tell


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table for people; plain lines with tabs where the output is no terminal, so that it can be cut and piped."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        print("\t".join(columns))
        for row in rows:
            print("\t".join(row))
        return
    drawn = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    console.print(drawn)
