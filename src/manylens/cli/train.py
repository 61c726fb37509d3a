"""``manylens train``: a model adapted to one's own pictures; ``manylens runs``: what was trained."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated, Any

import typer

from manylens.cli import output
from manylens.cli.parameters import session_for
from manylens.errors import UserError

if TYPE_CHECKING:
    from manylens.training.ablate import Ablation
    from manylens.training.ensembling import Ensembled
    from manylens.training.run import Trained

_FIGURES = 6


def train(
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="Folder of the run; the model lies in it.")
    ] = Path("runs/latest"),
    task: Annotated[
        str | None, typer.Option("--task", metavar="TASK", help="classify, segment, detect or embed.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", metavar="DATA", help="Labelled data: class folders, COCO JSON, mask PNGs, CSV, our own folder."
        ),
    ] = None,
    images: Annotated[
        str | None, typer.Option("--images", metavar="DIR", help="Folder that the data's file names are relative to.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="ID", help="The base: a catalog id, a hub id or a folder.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="The config, as YAML or JSON; see docs/train.md.")
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A value of the config, such as head.kind=mlp; may be repeated."
        ),
    ] = None,
    recipe: Annotated[str | None, typer.Option("--recipe", metavar="NAME", help="Which way to train for it.")] = None,
    head: Annotated[str | None, typer.Option("--head", metavar="NAME", help="What is put on the encoder.")] = None,
    transfer: Annotated[
        str | None,
        typer.Option(
            "--transfer", metavar="MODE", help="frozen, partial, gradual, lora, full or scratch: what else learns."
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Times that all is shown.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Things in one step.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate of the head.")] = None,
    accumulate: Annotated[
        int | None, typer.Option("--accumulate", min=1, help="Batches whose gradients make one step.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option("--patience", min=1, help="Stop after so many epochs without progress.")
    ] = None,
    monitor: Annotated[
        str | None, typer.Option("--monitor", metavar="FIGURE", help="The validation figure that tells progress.")
    ] = None,
    precision: Annotated[str | None, typer.Option("--precision", metavar="f32|bf16|f16", help="Of the steps.")] = None,
    device: Annotated[str | None, typer.Option("--device", metavar="auto|cpu|cuda", help="Where it runs.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of every random step.")] = None,
    ablate: Annotated[
        str | None,
        typer.Option("--ablate", metavar="NAME,...", help="Train with each switch, such as weighted_loss,smote, too."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Trainings of each variant of --ablate.")] = 5,
    ensemble: Annotated[
        str | None,
        typer.Option("--ensemble", metavar="KIND", help="folds, snapshots, vote, soup or greedy-soup: one of several."),
    ] = None,
    members: Annotated[int | None, typer.Option("--members", min=2, help="Trainings of an --ensemble.")] = None,
    search: Annotated[
        bool, typer.Option("--search", help="Search the space that the config gives, instead of one training.")
    ] = False,
    lr_find: Annotated[
        bool, typer.Option("--lr-find", help="Only find a learning rate: where the loss falls fastest.")
    ] = False,
    find_batch_size: Annotated[
        bool, typer.Option("--find-batch-size", help="Only find a batch size that is fast and fits in memory.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
    memory_budget: Annotated[
        str | None, typer.Option("--memory-budget", metavar="SIZE", help="Memory to stay in, such as 2GiB.")
    ] = None,
) -> None:
    """Adapt a model to your own pictures: a head on a frozen encoder, LoRA, or all of it.

    The folder of the run is a model: ``manylens classify x.jpg --model runs/name``. A run that was stopped goes on to
    the same end with --resume.
    """
    from manylens.training.processes import processes
    from manylens.training.run import Job, config_of
    from manylens.training.values import assignments

    modes = (("--ablate", ablate), ("--ensemble", ensemble), ("--search", search), ("--lr-find", lr_find))
    only = [name for name, on in modes if on]
    only += ["--find-batch-size"] if find_batch_size else []
    if len(only) > 1:
        raise UserError(f"{' and '.join(only)}: cannot be had at once", "give one of them")
    given: dict[str, Any] = {
        "recipe": recipe,
        "head.kind": head,
        "transfer.mode": transfer,
        "loop.epochs": epochs,
        "loop.batch_size": batch_size,
        "optimiser.lr": lr,
        "optimiser.accumulate": accumulate,
        "loop.patience": patience,
        "loop.monitor": monitor,
        "loop.precision": precision,
        "loop.device": device,
        "seed": seed,
        "data.images": images,
        "ensemble.kind": ensemble,
        "ensemble.members": members,
    }
    changes = {key: value for key, value in given.items() if value is not None} | assignments(set or ())
    first = processes().first  # of several the first one talks; errors come from any
    with output.bar("train", quiet=json or not first) as progress:
        session = session_for({"memory_budget": memory_budget})
        job = Job.of(
            data,
            task=task,
            model=model,
            config=config_of(out, resume, config),
            set=changes,
            session=session,
            progress=progress,
            say=_say if first else None,
        )
        made: Any
        if ablate:
            from manylens.training.ablate import ablate as ablated

            made = ablated(job, [name.strip() for name in ablate.split(",") if name.strip()], out, seeds)
        elif search:
            from manylens.training.search import search as searched

            made = searched(job, out)
        elif lr_find or find_batch_size:
            from manylens.training import finding

            budget = session.residency.budget_bytes
            made = finding.find_rate(job) if lr_find else finding.find_batch_size(job, budget)
        else:
            made = job.run(out, resume)
    if not first:
        return
    if json:
        print(jsonlib.dumps(made.to_json(), indent=1))
    elif ablate:
        _show_ablation(made, out)
    elif search:
        name, value = made.figure
        print(f"best {name} {value:.4g} with {', '.join(f'{key}={one}' for key, one in made.best.items())}")
        print(f"its config: --config {made.config}; its model: --model {made.folder}")
    elif lr_find:
        print(f"learning rate {made.suggestion:.2g}: --lr {made.suggestion:.2g}")
    elif find_batch_size:
        output.table("batch size", ["size", "a second", "MiB"], [[str(one) for one in row] for row in made.rows])
        steps = f"{made.steps} step{'s' * (made.steps != 1)} an epoch"
        print(f"--batch-size {made.suggestion} ({steps}; {made.ended})")
    elif job.config.ensemble.kind:
        _show_ensemble(made)
    else:
        _show(made)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _show_ablation(made: Ablation, out: Path) -> None:
    for figure in ("balanced_accuracy", "worst_recall", "accuracy"):
        if all(figure in values for values in made.figures.values()):
            title = f"{figure}, {len(made.seeds)} seeds, 95 % intervals"
            output.table(title, ["variant", figure, "difference from baseline"], made.rows(figure))
    for line in made.notes:
        print(line)
    print(f"all figures: {out / 'ablation.json'}")


def _show_ensemble(made: Ensembled) -> None:
    names = list(made.figures)[:_FIGURES]
    rows = [
        [one["name"], f"{one['share']:.3f}", *(f"{one['figures'][name]:.4g}" for name in names)] for one in made.members
    ]
    rows.append([made.kind, "", *(f"{made.figures[name]:.4g}" for name in names)])
    output.table(f"{made.folder}: {made.epochs} epochs in all", ["member", "share", *names], rows)
    print(f"the model: --model {made.folder}")


def _show(made: Trained) -> None:
    figures = [f"{name} {value:.4g}" for name, value in made.figures.items()][:_FIGURES]
    ended = ", stopped early" if made.stopped_early else ""
    best = f"best was epoch {made.best_epoch + 1}: {', '.join(figures)}" if figures else "nothing to judge it by"
    print(f"{made.folder}: {made.epochs} epochs{ended}; {best}")
    parts = ", ".join(f"{name} {value:.1f} s" for name, value in made.seconds.items())
    print(f"took {parts}")
    print(f"the model: --model {made.folder}")


def runs(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="[DIR]...", help="Runs, or folders of runs; default runs/.")
    ] = None,
    keys: Annotated[
        str | None,
        typer.Option("--keys", metavar="KEY,...", help="Show these values of the configs, such as optimiser.lr."),
    ] = None,
    all: Annotated[
        bool, typer.Option("--all", help="Also what trained nothing, and parts of searches, ablations, ensembles.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines: every value of every run.")] = False,
) -> None:
    """List what was trained, and compare: figures side by side, and what differs in the configs."""
    from manylens.training.runs import found, shown, table

    rows = found(folders or [Path("runs")])
    if not rows:
        raise UserError(
            f"{', '.join(map(str, folders or [Path('runs')]))}: holds no run",
            "train one, or name the folder of your runs",
        )
    if json:
        print(jsonlib.dumps([row.to_json() for row in rows], indent=1))
        return
    listed, hidden = (rows, "") if all else shown(rows)
    if listed:
        named = None if keys is None else [key.strip() for key in keys.split(",") if key.strip()]
        width = get_terminal_size().columns if sys.stdout.isatty() else None
        columns, lines, more = table(listed, named, width)
        output.table("runs", columns, lines)
        if more:
            verb = "key differs" if len(more) == 1 else "keys differ"
            _say(f"and {len(more)} more {verb}: --json, or --keys {','.join(more[:2])}")
    if hidden:
        _say(hidden)
