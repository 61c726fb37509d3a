"""The command line (floor 11): one command a task, made from the declarations, and the commands about the house."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import cast

import typer

from manylens.cli import audit, dataset, house
from manylens.cli.ask import ask
from manylens.cli.compare import compare
from manylens.cli.cost import cost
from manylens.cli.evaluate import evaluate
from manylens.cli.explain import explain
from manylens.cli.export import export
from manylens.cli.output import complain, exit_code
from manylens.cli.parameters import join_words
from manylens.cli.task_commands import command
from manylens.cli.train import runs, train
from manylens.errors import UserError
from manylens.tasks import TASKS

_INTERRUPTED = 130
_WORKFLOWS: dict[str, tuple[Callable[..., None], str]] = {
    "ask": (ask, TASKS["ask"].summary),
    "evaluate": (evaluate, "Measure a model, or saved predictions, on labelled data."),
    "compare": (compare, "Two evaluations, and whether their difference is real."),
    "train": (train, "Adapt a model to your own pictures."),
    "runs": (runs, "What was trained, side by side."),
    "export": (export, "A trained model as ONNX or OpenVINO, checked against torch."),
    "explain": (explain, "Which pixels a model's score rests on."),
    "cost": (cost, "What a job will take, before it runs; what it took, afterwards."),
}
_HELP = "Many lenses, one view: one platform in which the visual foundation models work together."


def app(only: str | None = None) -> typer.Typer:
    """The application.

    Args:
        only: Build this command whole and the others by name only: reading every signature would cost the start.
    """
    made = typer.Typer(
        name="manylens",
        help=_HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(_root)
    for name, (function, summary) in _WORKFLOWS.items():
        made.command(name, short_help=summary)(function)
    made.add_typer(dataset.group, name="dataset", short_help="Look at labelled pictures, check, split, convert them.")
    made.add_typer(audit.group(), name="audit", short_help="Fairness, robustness and privacy of a model.")
    for task in TASKS.values():
        if not task.workflow:
            made.command(task.name, short_help=task.summary)(command(task) if only in (task.name, None) else _named)
    for name, chore in house.COMMANDS.items():
        made.command(name)(cast(Callable[..., None], chore))
    return made


def _root() -> None:
    """Many lenses, one view: one platform in which the visual foundation models work together."""


def _named() -> None:
    """Stands in the list of commands for one that was not asked for."""


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line: exit code 0, 2 for the user's mistake, 1 for ours; never a traceback for either."""
    given = list(sys.argv[1:] if words is None else words)
    if given in (["--version"], ["-V"]):
        given = ["version"]
    asked = given[0] if given else ""
    if not _debugging():
        warnings.simplefilter("ignore")  # libraries warn about broken files; what matters is said in our own line
    try:
        if asked in TASKS:
            given = join_words(given, TASKS[asked].request)
        code = app(asked)(given or ["--help"], standalone_mode=False)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        if _debugging():
            raise
        if hasattr(error, "format_message"):  # misuse of the command line, in the parser's words
            help_of = f"manylens {asked} --help" if asked in made_commands() else "manylens --help"
            error = UserError(error.format_message().rstrip("."), f"see {help_of}")
        complain(error)
        sys.exit(exit_code(error))
    if code == _INTERRUPTED:  # what the parser makes of Ctrl-C
        print("stopped; run it again to go on", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def made_commands() -> set[str]:
    """The names of all commands."""
    return {*TASKS, *_WORKFLOWS, *house.COMMANDS, "dataset", "audit"}


def _debugging() -> bool:
    return os.environ.get("MANYLENS_DEBUG", "") not in ("", "0")
