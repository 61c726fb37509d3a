"""``manylens export``: a trained model as a network for other runtimes."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from manylens.cli.parameters import session_for


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run, the folder of a model, or an id.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for the files.")],
    format: Annotated[str, typer.Option("--format", metavar="onnx|openvino", help="What to write.")] = "onnx",
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DATA", help="Pictures to compare answers on; by default those of the run."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="How far a number may lie from torch's, as a share of the largest.")
    ] = 1e-3,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Write a trained model as ONNX or OpenVINO.

    The written network is run beside torch on pictures of the run's data, and is kept only where it answers alike.
    Labels, preparation of pictures and what the numbers mean stand in a JSON file beside it.
    """
    from manylens.training.exporting import export as exported

    say = None if json else print
    made = exported(model, out=out, format=format, data=data, tolerance=tolerance, session=session_for({}), say=say)
    if json:
        print(jsonlib.dumps(made.to_json(), indent=1))
        return
    for file in made.files:
        print(f"wrote {file}")
