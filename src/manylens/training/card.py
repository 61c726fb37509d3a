"""The model card: ``README.md`` in a trained model's folder, in the form that a model hub reads."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manylens.catalog.trained import base_of
from manylens.errors import OutputError
from manylens.models import checkpoint
from manylens.runtime.cpu import cpu_name, threads
from manylens.runtime.paths import replacing
from manylens.training import card_data, card_figures
from manylens.training.config import Config, RecordSection
from manylens.training.recipes import RECIPES, find

if TYPE_CHECKING:
    from manylens.data import Dataset
    from manylens.session import Session

CARD = "README.md"
PICTURES = RecordSection().pictures
"""Of the validation split that the figures are of, at most."""

_FEW = 30
"""Of so few pictures an interval sees too little."""


def write(
    model: Path,
    record: Mapping[str, Any],
    config: Config,
    data: Dataset,
    session: Session,
    *,
    pictures: int = PICTURES,
    progress: Callable[[float, str], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Measure a saved model, and write its card.

    The figures are those of the saved model, as anyone loads it: where they are not those that the training had, the
    card says so, and so does ``say``.

    Args:
        model: Folder of the model.
        record: What the run's ``run.json`` holds.
        config: Of the run.
        data: With the splits that it used.
        session: Runs the model.
        pictures: The most that it is measured on; 0 for a card without figures.
        progress: Called with the share done and a line.
        say: Called with a line that the user should read.

    Returns:
        The card.

    Raises:
        OutputError: It cannot be written.
    """
    kind = kind_of(model)
    measured, unmeasured = card_figures.measured(
        kind, model, record, config, data, session, pictures=pictures, progress=progress
    )
    for one in measured:
        for line in one["differs"]:
            if say is not None:
                say(line)
    path = model / CARD
    try:
        with replacing(path) as file:
            file.write(_rendered(kind, model, record, config, data, session, measured, unmeasured).encode())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})", "make room") from error
    return path


@cache
def texts() -> Mapping[str, Any]:
    """What cards say, from ``data/card.toml``."""
    text = resources.files("manylens.training").joinpath("data/card.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def kind_of(model: Path) -> dict[str, Any]:
    """What a card says of the model in a folder: a section of ``card.toml``, filled in."""
    values = checkpoint.config({checkpoint.CONFIG: model / checkpoint.CONFIG}, str(model))
    built = str((values.get("architectures") or [""])[0])
    built = texts()["same"].get(built, built)
    labels = tuple(values.get("labels") or ()) if base_of(model) else ()
    family = str(values.get("model_type"))
    if built == "AdaptedPromptable" or family.startswith("sam"):
        name = "promptable"
    else:
        name = "example" if family == "seggpt" else built if built in texts() else "encoder"
    details = values.get("details") or {}
    filled = {"folder": "path/to/this/folder", "kind": details.get("kind", ""), "classes": len(labels)}
    return {**_filled(texts()[name], filled), "labels": labels, "name": name}


def _filled(value: Any, given: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        for name, one in given.items():
            value = value.replace(f"{{{name}}}", str(one))
        return value
    if isinstance(value, Mapping):
        return {name: _filled(one, given) for name, one in value.items()}
    return [_filled(one, given) for one in value] if isinstance(value, list) else value


# ------------------------------------------------------------------ the page


def _rendered(
    kind: Mapping[str, Any],
    model: Path,
    record: Mapping[str, Any],
    config: Config,
    data: Dataset,
    session: Session,
    measured: Sequence[Mapping[str, Any]],
    unmeasured: Sequence[str],
) -> str:
    import yaml
    from jinja2 import Environment, PackageLoader, StrictUndefined

    base = {**record["base"], "name": _public(str(record["base"]["id"]))}
    scratch = bool(config.options.get("scratch"))
    title = f"{data.name or 'pictures'}, {config.task}"
    recipe = str(record.get("recipe") or find(config.task, config.recipe)[0])
    says = f" ({RECIPES[recipe].says})" if recipe in RECIPES else ""
    changed = _changed(config.to_json(), Config.of({"task": config.task}).to_json())
    counts = card_data.counts(data)
    files = {path.name: path for path in model.rglob("*.safetensors")}
    values: dict[str, Any] = {
        "front": yaml.safe_dump(
            _front(kind, {} if scratch else base, data, title, measured), sort_keys=False, allow_unicode=True
        ),
        "title": title,
        "does": kind["does"],
        "classes": [_one_line(label) for label in kind["labels"]],
        "python": kind["python"],
        "command": kind["command"],
        "adapted": base_of(model) is not None,
        "encoder": any(name.startswith("encoder.") for name in checkpoint.names(files, str(model))),
        "base": base,
        "scratch": scratch,
        "data": record["data"],
        "splits": [[name or "(none)", number] for name, number in data.splits.items()],
        "used": config.data,
        "counts": counts,
        "rights": card_data.rights(config.data, data),
        "recipe": f"By the recipe `{recipe}`{says}, transfer `{config.transfer.mode}`.",
        "ensemble": config.ensemble.kind,
        "members": [[one["name"], f"{one['share']:.3f}"] for one in record.get("members") or ()],
        "config": yaml.safe_dump(changed, sort_keys=False, allow_unicode=True) if changed else "",
        "call": _call(record.get("command") or []),
        "epochs": record.get("epochs", ""),
        "best_epoch": record.get("best_epoch"),
        "seed": config.seed,
        "seconds": _seconds(record.get("seconds") or {}),
        "energy": _energy(record.get("seconds") or {}, session),
        "machine": _machine(config),
        "versions": {name: one for name, one in record["versions"].items() if one},
        "git": record.get("git") or {},
        "notes": [_one_line(note) for note in record.get("notes") or ()],
        "measured": measured,
        "unmeasured": unmeasured,
        "trained": [] if measured else [[name, f"{one:.4g}"] for name, one in (record.get("figures") or {}).items()],
        "failures": card_figures.failures(measured, counts, config.data.train),
        "few": any(one["judged"] < _FEW for one in measured),
        "never": [*texts()["general"]["never"], *kind["never"], *([] if scratch else _commercial(base))],
    }
    environment = Environment(
        loader=PackageLoader("manylens.training", "data"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["table"] = table
    return environment.get_template("card.md.j2").render(**values)


def _front(
    kind: Mapping[str, Any],
    base: Mapping[str, str],
    data: Dataset,
    title: str,
    measured: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The part that a model hub reads by machine."""
    licence = base.get("licence") or "not stated"
    front: dict[str, Any] = {"license": licence.lower()}
    if licence.lower() not in texts()["licences"]["known"]:
        front = {"license": "other", "license_name": licence.lower().replace(" ", "-")}
    front["library_name"] = "manylens"
    front["pipeline_tag"] = kind["pipeline"]
    if base and not Path(str(base["id"])).is_absolute():
        front["base_model"] = base["id"]
    front["tags"] = ["manylens", kind["pipeline"]]
    metrics: Mapping[str, str] = texts()["metrics"]
    results = []
    for one in measured:
        values = [
            {"type": metrics.get(name, name), "name": f"{name}, 95 % {interval}" if interval else name, "value": value}
            for name, value, interval in one["figures"]
        ]
        results.append(
            {
                "task": {"type": kind["pipeline"]},
                "dataset": {"name": data.name or "pictures", "type": data.name or "pictures", "split": one["split"]},
                "metrics": values,
            }
        )
    if results:
        named = [metrics[name] for one in measured for name, _, _ in one["figures"] if name in metrics]
        front["metrics"] = list(dict.fromkeys(named))
        front["model-index"] = [{"name": title, "results": results}]
    return front


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown; what would end a cell is told otherwise."""
    lines = [_row(header), _row(["---"] * len(header)), *map(_row, rows)]
    return "\n".join(lines)


def _row(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(_one_line(str(cell)).replace('|', chr(92) + '|') for cell in cells)} |"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _public(id: str) -> str:
    """A name that says nothing of this machine."""
    return Path(id).name if Path(id).is_absolute() else id


def _changed(values: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Those of nested values that are not the usual ones."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(usual.get(key), Mapping) and usual[key]:
            inner = _changed(value, usual[key])
            found |= {key: inner} if inner else {}
        elif value != usual.get(key):
            found[key] = _public(value) if isinstance(value, str) else value
    return found


def _call(words: Sequence[str]) -> str:
    """The command, where there was one."""
    if not words or Path(words[0]).name not in ("manylens", "__main__.py"):
        return ""
    return shlex.join(["manylens", *map(str, words[1:])])


def _seconds(parts: Mapping[str, float]) -> str:
    if not parts:
        return "not known"
    said = ", ".join(f"{name} {value:.1f} s" for name, value in parts.items())
    return f"{sum(parts.values()):.1f} s ({said})"


def _energy(parts: Mapping[str, float], session: Session) -> str:
    """By the rates of this machine; empty where nobody said what it draws."""
    rates = session.rates
    if not (rates.watts and parts):
        return ""
    energy = rates.energy(sum(parts.values()))
    co2 = f", {energy * rates.co2:.2g} kg CO2" if rates.co2 else ""
    return f"{energy:.2g} kWh at {rates.watts:g} W{co2}; counted from the time, not measured."


def _machine(config: Config) -> str:
    import torch

    said = f"{cpu_name()}, {threads()} cores"
    if config.loop.device != "cpu" and torch.cuda.is_available():
        said += f"; {torch.cuda.get_device_name()}, {config.loop.devices} on each of {config.loop.nodes} machine(s)"
    return f"{said}; precision {config.loop.precision}"


def _commercial(base: Mapping[str, str]) -> list[str]:
    licence = (base.get("licence") or "").lower()
    if "-nc" in licence or "non-commercial" in licence:
        return [f"The licence of its base, {base['licence']}, forbids commercial use."]
    return []
