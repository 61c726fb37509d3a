"""What a model card says of how good a model is: figures of the saved model with intervals, and where it fails."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.errors import ManylensError

if TYPE_CHECKING:
    from manylens.data import Dataset
    from manylens.evaluation.intervals import Estimate
    from manylens.evaluation.results import Evaluation
    from manylens.session import Session
    from manylens.training.config import Config

RESAMPLES = 300
"""Of the bootstrap: enough for an interval of two digits."""

_CLASSES = 30
_WORST_CLASSES, _WORST_PICTURES, _CONFUSIONS = 3, 8, 3
_FEW = 20
"""Of so few pictures little is learnt of a class."""

_EXACT = "accuracy"
"""The figure that the training counts exactly as the measure does."""


def measured(
    kind: Mapping[str, Any],
    model: Path,
    record: Mapping[str, Any],
    config: Config,
    data: Dataset,
    session: Session,
    *,
    pictures: int,
    progress: Callable[[float, str], None] | None = None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure a saved model on the validation split, and what could not be measured.

    Arguments as of :func:`manylens.training.card.write`; ``kind`` is what the model is.

    Returns:
        For each measure what the card shows of it; and a line for each that could not be taken.
    """
    section = config.data
    if not pictures:
        return [], ["It was not measured for this card."]
    if not data.splits.get(section.val):
        return [], ["There was no validation split: nothing is known of how good it is on other pictures."]
    found, failed = [], []
    if not kind["measures"]:
        failed.append("There is no measure for what it does.")
    for options in kind["measures"]:
        both = options["measure"] == "features"
        splits = (section.train, section.val) if both else (section.val,)
        part = _some(data, splits, pictures, config.seed)
        given = {name: one for name, one in options.items() if name not in ("task", "measure", "prompt")}
        if both:
            given |= {"train": section.train, "val": section.val}
        try:
            made = _evaluated(part, model, options, given, session, config.seed, progress)
        except ManylensError as error:
            failed.append(f"Not measured by {options['measure']}: {error.what}.")
            continue
        whole = data.splits[section.val]
        found.append(_shown(made, whole, section.val, record, kind))
    return found, failed


def _some(data: Dataset, splits: Sequence[str], most: int, seed: int) -> Dataset:
    """At most so many pictures of each split, drawn without a look at them."""
    ids: list[str] = []
    for split in splits:
        mine = data.select(split=split).values("id")
        order = np.random.default_rng((seed, 0xCA4D)).permutation(len(mine))[:most]
        ids += [mine[place] for place in sorted(order.tolist())]
    return data.select(ids=ids)


def _evaluated(
    part: Dataset,
    model: Path,
    options: Mapping[str, Any],
    given: Mapping[str, Any],
    session: Session,
    seed: int,
    progress: Callable[[float, str], None] | None,
) -> Evaluation:
    from manylens.evaluation.evaluate import evaluate

    def told(done: float, line: str) -> None:
        if progress is not None:
            progress(done, f"the card: measuring picture {max(round(done * len(part)), 1)} of {len(part)}")

    return evaluate(
        part,
        task=options["task"],
        measure=options["measure"],
        prompt=options.get("prompt"),
        model=str(model),
        session=session,
        resamples=RESAMPLES,
        seed=seed,
        progress=told,
        **given,
    )


def _shown(
    made: Evaluation, whole: int, split: str, record: Mapping[str, Any], kind: Mapping[str, Any]
) -> dict[str, Any]:
    """What the card shows of an evaluation."""
    from manylens.training.card import texts

    units, count = made.tally.units, len(made.tally.units)
    judged = len(set(units.clusters))
    names: Mapping[str, str] = texts()["names"]
    trained = {names[key]: value for key, value in (record.get("figures") or {}).items() if key in names}
    idle = {"top-5"} if len(kind["labels"]) <= 5 else set()
    plain = {
        name: one
        for name, one in made.figures.items()
        if "/" not in name and name not in idle and not math.isnan(one.value)
    }
    rows = [
        [name, _digits(one.value), _interval(one) or "-", _digits(trained[name]) if name in trained else "-"]
        for name, one in plain.items()
    ]
    of = f"{judged} pictures" if judged == whole else f"{judged} of the {whole} pictures, drawn at random,"
    things = "" if count == judged else f" with {count} {units.kind}s"
    engine = f" ({made.model.engine} {made.model.precision})" if made.model.engine else ""
    columns, classes, more = _by_class(made)
    differs = _differs(plain, trained, judged, whole, names)
    return {
        "says": f"The saved model{engine}, measured by `{made.measure}` on {of}{things} of the split {split}:",
        "rows": rows,
        "figures": [(name, round(one.value, 6), _interval(one)) for name, one in plain.items()],
        "notes": [*differs, *(f"Note: {note}." for note in made.notes[1:])],
        "differs": differs,
        "columns": columns,
        "classes": classes,
        "more": more,
        "split": split,
        "judged": judged,
        "evaluation": made,
    }


def _differs(
    plain: Mapping[str, Estimate], trained: Mapping[str, float], judged: int, whole: int, names: Mapping[str, str]
) -> list[str]:
    """Where the saved model is not as good as the trained one was on the same pictures.

    A picture at the edge between two classes may go either way: engine and precision move the last digits.
    """
    name = names[_EXACT]
    if judged != whole or name not in plain or name not in trained:
        return []
    if abs(plain[name].value - trained[name]) <= max(0.02, 1.5 / judged):
        return []
    return [
        f"The saved model has {name} {_digits(plain[name].value)}, where the training had {_digits(trained[name])} "
        "on the same pictures: something differs between the two."
    ]


def _by_class(made: Evaluation) -> tuple[list[str], list[list[str]], int]:
    """Columns, a row for each class, the worst first where they are many, and how many are left out."""
    groups: dict[str, dict[str, Estimate]] = {}
    for name, one in made.figures.items():
        figure, mark, group = name.partition("/")
        if mark:
            groups.setdefault(group, {})[figure] = one
    columns = list(dict.fromkeys(figure for found in groups.values() for figure in found))
    known = {name: found for name, found in groups.items() if any(not math.isnan(one.value) for one in found.values())}
    order = list(known)
    if len(order) > _CLASSES:
        order = sorted(order, key=lambda name: _first(known[name]))[:_CLASSES]
    rows = [[name, *(str(known[name].get(figure, "-")) for figure in columns)] for name in order]
    return columns, rows, len(known) - len(order)


def _first(found: Mapping[str, Estimate]) -> float:
    """A class's first figure; a class without one comes last."""
    value = next(iter(found.values())).value
    return math.inf if math.isnan(value) else value


def failures(measured: Sequence[Mapping[str, Any]], counts: Mapping[str, Any], train: str) -> list[str]:
    """Where the model is known to fail: the worst classes, confusions and pictures, and what it saw little of."""
    lines = []
    for one in measured:
        made: Evaluation = one["evaluation"]
        lines += _worst_classes(made)
        lines += _confusions(made)
        lines += _worst_pictures(made)
    few = {name: found.get(train, 0) for name, found in counts["by_class"].items() if found.get(train, 0) < _FEW}
    if few:
        shown = ", ".join(f"{name} ({number})" for name, number in sorted(few.items(), key=lambda row: row[1])[:10])
        more = f" and {len(few) - 10} more" if len(few) > 10 else ""
        lines.append(f"It learnt these classes from fewer than {_FEW} pictures: {shown}{more}.")
    return lines


def _worst_classes(made: Evaluation) -> list[str]:
    found: dict[str, tuple[str, Estimate]] = {}
    for name, one in made.figures.items():
        figure, mark, group = name.partition("/")
        if mark and group not in found and not math.isnan(one.value):
            found[group] = (figure, one)
    worst = sorted((row for row in found.items() if row[1][1].value < 1), key=lambda row: row[1][1].value)
    if len(found) < 2 or not worst:
        return []
    said = ", ".join(f"{group} ({figure} {one})" for group, (figure, one) in worst[:_WORST_CLASSES])
    return [f"Worst classes: {said}."]


def _confusions(made: Evaluation) -> list[str]:
    rows = (made.details.get("confusions") or {}).get("rows", [])[:_CONFUSIONS]
    said = ", ".join(f"{truth} for {guess} ({times})" for truth, guess, times in rows)
    return [f"Most often taken for another: {said}."] if said else []


def _worst_pictures(made: Evaluation) -> list[str]:
    """Those that came off worst; of pictures that have one answer, only those with a wrong one."""
    if made.measure == "classification":
        wrong = [one for one in made.worst if one.score < 0][:_WORST_PICTURES]
        said = ", ".join(f"`{one.unit}` ({_digits(-one.score)})" for one in wrong)
        return [f"Wrong pictures, the surest first, with the score of the wrong label: {said}."] if said else []
    worst = [one for one in made.worst if one.score < 1][:_WORST_PICTURES]
    said = ", ".join(f"`{one.unit}` ({_digits(one.score)})" for one in worst)
    return [f"Came off worst, by {made.tally.score_name}: {said}."] if said else []


def _digits(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def _interval(one: Estimate) -> str:
    return "" if math.isnan(one.low) else f"{_digits(one.low)} to {_digits(one.high)}"
