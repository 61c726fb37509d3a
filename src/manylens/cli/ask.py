"""``manylens ask``: a request in words, served by a plan over the tasks."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manylens.cli.output import complain
from manylens.cli.parameters import session_for
from manylens.errors import ManylensError, OutputError, PlanError, PromptError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from manylens.agent import Plan


def ask(
    request: Annotated[
        str, typer.Argument(metavar="REQUEST", help="What is wanted, in plain words.", show_default=False)
    ],
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILES", help="The pictures that it speaks of.", show_default=False)
    ] = None,
    plan_only: Annotated[bool, typer.Option("--plan-only", help="Print the plan and run nothing.")] = False,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="TASK=ID", help="A model for a task of the plan; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Write masks, labels and a page here.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
    memory_budget: Annotated[
        str | None, typer.Option("--memory-budget", metavar="SIZE", help="Memory to stay in, such as 2GiB.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of every random step.")] = 0,
) -> None:
    """Plan a request over the tasks, run it, and answer.

    Prints the plan, the answer and the files made; with -o the folder also gets one page that shows each step.
    """
    from manylens import agent
    from manylens.tasks import AskRequest

    asked = AskRequest.of(request=request, files=files or [])
    models = dict(_model(word) for word in model or [])
    plan = agent.plan(asked.request, files or [])
    if plan_only and json:
        print(jsonlib.dumps(plan.to_json(), indent=1))
    elif not json and plan.steps:
        _print_plan(plan)
    if not plan.steps:
        raise PlanError(
            f"{request!r}: nothing in it was understood",
            "ask for what the tasks do, such as 'cut out the cat', 'how many cups are there' or 'read the sign'",
        )
    if plan_only:
        return
    for file in files or []:
        agent.look_at(file)  # a file that is no good ends here, before anything is run or written
    if out is not None:
        agent.check_folder(out)
    run = agent.execute(
        plan, files or [], session=session_for({"memory_budget": memory_budget}), models=models, seed=seed
    )
    if not json:
        print(f"\n{run.brief}", flush=True)  # before anything is written: a full disk must not cost the answer
        _print_unclear(part for part in run.unclear if part not in plan.unclear)
    errors: dict[str, ManylensError] = {str(step.error): step.error for step in run.failed if step.error is not None}
    if out is not None:
        try:
            run = agent.save(run, out)
        except OutputError as failure:
            errors[str(failure)] = failure
    if json:
        print(jsonlib.dumps(run.to_json(), indent=1), flush=True)
    elif run.files:
        print("\nfiles", *run.files, sep="\n  ", flush=True)
    for error in errors.values():
        complain(error)
    if errors:
        sys.exit(max(error.exit_code for error in errors.values()))


def _model(word: str) -> tuple[str, str]:
    task, equals, reference = word.partition("=")
    if not (task and equals and reference):
        raise PromptError(f"--model {word}: not TASK=ID", "write it as segment=manylens/regions-s")
    return task, reference


def _print_plan(plan: Plan) -> None:
    print("plan")
    print(plan.describe())
    _print_unclear(plan.unclear)


def _print_unclear(parts: Iterable[str]) -> None:
    for part in parts:
        print(f"not understood: {part!r}", file=sys.stderr)
