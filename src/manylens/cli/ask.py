"""``manylens ask``: a request in words, served by a plan over the tasks."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[
    list[str], typer.Option("--model", metavar="TASK=ID", help="A model for a task of the plan, such as segment=ID.")
]


def ask(
    request: Annotated[
        str, typer.Argument(metavar="REQUEST", help="What is wanted, in plain words.", show_default=False)
    ],
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILES...", help="The pictures that it speaks of.", show_default=False)
    ] = None,
    plan_only: Annotated[bool, typer.Option("--plan-only", help="Print the plan and run nothing.")] = False,
    model: Model = [],  # noqa: B006 - typer copies it
    out: Out = None,
    json: Json = False,
    seed: Seed = 0,
) -> None:
    """Plan a request over the tasks, run it, answer, and write the files and a page that shows each step."""
