"""The agent (floor 6): plans a request over the tasks, runs the plan and shows its work."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from manylens.agent.executor import Run, Runner, StepRun
from manylens.agent.executor import execute as _execute
from manylens.agent.mentions import kind_of_file, name_of
from manylens.agent.outputs import UnsavedError, check_folder, save
from manylens.agent.plan import Plan, Ref, Step
from manylens.agent.planner import OfflinePlanner, Planner
from manylens.media import Audio, Image, Video

__all__ = [
    "OfflinePlanner",
    "Plan",
    "Planner",
    "Ref",
    "Run",
    "Step",
    "StepRun",
    "UnsavedError",
    "ask",
    "check_folder",
    "execute",
    "look_at",
    "plan",
    "save",
]


@overload
def ask(
    request: str,
    files: Any = ...,
    *,
    out: str | Path | None = ...,
    plan_only: Literal[True],
    session: Runner | None = ...,
    models: Mapping[str, str] | None = ...,
    planner: Planner | None = ...,
    seed: int = ...,
) -> Plan: ...
@overload
def ask(
    request: str,
    files: Any = ...,
    *,
    out: str | Path | None = ...,
    plan_only: Literal[False] = ...,
    session: Runner | None = ...,
    models: Mapping[str, str] | None = ...,
    planner: Planner | None = ...,
    seed: int = ...,
) -> Run: ...
def ask(
    request: str,
    files: Any = (),
    *,
    out: str | Path | None = None,
    plan_only: bool = False,
    session: Runner | None = None,
    models: Mapping[str, str] | None = None,
    planner: Planner | None = None,
    seed: int = 0,
) -> Run | Plan:
    """Serve a request in plain words over pictures and other media.

    Args:
        request: What is wanted, such as ``"Cut out the cat and tell me what it is"``.
        files: What it is about: one or several paths, arrays, Pillow pictures or ``Image``.
        out: Folder for the files made: masks, cut-outs, labels, the answer, and a page that shows each step.
        plan_only: Plan and run nothing; the files need not exist.
        session: What serves the steps; default the session behind the package's verbs.
        models: Model by task, such as ``{"segment": "facebook/sam-vit-base"}``.
        planner: What plans; default the offline planner.
        seed: Of every random step.

    Returns:
        The run, with its answer, steps and files; or the plan. A step that failed is in the run, with its reason.

    Raises:
        OutputError: The folder cannot be written to; nothing was run.
        UnsavedError: A file could not be written; the error keeps the run.
    """
    made = plan(request, files, planner=planner)
    return made if plan_only else execute(made, files, out=out, session=session, models=models, seed=seed)


def plan(request: str, files: Any = (), *, planner: Planner | None = None) -> Plan:
    """Plan a request; see :func:`ask`."""
    return (planner or OfflinePlanner()).plan(request, [name_of(file) for file in _listed(files)])


def look_at(file: Any) -> None:
    """Look at a file without decoding it.

    Raises:
        MediaError: It is missing, empty, too large, or not what its name says.
    """
    kinds: dict[str, type[Image] | type[Audio] | type[Video]] = {"image": Image, "audio": Audio, "video": Video}
    kinds[kind_of_file(name_of(file))].of(file)


def execute(
    plan: Plan,
    files: Any = (),
    *,
    out: str | Path | None = None,
    session: Runner | None = None,
    models: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Run:
    """Run a plan; see :func:`ask`."""
    from manylens.agent.wording import answer_of

    if out is not None:
        check_folder(out)  # before any work is done

    if session is None:
        from manylens.session import default_session

        session = default_session()
    began = time.perf_counter()
    steps = _execute(plan, _listed(files), session, models=models, seed=seed)
    run = Run(plan, steps, answer_of(steps, plan.unclear), seconds=time.perf_counter() - began)
    return run if out is None else save(run, out)


def _listed(files: Any) -> Sequence[Any]:
    return list(files) if isinstance(files, (list, tuple)) else [files]
