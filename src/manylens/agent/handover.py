"""What a step hands to a later one: the outputs of results, and how they become arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from manylens.agent.kinds import kind_of, media_kinds
from manylens.agent.plan import Ref
from manylens.errors import ManylensError
from manylens.media import Image
from manylens.models.composed.look import as_box, crop
from manylens.tasks import TASKS


class NothingError(ManylensError):
    """An earlier step found nothing that this one could work on."""


def output(result: Any, name: str, image: Image | None) -> Any:
    """One output of a result, as :mod:`manylens.agent.kinds` names them.

    Args:
        result: A task's result.
        name: The output.
        image: The picture that the result is about.

    Raises:
        NothingError: If there is nothing of the kind in it.
    """
    value = _OUTPUTS[name](result, image)
    if value is None or (isinstance(value, (str, tuple, np.ndarray)) and len(value) == 0):
        raise NothingError("found nothing to go on with")
    return value


def argument(value: Any, task: str, name: str) -> Any:
    """An output in the form that an argument takes.

    A ``mask`` is the union of all masks, a ``box`` the best box, ``objects`` one prompt for each; lists of words become
    one text with commas where a text is wanted.
    """
    kind = kind_of(task, name)
    if kind == "mask":
        return np.asarray(value).any(axis=0)
    if kind == "box":
        return value[0]
    if kind == "objects":
        return [{"box": part} if isinstance(part, tuple) else {"mask": part} for part in value]
    if kind == "text":
        return ", ".join(value) if isinstance(value, tuple) else str(value)
    if kind == "texts":
        return value if isinstance(value, tuple) else (value,)
    return value


def filled(
    args: Mapping[str, Any], task: str, give: Callable[[Ref], Any], media: Callable[[str], Any]
) -> dict[str, Any]:
    """The arguments of a step with its references and its files in place.

    Args:
        args: As the plan has them.
        task: The step's task.
        give: The output that a reference stands for.
        media: The picture, sound or video of a file's name.
    """

    def value_of(value: Any, name: str) -> Any:
        if (ref := Ref.parse(value)) is not None:
            return argument(give(ref), task, name)
        if isinstance(value, (list, tuple)):
            return [value_of(part, name) for part in value]
        if isinstance(value, Mapping):
            return {key: value_of(part, key if key in ("image", "mask") else name) for key, part in value.items()}
        return media(value) if isinstance(value, str) and _names_file(task, name) else value

    return {name: value_of(value, name) for name, value in args.items()}


def named_as(found: Any, labels: Sequence[str]) -> Any:
    """Detections cut out of another step's boxes, with that step's names; the best mask of each box is kept."""
    owner = np.asarray(found.data["object"])
    best = found[np.array([np.flatnonzero(owner == number)[0] for number in np.unique(owner)], dtype=int)]
    best = best[np.argsort(-best.confidence, kind="stable")]
    names = [str(labels[int(number)]) if int(number) < len(labels) else "" for number in best.data["object"]]
    best.data["class_name"] = np.array(names, dtype=str)
    best.metadata = found.metadata
    return best


def _names_file(task: str, name: str) -> bool:
    """Whether an argument, or the part of an example with that name, is a file."""
    if name in TASKS[task].request.model_fields:
        return kind_of(task, name) in media_kinds
    return name in ("image", "mask")


def _crop(found: Any, image: Image | None) -> Image | None:
    if image is None or not len(found):
        return None
    part = crop(image, as_box(found.xyxy[0]))
    part.name = f"{image.name} ({found.data['class_name'][0] or 'part'})"
    return part


def _texts(result: Any, image: Image | None) -> tuple[str, ...]:
    if hasattr(result, "xyxy"):
        return tuple(dict.fromkeys(str(name) for name in result.data["class_name"]))
    named = getattr(result, "labels", ()) or getattr(result, "regions", ())
    return tuple(item.name for item in named)


def _boxes(result: Any, image: Image | None) -> tuple[Any, ...]:
    if hasattr(result, "xyxy"):
        return tuple(as_box(row) for row in result.xyxy)
    items = getattr(result, "lines", ()) or getattr(result, "regions", ())
    return tuple(item.box for item in items)


def _masks(result: Any, image: Image | None) -> Any:
    if hasattr(result, "xyxy"):
        return result.mask
    from manylens.media import from_rle

    return np.array([from_rle(region.mask) for region in result.regions if region.mask is not None])


def _image(result: Any, image: Image | None) -> Image | None:
    made = getattr(result, "image", None)
    if made is not None:
        return made
    from manylens.render import draw

    drawn = draw(image, result) if image is not None else None
    return None if drawn is None else Image.of(drawn)


_OUTPUTS: dict[str, Callable[[Any, Image | None], Any]] = {
    "masks": _masks,
    "boxes": _boxes,
    "labels": _texts,
    "lines": lambda result, image: tuple(line.text for line in result.lines),
    "count": lambda result, image: len(result),
    "objects": lambda result, image: len(result.ids),
    "crop": _crop,
    "label": lambda result, image: result.best.name if result.labels else None,
    "score": lambda result, image: result.best.score if hasattr(result, "labels") else result.score,
    "text": lambda result, image: result.text,
    "image": _image,
    "vector": lambda result, image: result.vector,
    "audio": lambda result, image: result,
}
