"""The protocols: for each measure, the task that it judges, the truth that it needs, and what the model is asked.

A measure either judges one finished prediction a record (:class:`Asked`: the runner asks the model and hands over what
comes back) or runs the model itself (:class:`Driven`: clicks that depend on the last mask, episodes, probes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import islice
from typing import TYPE_CHECKING, Any

from manylens.data.problems import DataError
from manylens.errors import UnsupportedError
from manylens.evaluation import asking
from manylens.tasks import TASKS, get

if TYPE_CHECKING:
    from collections.abc import Iterable

    from manylens.data.records import Category, Record

PROMPTS = ("click", "box", "none")
_LOOKED_AT = 200


@dataclass(frozen=True)
class Facts:
    """What a data set holds, as far as its first records show.

    Attributes:
        holds: Of ``labels``, ``boxes``, ``masks``, ``captions``, ``depth``, ``video``, ``questions``, ``text``,
            ``splits`` (two at least).
        things: Whether a class is a thing.
        stuff: Whether a class is stuff.
    """

    holds: frozenset[str]
    things: bool = True
    stuff: bool = False

    @classmethod
    def of(cls, records: Iterable[Record], categories: Sequence[Category], splits: int = 0) -> Facts:
        """Look at the first records."""
        seen: set[str] = {"splits"} if splits > 1 else set()
        for record in islice(records, _LOOKED_AT):
            seen |= {name for name in ("captions", "depth", "video", "text") if record.columns.get(name)}
            seen |= {"labels"} if record.label else set()
            for one in record.annotations:
                seen |= {"boxes"} if one.box is not None else set()
                seen |= {"masks"} if one.mask is not None else set()
                seen |= {"questions"} if "question" in one.columns else set()
                seen |= {"text"} if one.columns.get("text") is not None else set()
        return cls(
            frozenset(seen), any(one.is_thing for one in categories), any(not one.is_thing for one in categories)
        )


@dataclass(frozen=True)
class Protocol:
    """How one measure is taken.

    Attributes:
        name: Of the measure, for ``--measure``.
        tasks: The tasks whose quality it says something of.
        needs: What the data must hold, of :attr:`Facts.holds`; any one of them will do.
        also: What it must hold besides, all of it.
        home: ``module:name``, in ``measures``, of the measure's class or function, loaded when it is needed.
        says: What it reports, in a few words.
        options: Options of the measure that a caller may set.
        forms: Forms of saved predictions that it judges, see :class:`manylens.evaluation.predictions.Saved`; its own
            first.
    """

    name: str
    tasks: tuple[str, ...]
    needs: tuple[str, ...]
    home: str
    says: str
    options: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()

    def load(self) -> Any:
        """The measure's class or function."""
        module, _, name = self.home.partition(":")
        return getattr(import_module(f"manylens.evaluation.measures.{module}"), name)


@dataclass(frozen=True)
class Asked(Protocol):
    """A measure that judges one prediction a record.

    Attributes:
        calls: The task that the model runs.
        ask: The requests of a record, by key.
        take: What the measure judges, from the results by key; a request that failed has none.
        per_class: Whether it asks for the classes of the data by name.
        resumes: Whether results can be kept in a journal, and a stopped run goes on from there.
        regroups: Whether slices by annotation need the measure taken again for each group, the annotations of others
            being ignored; else its units are sliced.
        adopt: What the measure judges, from a saved prediction of another form.
        fixed: Arguments of the measure's class.
    """

    calls: str = ""
    ask: Callable[[Record, asking.Setup], Mapping[str, Mapping[str, Any]]] = asking.picture
    take: Callable[[Record, Mapping[str, Any], asking.Setup], Any] = asking.only
    per_class: bool = False
    resumes: bool = True
    regroups: bool = False
    adopt: Callable[[Any], Any] = asking.unchanged
    fixed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Driven(Protocol):
    """A measure that runs the model itself.

    Attributes:
        calls: The task that the model runs.
        keeps: Whether it takes ``done`` and ``on_unit``, so that a stopped run goes on.
        saved: The measure that judges saved predictions of the same protocol, ``module:name``; empty for none.
        fixed: Arguments of that measure.
    """

    calls: str = ""
    keeps: bool = False
    saved: str = ""
    fixed: Mapping[str, Any] = field(default_factory=dict)


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Asked(
            "classification",
            ("classify",),
            ("labels",),
            "classification:Classification",
            "accuracy, top-5, macro F1, AUROC, calibration",
            forms=("labels",),
            calls="classify",
            ask=asking.labels,
            per_class=True,
        ),
        Asked(
            "detection",
            ("detect",),
            ("boxes", "masks"),
            "detection:Detection",
            "average precision of boxes",
            forms=("regions",),
            calls="detect",
            ask=asking.boxes,
            take=asking.regions,
            per_class=True,
            regroups=True,
        ),
        Asked(
            "instance",
            ("segment",),
            ("masks",),
            "detection:Detection",
            "average precision of masks",
            forms=("regions",),
            calls="segment",
            ask=asking.instances,
            take=asking.regions,
            per_class=True,
            regroups=True,
            fixed={"kind": "mask"},
        ),
        Asked(
            "semantic",
            ("segment",),
            ("masks",),
            "semantic:Semantic",
            "mean IoU of classes, boundary IoU",
            forms=(
                "regions",
                "classes",
            ),
            calls="segment",
            ask=asking.mode("semantic"),
            take=asking.regions,
        ),
        Asked(
            "panoptic",
            ("segment",),
            ("masks",),
            "panoptic:Panoptic",
            "PQ, SQ, RQ of things and stuff",
            forms=(
                "regions",
                "panoptic",
            ),
            calls="segment",
            ask=asking.mode("panoptic"),
            take=asking.regions,
        ),
        Driven(
            "clicks",
            ("segment",),
            ("masks",),
            "promptable:run_clicks",
            "IoU after 1 to N simulated clicks, clicks to 85 and 90 %",
            ("clicks", "previous_mask"),
            forms=("prompted",),
            calls="segment",
            keeps=True,
            saved="promptable:PromptableMeasure",
            fixed={"prompt": "click"},
        ),
        Driven(
            "boxes",
            ("segment",),
            ("masks",),
            "promptable:run_boxes",
            "IoU of masks from boxes",
            forms=("prompted",),
            calls="segment",
            keeps=True,
            saved="promptable:PromptableMeasure",
            fixed={"prompt": "box"},
        ),
        Driven(
            "few-shot",
            ("segment",),
            ("masks",),
            "fewshot:run",
            "mIoU of masks from examples, in episodes",
            ("protocol", "fold", "shots", "count"),
            calls="segment",
            keeps=True,
        ),
        Driven(
            "features",
            ("embed",),
            ("labels",),
            "features:run",
            "accuracy of k nearest neighbours and of a linear classifier",
            ("train", "val", "neighbours", "penalties"),
            ("splits",),
            calls="embed",
        ),
        Asked(
            "retrieval",
            ("embed", "match"),
            ("captions", "labels"),
            "retrieval:Retrieval",
            "recall at 1, 5 and 10",
            forms=("vectors",),
            calls="embed",
            ask=asking.vectors,
            take=asking.found,
            adopt=asking.as_found,
        ),
        Driven(
            "tracks",
            ("track",),
            ("video",),
            "following:run",
            "J&F of masks that the model tracks",
            ("last",),
            ("masks",),
            calls="track",
            keeps=True,
        ),
        Driven(
            "propagation",
            ("track", "embed"),
            ("video",),
            "propagation:run",
            "J&F of masks carried on by patch features",
            ("how", "last"),
            ("masks",),
            calls="embed",
            keeps=True,
        ),
        Asked(
            "captions",
            ("caption",),
            ("captions",),
            "captions:Captions",
            "CIDEr-D, BLEU-4, chrF",
            forms=("texts",),
            calls="caption",
        ),
        Asked(
            "answers",
            ("answer",),
            ("questions",),
            "answers:Answers",
            "VQA accuracy",
            forms=("answers",),
            calls="answer",
            ask=asking.questions,
            take=asking.by_key,
        ),
        Asked(
            "reading",
            ("read",),
            ("text",),
            "reading:Text",
            "character and word error rate",
            ("fold",),
            forms=("readings",),
            calls="read",
        ),
        Asked(
            "depth",
            ("depth",),
            ("depth",),
            "depth:DepthMaps",
            "AbsRel, delta",
            ("png_scale", "nearest", "farthest", "align"),
            forms=("depths",),
            calls="depth",
            resumes=False,
        ),
        Driven(
            "generation",
            ("generate",),
            ("captions",),
            "making:run",
            "FID, KID, and likeness to the words",
            ("features", "reference"),
            forms=("vectors",),
            calls="generate",
            saved="making:OfFeatures",
        ),
    )
}
"""Every measure by name."""


def names() -> str:
    """All measures, for errors."""
    return ", ".join(PROTOCOLS)


def choose(task: str, facts: Facts, *, measure: str | None, prompt: str | None, takes: frozenset[str]) -> Protocol:
    """The protocol that fits what was asked and what the data holds.

    Args:
        task: The task to measure.
        facts: What the data holds.
        measure: The measure that was named, or None.
        prompt: One of :data:`PROMPTS`, or None.
        takes: What the model takes for the task, as the catalog says; empty where it is not known.

    Raises:
        UnsupportedError: No measure judges the task, or the measure named judges another one.
        DataError: The data does not hold the truth that is needed.
    """
    task = get(task).name
    if prompt is not None and prompt not in PROMPTS:
        raise UnsupportedError(f"prompt {prompt!r}: not known", f"give one of {', '.join(PROMPTS)}")
    if prompt is not None and task != "segment":
        raise UnsupportedError(f"prompt {prompt!r}: {task} takes none", "leave --prompt away")
    if measure is not None:
        if measure not in PROTOCOLS:
            raise UnsupportedError(f"measure {measure!r}: not known", f"name one of {names()}")
        found = PROTOCOLS[measure]
        if task not in found.tasks:
            able = ", ".join(p.name for p in PROTOCOLS.values() if task in p.tasks) or "none"
            raise UnsupportedError(
                f"measure {measure!r}: judges {' and '.join(found.tasks)}, not {task}", f"for {task} there is {able}"
            )
    else:
        found = PROTOCOLS[_usual(task, facts, prompt, takes)]
    if not _fits(found, facts):
        there = ", ".join(sorted(facts.holds)) or "nothing of the kind"
        wanted = " and ".join((" or ".join(found.needs), *found.also))
        raise DataError(
            f"{found.name} needs {wanted}, and the data holds {there}",
            "name another --measure, or give data that holds them",
        )
    return found


def _fits(protocol: Protocol, facts: Facts) -> bool:
    return bool(facts.holds & set(protocol.needs)) and facts.holds >= set(protocol.also)


def _usual(task: str, facts: Facts, prompt: str | None, takes: frozenset[str]) -> str:
    if task == "segment":
        return _usual_of_masks(facts, prompt, takes)
    able = [p for p in PROTOCOLS.values() if task in p.tasks]
    if not able:
        judged = ", ".join(name for name in TASKS if any(name in p.tasks for p in PROTOCOLS.values()))
        raise UnsupportedError(f"{task}: no measure judges this task", f"measures judge {judged}")
    return next((p.name for p in able if _fits(p, facts)), able[0].name)


def _usual_of_masks(facts: Facts, prompt: str | None, takes: frozenset[str]) -> str:
    if prompt == "click":
        return "clicks"
    if prompt == "box":
        return "boxes"
    closed = "panoptic" if facts.things and facts.stuff else "semantic" if facts.stuff else "instance"
    prompted = not takes or bool(takes & {"points", "box"})
    return "clicks" if prompt is None and closed == "instance" and prompted else closed
