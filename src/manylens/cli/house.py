"""The commands about the platform itself: models, weights, this machine, and what was run."""

from __future__ import annotations

import json as jsonlib
import sys
from typing import Annotated, Any

import typer

from manylens.cli import output

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def models(
    task: Annotated[str | None, typer.Option("--task", help="Only models for this task.")] = None,
    json: Json = False,
) -> None:
    """List the models with their licence, size and state."""
    from manylens.models import FAMILIES
    from manylens.session import default_session
    from manylens.tasks import get

    session = default_session()
    rows = session.catalog.for_task(get(task).name) if task else list(session.catalog)
    rows = sorted(rows, key=lambda row: (not row.embedded, row.family not in FAMILIES))
    listed = [_model(row, session.state(row)) for row in rows]
    if json:
        print(jsonlib.dumps(listed, indent=1))
        return
    output.table(
        "models",
        ("id", "tasks", "licence", "size MB", "memory MB", "state"),
        [
            (
                row["id"],
                "; ".join(
                    f"{name}: {', '.join(takes)}" if takes != ["default"] else name
                    for name, takes in row["tasks"].items()
                ),
                row["licence"],
                f"{row['bytes'] / 1e6:.0f}" if row["bytes"] else "-",
                str(row["memory_mb"] or "-"),
                row["state"],
            )
            for row in listed
        ],
    )


def _model(row: Any, state: str) -> dict[str, Any]:
    from manylens.models import FAMILIES

    loads = row.family in FAMILIES
    return {
        "id": row.id,
        "summary": row.summary,
        "family": row.family,
        "tasks": {name: sorted(takes) for name, takes in row.tasks.items()},
        "licence": row.licence,
        "licence_note": row.licence_note,
        "commercial": row.commercial,
        "bytes": row.bytes,
        "memory_mb": row.memory_mb,
        "devices": list(row.devices),
        "source": row.source,
        "loads": loads,
        "state": state if loads else f"{state}, family not in this version",
    }


def pull(
    model: Annotated[
        str, typer.Argument(metavar="ID", help="A catalog id or a hub id; 'embedded' for all embedded ones.")
    ],
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept a licence that forbids commercial use.")
    ] = False,
) -> None:
    """Fetch and verify a model's weights.

    Shows licence and size first, then a progress bar; resumes, and repairs what is corrupted.
    """
    from manylens.errors import LicenceError
    from manylens.models import family
    from manylens.session import default_session

    session = default_session()
    rows = [row for row in session.catalog if row.embedded] if model == "embedded" else [session.catalog.resolve(model)]
    for row in rows:
        row = session.weights.identify(row)
        family(row.family, row.id)  # what cannot be loaded is not fetched either
        try:
            files = session.weights.pull(row, accept_licence=accept_licence)
        except LicenceError as refusal:
            if not (sys.stdin.isatty() and typer.confirm(f"{refusal.what}. Fetch it all the same?")):
                raise
            files = session.weights.pull(row, accept_licence=True)
        print(f"{row.id}: ready, {len(files)} file{'s' if len(files) != 1 else ''}, {row.bytes / 1e6:.0f} MB")
        for part in session.catalog.parts(row) if model != "embedded" else ():
            session.weights.pull(part, accept_licence=accept_licence)
            print(f"  uses {part.id}: ready")


def remove(model: Annotated[str, typer.Argument(metavar="ID", help="A catalog id or a hub id.")]) -> None:
    """Delete a model's weights.

    A file that another model uses stays.
    """
    from manylens.session import default_session

    session = default_session()
    freed = session.weights.remove(session.catalog.resolve(model))
    print(f"{model}: removed, {freed / 1e6:.0f} MB freed" if freed else f"{model}: nothing to remove")


def log(
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="How many calls, the newest first.")] = 20,
    task: Annotated[str | None, typer.Option("--task", help="Only this task.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Only this model.")] = None,
    summary: Annotated[bool, typer.Option("--summary", help="One line for each task and model.")] = False,
    json: Json = False,
) -> None:
    """Show the ledger of calls.

    Each with its model, seconds, bytes, device and whether an embedding was reused.
    """
    from manylens.session import default_session

    ledger = default_session().ledger
    rows = ledger.summary() if summary else ledger.rows(limit, task=task, model=model)
    if json:
        print(jsonlib.dumps([row.to_json() for row in rows], indent=1))
    elif not rows:
        print("no calls yet")
    elif summary:
        output.table("calls", _SUMMARY_COLUMNS, [_summary_row(row) for row in rows])
    else:
        output.table("calls", _CALL_COLUMNS, [_call_row(row) for row in rows])


_SUMMARY_COLUMNS = ("task", "model", "calls", "errors", "median s", "memory hits", "disk hits", "misses")
_CALL_COLUMNS = ("time", "task", "model", "seconds", "bytes in", "device", "engine", "cache", "outcome")


def _summary_row(row: Any) -> tuple[str, ...]:
    counts = (row.calls, row.errors, f"{row.median_seconds:.3f}", row.memory_hits, row.disk_hits, row.misses)
    return (row.task, row.model, *map(str, counts))


def _call_row(row: Any) -> tuple[str, ...]:
    engine = f"{row.engine} {row.precision}".strip()
    cells = (f"{row.seconds:.3f}", f"{row.bytes_in:,}", row.device, engine or "-", row.cache or "-", row.outcome)
    return (row.time[:19].replace("T", " "), ("  " if row.parent else "") + row.task, row.model, *cells)


def doctor(
    measure: Annotated[
        bool | None,
        typer.Option("--measure/--no-measure", help="Measure again, or not at all; else what is not measured yet."),
    ] = None,
    json: Json = False,
) -> None:
    """Say what this machine can run and what is missing.

    Measures which engine and precision is fastest here, within a stated tolerance, and pins it.
    """
    from manylens.cli.doctor import examine, print_report
    from manylens.session import default_session

    report = examine(default_session(), measure=measure, say=lambda line: print(line, file=sys.stderr, flush=True))
    if json:
        print(jsonlib.dumps(report, indent=1))
    else:
        print_report(report)


def version() -> None:
    """Print the version."""
    from manylens import __version__

    print(f"manylens {__version__}")


COMMANDS = {"models": models, "pull": pull, "remove": remove, "doctor": doctor, "log": log, "version": version}
