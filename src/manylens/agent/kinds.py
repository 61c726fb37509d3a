"""What each task gives and what each of its arguments takes, so that a plan's references can be checked by type."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

from manylens import media
from manylens.errors import UnknownTaskError
from manylens.tasks import TASKS, Example, ObjectPrompt
from manylens.tasks.prompts import BoxExample, NamedExample

# Result type -> output -> its kind. One row a result type, so a new task that gives one of them is covered.
_OUTPUTS: dict[str, dict[str, str]] = {
    "Detections": {
        "masks": "masks",
        "boxes": "boxes",
        "labels": "texts",
        "count": "number",
        "crop": "image",
    },
    "Tracks": {"objects": "number"},
    "Classification": {"label": "text", "labels": "texts", "score": "number"},
    "Embedding": {"vector": "vector"},
    "Match": {"score": "number"},
    "Caption": {"text": "text"},
    "Answer": {"text": "text"},
    "Reading": {"text": "text", "lines": "texts", "boxes": "boxes"},
    "StructureMap": {"image": "image"},
    "Depth": {"image": "image"},
    "Picture": {"image": "image"},
    "Transcript": {"text": "text"},
    "Speech": {"audio": "audio"},
    "Recognition": {"boxes": "boxes", "masks": "masks", "labels": "texts"},
}

# Kind of an argument -> the kinds of output that can stand there.
_FITS: dict[str, frozenset[str]] = {
    "image": frozenset({"image"}),
    "audio": frozenset({"audio"}),
    "video": frozenset({"video"}),
    "mask": frozenset({"masks"}),
    "box": frozenset({"boxes"}),
    "objects": frozenset({"boxes", "masks"}),
    "text": frozenset({"text", "texts", "number"}),
    "texts": frozenset({"text", "texts"}),
}

_TYPES: dict[str, frozenset[type]] = {
    "image": frozenset({media.Image}),
    "audio": frozenset({media.Audio}),
    "video": frozenset({media.Video}),
    "objects": frozenset({ObjectPrompt}),
    "example": frozenset({Example, BoxExample, NamedExample}),
}

media_kinds = frozenset({"image", "audio", "video", "mask"})
"""Kinds of arguments that name a file."""


def gives(task: str) -> Mapping[str, str]:
    """The outputs of a task that a later step can refer to, each with its kind."""
    return _OUTPUTS.get(TASKS[task].result, {})


def accepts(task: str, argument: str) -> frozenset[str]:
    """The kinds of output that an argument takes; empty where it takes no reference."""
    return _FITS.get(kind_of(task, argument), frozenset())


@cache
def kind_of(task: str, argument: str) -> str:
    """The kind of an argument.

    One of ``image``, ``audio``, ``video``, ``mask``, ``box``, ``objects``, ``example``, ``text``, ``texts``, ``value``.
    """
    if task not in TASKS or argument not in TASKS[task].request.model_fields:
        raise UnknownTaskError(f"{task}: has no argument {argument!r}")
    if argument == "mask":
        return "mask"
    if argument == "box":
        return "box"
    parts = set(_parts(TASKS[task].request.model_fields[argument].annotation))
    for kind, members in _TYPES.items():
        if parts & members:
            return kind
    if str in parts:
        return "texts" if tuple in parts else "text"
    return "value"


def _parts(annotation: Any) -> typing.Iterator[Any]:
    """The plain types that an annotation is made of."""
    origin = typing.get_origin(annotation)
    if origin is None:
        yield annotation
        return
    if origin is typing.Literal:
        return  # a closed list of words takes no free text
    if origin not in (typing.Annotated, typing.Union, types.UnionType):
        yield origin
    for part in typing.get_args(annotation)[: 1 if origin is typing.Annotated else None]:
        yield from _parts(part)
