"""Requests to Detections: each way of asking the region segmenter, with its own module behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from manylens.media import Image, bounds
from manylens.models.dense.matching import Shown
from manylens.models.examples import arranged
from manylens.models.regions import like
from manylens.models.regions.everything import everything
from manylens.models.regions.main import main_object
from manylens.models.regions.solver import Candidate, Scene, solve
from manylens.runtime.context import Context
from manylens.tasks import DetectRequest, SegmentRequest, detections
from manylens.tasks.geometry import clip_box
from manylens.tasks.prompts import BoxExample, Example

MASK_BYTES = 600 << 20  # of all masks of one answer: fewer come back of a huge picture, and the notes say so
FEWEST, MOST = 10, 100


class Look(Protocol):
    """What the encoders see in a picture, kept between requests."""

    def scene(self, image: Image) -> Scene: ...  # noqa: D102

    def patches(self, image: Image) -> np.ndarray: ...  # noqa: D102


def answer(request: SegmentRequest | DetectRequest, look: Look, ctx: Context) -> Any:
    """The Detections that a request asks for."""
    if isinstance(request, DetectRequest):
        return _boxes_like(request, look, ctx)
    if request.mode == "everything":
        return _everything(request, look, ctx)
    if request.mode == "main":
        return _main(request, look, ctx)
    if request.like:
        return _masks_like(request, look, ctx)
    return _pointed(request, look, ctx)


def _pointed(request: SegmentRequest, look: Look, ctx: Context) -> Any:
    image, scene = request.image, look.scene(request.image)
    found: list[Candidate] = []
    objects: list[int] = []
    for number, prompt in enumerate(request.prompts()):
        ctx.check()
        points = [*prompt.points, *prompt.background_points]
        labels = [1] * len(prompt.points) + [0] * len(prompt.background_points)
        box = clip_box(prompt.box, image.size) if prompt.box is not None else None
        answers = solve(scene, points=points, labels=labels, box=box, mask=prompt.mask)
        found += answers
        objects += [number] * len(answers)
    return _detections(found, image, objects=objects, levels=[one.level for one in found])


def _everything(request: SegmentRequest, look: Look, ctx: Context) -> Any:
    image = request.image
    if request.points_per_side is not None:
        _say(ctx, "points per side are not used: the regions come from hierarchies, not from a grid of points")
    most = int(np.clip(MASK_BYTES // (image.width * image.height), FEWEST, MOST))
    if most < MOST:
        _say(ctx, f"at most {most} masks of a picture of {image.width}x{image.height} pixels")
    scene = look.scene(image)
    ctx.check()
    found = [one for one in everything(scene, image.array, most=most) if one.score >= (request.threshold or 0.0)]
    if not found:
        _say(ctx, "no region stands out")
    return _detections(found, image, objects=range(len(found)), levels=[one.level for one in found])


def _main(request: SegmentRequest, look: Look, ctx: Context) -> Any:
    scene = look.scene(request.image)
    ctx.check()
    found = main_object(scene)
    if found is None or found.score < (request.threshold or 0.0):
        _say(ctx, "nothing stands out from the rest of the picture")
        return _detections([], request.image)
    return _detections([found], request.image)


def _masks_like(request: SegmentRequest, look: Look, ctx: Context) -> Any:
    image, scene = request.image, look.scene(request.image)
    names, classes = _classes(request.like, look, ctx)
    least = like.LEAST if request.threshold is None else request.threshold
    found, kept = [], []
    for name, one in zip(names, like.find(scene, look.patches(image), classes), strict=True):
        ctx.check()
        if one.member.any() and one.score >= least:
            found.append(Candidate(scene.full(one.member), one.score, "whole"))
            kept.append(name)
        else:
            _say(ctx, f"{name or 'the thing'} is not there: likeness {one.score:.2f} is below {least:.2f}")
    numbers = [names.index(name) for name in kept]
    return arranged(_detections(found, image, names=kept, class_ids=numbers, objects=numbers), request, ctx)


def _boxes_like(request: DetectRequest, look: Look, ctx: Context) -> Any:
    image, scene = request.image, look.scene(request.image)
    names, classes = _classes(request.like, look, ctx)
    boxes, scores, kept = [], [], []
    for name, instances in zip(names, like.instances(scene, look.patches(image), classes), strict=True):
        ctx.check()
        for one in instances:
            if one.score >= request.threshold:
                boxes.append(bounds(scene.full(one.member)))
                scores.append(one.score)
                kept.append(name)
        if name not in kept:
            best = max((one.score for one in instances), default=0.0)
            _say(ctx, f"{name or 'the thing'} is not there: likeness {best:.2f} is below {request.threshold:.2f}")
    return detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        scores,
        names=kept,
        class_ids=[names.index(name) for name in kept],
        objects=[names.index(name) for name in kept],
    )


def _classes(
    examples: Sequence[Example] | Sequence[BoxExample], look: Look, ctx: Context
) -> tuple[list[str], list[list[Shown]]]:
    """Names of the classes in the order of first mention, and the examples of each."""
    found: dict[str, list[Shown]] = {}
    for example in examples:
        ctx.check()
        patches = look.patches(example.image)
        if isinstance(example, Example):
            one = like.shown(patches, example.mask)
        else:
            one = like.shown_one(patches, _in_box(example, look))
        found.setdefault(example.name or "", []).append(one)
    return list(found), list(found.values())


def _in_box(example: BoxExample, look: Look) -> np.ndarray:
    """The thing in an example box, bool (H, W): what surrounds it in the box would be looked for too."""
    box = clip_box(example.box, example.image.size)
    return solve(look.scene(example.image), box=box)[0].mask


def _detections(found: Sequence[Candidate], image: Image, **columns: Any) -> Any:
    masks = np.stack([one.mask for one in found]) if found else np.zeros((0, image.height, image.width), bool)
    return detections(boxes_of(masks), [one.score for one in found], masks=masks, **columns)


def _say(ctx: Context, note: str) -> None:
    ctx.notes.setdefault("notes", []).append(note)


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """Tight boxes ``xyxy``, max exclusive, float32 ``(N, 4)``, of masks bool ``(N, H, W)``; zeros for an empty mask."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        box[:] = bounds(mask) or (0, 0, 0, 0)
    return boxes
