"""What ``manylens doctor`` finds out: this machine, its models, and the engine that is fastest for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from manylens.errors import ManylensError

if TYPE_CHECKING:
    from manylens.catalog import Row
    from manylens.session import Session


def examine(session: Session, *, measure: bool | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Look at the machine and the embedded models; measure those whose weights are here.

    Args:
        session: Whose catalog and weights are looked at.
        measure: True measures all anew, False nothing, None what no measurement stands for yet.
        say: Told what is being measured, since it takes seconds.

    Returns:
        ``machine``, ``models`` (id, state, engine, precision, measurements) and ``advice``: what is missing and how to
        get it, one line each.
    """
    from manylens.runtime.doctor import machine_report

    report = machine_report()
    rows = [row for row in session.catalog if row.embedded]
    models = [_model(session, row, measure, say) for row in rows]
    return {"machine": asdict(report), "models": models, "advice": _advice(asdict(report), models)}


def _model(session: Session, row: Row, measure: bool | None, say: Callable[[str], None]) -> dict[str, Any]:
    from manylens import models
    from manylens.runtime.doctor import choice_of, choose

    state = session.state(row)
    found: dict[str, Any] = {"id": row.id, "tasks": sorted(row.tasks), "state": state, "measured": []}
    if state != "ready" or row.composed:
        return found
    choice = choice_of(row.id, row.weights_hash)
    if measure or (measure is None and choice is None):
        try:
            say(f"measuring {row.id} ...")
            choice = choose(models.FamilyProbe(row, session.weights.ensure(row)))
        except ManylensError as error:
            return found | {"error": str(error)}
    if choice is not None:
        found |= {"engine": choice.settings.label, "tolerance": choice.tolerance}
        found["measured"] = [
            {
                "engine": measured.settings.label,
                "seconds": measured.seconds,
                "similarity": measured.similarity,
                "error": measured.error,
            }
            for measured in choice.measurements
        ]
    return found


def _advice(machine: dict[str, Any], models: list[dict[str, Any]]) -> list[str]:
    lines = []
    absent = [model["id"] for model in models if model["state"] != "ready"]
    if absent:
        lines.append(f"not on this machine: {', '.join(absent)}; fetch them with: manylens pull embedded")
    for model in models:
        if model.get("error"):
            lines.append(f"{model['id']}: {model['error']}")
    if machine["offline"]:
        lines.append("MANYLENS_OFFLINE is set: nothing is fetched; unset it to pull models")
    if not machine["home_writable"]:
        lines.append(f"{machine['home']} cannot be written: set MANYLENS_HOME to a folder that can")
    if machine["free_bytes"] < 2 << 30:
        lines.append(f"less than 2 GiB are free at {machine['home']}: set MANYLENS_HOME to a folder with more room")
    for name, version in machine["libraries"].items():
        if not version:
            lines.append(f"{name} is not installed: pip install {name}")
    return lines


def print_report(report: dict[str, Any]) -> None:
    """The report for people."""
    machine = report["machine"]
    gpus = ", ".join(f"{gpu['name']} ({_gib(gpu['memory_bytes'])})" for gpu in machine["gpus"]) or "none"
    print(f"machine   {machine['cpu']}, {machine['usable_cores']} cores, bf16 {'yes' if machine['bf16'] else 'no'}")
    print(f"memory    {_gib(machine['available_bytes'])} free of {_gib(machine['memory_bytes'])}, ", end="")
    print(f"budget {_gib(machine['budget_bytes'])}")
    print(f"gpu       {gpus}")
    print(f"home      {machine['home']}, {_gib(machine['free_bytes'])} free")
    print("libraries " + ", ".join(f"{name} {version}" for name, version in machine["libraries"].items() if version))
    print()
    for model in report["models"]:
        print(f"{model['state']:<8}  {model['id']}: {', '.join(model['tasks'])}")
        for row in model["measured"]:
            mark = "  <- pinned" if row["engine"] == model["engine"] else ""
            if row["error"]:
                continue
            like = f"{row['similarity']:.4f} alike to f32"
            print(f"            {row['engine']:<14} {row['seconds'] * 1000:7.0f} ms  {like}{mark}")
    print()
    for line in report["advice"] or ["nothing is missing"]:
        print(line)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
