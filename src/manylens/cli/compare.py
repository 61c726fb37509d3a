"""``manylens compare``: two evaluations of the same data, and whether their difference is real."""

from __future__ import annotations

import json as jsonlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manylens.cli import output

if TYPE_CHECKING:
    from manylens.evaluation.comparing import Comparison

_MOST_CLASSES = 20


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="The folder of an evaluation.", show_default=False)],
    b: Annotated[Path, typer.Argument(metavar="B", help="The folder of another on the same data.", show_default=False)],
    resamples: Annotated[int, typer.Option("--resamples", min=2, help="Of the bootstrap.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of every random step.")] = 0,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write the comparison here as JSON.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Pair two models on the same pictures, and say of each figure whether the difference is real.

    Each resample draws the same pictures for both, so what is hard for both does not blur their difference. p-values of
    per-class figures are corrected for their number.
    """
    from manylens.evaluation.comparing import compare as compared
    from manylens.media import atomic_write

    found = compared(a, b, resamples=resamples, seed=seed)
    text = jsonlib.dumps({"a": str(a), "b": str(b), **found.to_json()}, indent=1, allow_nan=False)
    if out is not None:
        atomic_write(out, text.encode())
    if json:
        print(text)
        return
    _print(found, str(a), str(b))
    if out is not None:
        print(f"wrote {out}")


def _print(found: Comparison, a: str, b: str) -> None:
    heads = ("figure", f"a: {a}", f"b: {b}", "b - a", "95 % interval", "p", "verdict")
    rows = []
    classes = 0
    for name, one in found.differences.items():
        classes += "/" in name
        if classes > _MOST_CLASSES or math.isnan(one.difference.value):
            continue
        chance = "cannot be said" if math.isnan(one.p) else "may be chance"
        verdict = f"{one.better} is better" if one.real else chance
        gap = one.difference
        span = "-" if math.isnan(gap.low) else f"{gap.low:+.4f} to {gap.high:+.4f}"
        p = "-" if math.isnan(one.p) else f"{one.p:.3g}"
        rows.append((name, f"{one.a:.4f}", f"{one.b:.4f}", f"{gap.value:+.4f}", span, p, verdict))
    output.table("a beside b", heads, rows)
    if classes > _MOST_CLASSES:
        print(f"{classes - _MOST_CLASSES} more figures of classes: --json")
    shared = (
        f"{found.units} {found.kind}{'' if found.units == 1 else 's'} of {found.clusters} pictures that both judged"
    )
    left = f"; left out: {found.only_a} only in a, {found.only_b} only in b" if found.only_a or found.only_b else ""
    print(f"\n{shared}{left}")
    for note in found.notes:
        print(f"note: {note}")
    print(found.verdict)
