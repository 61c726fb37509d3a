"""``manylens cost``: what a job will take in time, memory, energy and money; and what it took, by the ledger."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from manylens.cli.parameters import session_for
from manylens.errors import UserError

if TYPE_CHECKING:
    from manylens.audit.cost import Compared, CostEstimate
    from manylens.runtime.rates import Rates


def cost(
    task: Annotated[str | None, typer.Option("--task", help="The task, such as segment.", show_default=False)] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="ID", help="The model; default as the task's.")
    ] = None,
    images: Annotated[int, typer.Option("--images", metavar="N", help="How many pictures the job has.")] = 1000,
    image: Annotated[
        list[Path] | None, typer.Option("--image", metavar="FILE", help="A picture of the job to measure on.")
    ] = None,
    size: Annotated[str, typer.Option("--size", metavar="WxH", help="Size of made pictures, without --image.")] = (
        "640x480"
    ),
    fine_tune: Annotated[
        Literal["full", "frozen"] | None,
        typer.Option("--fine-tune", help="Cost of fine-tuning: all weights, or a head on frozen features."),
    ] = None,
    epochs: Annotated[int, typer.Option("--epochs", help="Of fine-tuning.")] = 10,
    batch: Annotated[int, typer.Option("--batch", help="Pictures in a step of fine-tuning.")] = 8,
    hour_rate: Annotated[float | None, typer.Option("--hour-rate", help="Money for an hour of this machine.")] = None,
    watts: Annotated[float | None, typer.Option("--watts", help="Power that the machine draws at work.")] = None,
    kwh_price: Annotated[float | None, typer.Option("--kwh-price", help="Money for a kilowatt-hour.")] = None,
    co2: Annotated[float | None, typer.Option("--co2", help="Kilograms of CO2 for a kilowatt-hour.")] = None,
    currency: Annotated[str | None, typer.Option("--currency", help="Of the money, such as EUR.")] = None,
    save_rates: Annotated[
        bool, typer.Option("--save-rates", help="Keep these rates: --max-cost and the ledger count by them.")
    ] = False,
    compare: Annotated[
        Path | None, typer.Option("--compare", metavar="FILE", help="Compare a kept estimate with the ledger.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE", help="Keep the estimate here.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Measure on a few pictures what a job will take, before it runs.

    Seconds, operations, memory, and with rates energy and money; for inference, or with --fine-tune for training.
    Afterwards --compare sets the ledger's figures beside the estimate.
    """
    from manylens.audit import cost as room

    session = session_for({})
    given = {"hour": hour_rate, "watts": watts, "kwh": kwh_price, "co2": co2, "currency": currency}
    rates = _rates(session.rates, {name: value for name, value in given.items() if value is not None})
    if save_rates:
        rates.save()
    if compare is not None:
        found = room.compare(room.CostEstimate.load(compare), session)
        print(jsonlib.dumps(found.to_json(), indent=1) if json else _compared(found))
        return
    if task is None:
        if save_rates:
            print("the rates are kept: --max-cost and the ledger count by them")
            return
        raise UserError("--task: not given", "name the task to measure, such as --task segment")
    made = room.estimate(
        task,
        images=images,
        model=model,
        pictures=image or (),
        size=_size(size),
        session=session,
        rates=rates,
        fine_tune=fine_tune,
        epochs=epochs,
        batch=batch,
    )
    print(jsonlib.dumps(made.to_json(), indent=1) if json else _said(made))
    if out is not None:
        made.save(out)
        if not json:
            print(f"\nkept in {out}; after the job: manylens cost --compare {out}")


def _rates(kept: Rates, given: dict[str, float | str]) -> Rates:
    from dataclasses import replace

    return replace(kept, **given)  # type: ignore[arg-type]


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and 8 <= int(width) <= 20_000 and 8 <= int(height) <= 20_000):
        raise UserError(f"--size {text}: not WIDTHxHEIGHT of 8 to 20000 pixels", "write it as 640x480")
    return int(width), int(height)


def _said(made: CostEstimate) -> str:
    from manylens.runtime.memory import format_bytes

    low, high = made.spread_seconds
    times = "" if made.job == "inference" or made.epochs == 1 else f", {made.epochs} times"
    rows = {
        "time": f"{made.each_seconds:.3g} s each ({low:.3g} to {high:.3g}, median of {made.samples}), "
        f"{_duration(made.seconds)} in all, {made.load_seconds:.2g} s of loading included",
        "compute": "not counted" if made.flops is None else f"{made.flops / 1e9:.3g} GFLOP each",
        "memory": f"{format_bytes(made.peak_bytes)} at the peak of this process",
    }
    if made.rates.watts:
        co2 = f", {made.co2:.2g} kg CO2" if made.rates.co2 else ""
        rows["energy"] = f"{made.energy:.3g} kWh at {made.rates.watts:g} W{co2}"
    rows["money"] = (
        made.rates.said(made.money)
        if made.rates.cost_money
        else "not counted: give --hour-rate, or --watts and --kwh-price"
    )
    width, height = made.size
    head = f"{made.task} on {made.model} ({made.engine}), {made.job}, {made.images} pictures of {width}x{height}{times}"
    return "\n".join([head, *(f"  {name:<9}{text}" for name, text in rows.items())])


def _compared(found: Compared) -> str:
    made = found.estimate
    lines = [
        f"{made.task} on {made.model}, since {made.made}",
        f"  {'':<12}{'estimate':>14}{'ledger':>14}",
        f"  {'pictures':<12}{made.images:>14}{found.calls:>14}",
        f"  {'s each':<12}{made.each_seconds:>14.3g}{found.each_seconds:>14.3g}   {found.ratio:.2f} times the estimate",
        f"  {'in all':<12}{_duration(made.seconds):>14}{_duration(found.seconds):>14}",
    ]
    if made.rates.cost_money or found.money:
        lines.append(f"  {'money':<12}{made.rates.said(made.money):>14}{made.rates.said(found.money):>14}")
    lines.append("  (every call of this task on this model since then, whatever it was for)")
    if found.failed:
        lines.append(f"  {found.failed} calls failed")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s"
