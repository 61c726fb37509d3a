"""A result drawn on its picture, readable at any size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from manylens.media import Image
from manylens.tasks import Answer, Reading, provenance_of
from manylens.tasks.results import Depth, Picture, StructureMap

# Okabe and Ito's colours: told apart by colour-blind people too.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442")
_SMALLEST = 480
_PADDING = 4
_TEXT_HEIGHT = 22  # pixels of a line at text scale 1


def draw(image: Image, result: Any) -> np.ndarray | None:
    """The picture with the result on it.

    Args:
        image: The picture that the result is about.
        result: Any task's result.

    Returns:
        RGB uint8 ``(H, W, 3)``; small pictures come enlarged so that labels stay readable. None where there is nothing
        to draw (text, vectors, labels).
    """
    match result:
        case Picture():
            return np.asarray(result.image.array)
        case Depth():
            return _map(result.map)
        case StructureMap():
            return _structure(result.map)
        case Reading():
            return _boxes(image, [line.box for line in result.lines], [line.text for line in result.lines])
        case Answer():
            boxed = [item for item in result.evidence if item.box is not None]
            return _boxes(image, [item.box for item in boxed], [item.label for item in boxed]) if boxed else None
    if not hasattr(result, "xyxy"):
        return None
    return _detections(image, result)


def _scene(image: Image) -> tuple[np.ndarray, int]:
    """The picture to draw on, BGR and writable, and how many times it was enlarged."""
    import cv2

    factor = max(1, round(_SMALLEST / max(image.size)))
    scene = cv2.cvtColor(image.array, cv2.COLOR_RGB2BGR)
    if factor > 1:
        scene = cv2.resize(scene, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    return scene, factor


def _detections(image: Image, found: Any) -> np.ndarray:
    import cv2
    import supervision as sv

    scene, factor = _scene(image)
    names = [str(name) for name in found.data.get("class_name", [""] * len(found))]
    levels = found.data.get("level", np.array([""] * len(found)))
    if any(levels):  # the masks of one click overlap: the best one is drawn, the others are files of their own
        best = [
            i for i in range(len(found)) if i == int(np.flatnonzero(found.data["object"] == found.data["object"][i])[0])
        ]
        found, names = found[best], [names[i] for i in best]
    hues = np.asarray(found.data.get("hue", np.arange(len(found))), int)  # one each, unless they are told
    large = sv.Detections(xyxy=found.xyxy * factor, confidence=found.confidence, class_id=hues)
    if found.mask is not None:
        large.mask = np.stack([_enlarged(mask, factor) for mask in found.mask]) if len(found) else None
    palette = sv.ColorPalette.from_hex(list(PALETTE))
    thickness = max(2, sv.calculate_optimal_line_thickness(image.size))
    if large.mask is not None:
        scene = sv.MaskAnnotator(color=palette, opacity=0.45).annotate(scene, large)
        scene = sv.PolygonAnnotator(color=palette, thickness=thickness).annotate(scene, large)
    else:
        scene = sv.BoxAnnotator(color=palette, thickness=thickness).annotate(scene, large)
    labels = [
        f"{name} {score:.2f}".strip() for name, score in zip(names, np.atleast_1d(found.confidence), strict=False)
    ]
    if any(names):
        scene = _labelled(scene, large, labels)
    _prompt(scene, provenance_of(found), factor)
    return cv2.cvtColor(scene, cv2.COLOR_BGR2RGB)


def _enlarged(mask: np.ndarray, factor: int) -> np.ndarray:
    return np.repeat(np.repeat(mask, factor, axis=0), factor, axis=1)


def _labelled(scene: np.ndarray, found: Any, labels: Sequence[str]) -> np.ndarray:
    import supervision as sv

    height, width = scene.shape[:2]
    annotator = sv.LabelAnnotator(
        color=sv.ColorPalette.from_hex(list(PALETTE)),
        text_scale=max(0.45, sv.calculate_optimal_text_scale((width, height)) * 0.8),
        text_padding=_PADDING,
    )
    placed = found[np.arange(len(found))]
    placed.xyxy = found.xyxy.copy()
    placed.xyxy[:, :2] = _corners(found.xyxy, labels, annotator.text_scale, (width, height))
    return annotator.annotate(scene, placed, labels=list(labels))


def _corners(boxes: np.ndarray, labels: Sequence[str], scale: float, size: tuple[int, int]) -> np.ndarray:
    """Lower left corners of labels, float32 ``(N, 2)``: above their boxes, on the picture, none on an earlier one.

    Args:
        boxes: float ``(N, 4)``, the surest first.
        labels: What is written.
        scale: Of the letters.
        size: Width and height of the picture.
    """
    import cv2

    tall = scale * _TEXT_HEIGHT + 2 * _PADDING
    taken = np.zeros((0, 4))
    for (left, top, *_), label in zip(boxes, labels, strict=True):
        wide = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0] + 2 * _PADDING
        x = max(0.0, min(float(left), size[0] - wide))
        above, y = max(float(top), tall), max(float(top), tall)
        while _covered(taken, here := np.array([x, y - tall, x + wide, y])):
            y += tall
            if y > size[1]:  # no room below: there it stays, on others
                here = np.array([x, above - tall, x + wide, above])
                break
        taken = np.vstack([taken, here])
    return taken[:, [0, 3]].astype(np.float32)


def _covered(boxes: np.ndarray, box: np.ndarray) -> bool:
    """Whether a box touches any of others ``(N, 4)``."""
    return bool(((boxes[:, :2] < box[2:]) & (box[:2] < boxes[:, 2:])).all(axis=1).any())


def _prompt(scene: np.ndarray, provenance: Any, factor: int) -> None:
    import cv2

    if provenance is None:
        return
    radius = max(5, round(max(scene.shape[:2]) / 110))
    prompts: list[Mapping[str, Any]] = [provenance.prompt, *provenance.prompt.get("objects", ())]
    for prompt in prompts:
        if prompt.get("box"):
            x0, y0, x1, y1 = (round(v * factor) for v in prompt["box"])
            cv2.rectangle(scene, (x0, y0), (x1, y1), (255, 255, 255), max(2, radius // 3))
        for key, colour in (("points", (60, 200, 60)), ("background_points", (60, 60, 230))):
            for x, y in prompt.get(key) or ():
                centre = (round(x * factor), round(y * factor))
                cv2.circle(scene, centre, radius, (255, 255, 255), -1, cv2.LINE_AA)
                cv2.circle(scene, centre, max(3, radius * 2 // 3), colour, -1, cv2.LINE_AA)


def _boxes(image: Image, boxes: Sequence[Any], labels: Sequence[str]) -> np.ndarray:
    import cv2
    import supervision as sv

    scene, factor = _scene(image)
    if boxes:
        found = sv.Detections(xyxy=np.asarray(boxes, dtype=np.float32) * factor, class_id=np.arange(len(boxes)))
        thickness = max(2, sv.calculate_optimal_line_thickness(image.size))
        scene = sv.BoxAnnotator(color=sv.ColorPalette.from_hex(list(PALETTE)), thickness=thickness).annotate(
            scene, found
        )
        scene = _labelled(scene, found, labels)
    return cv2.cvtColor(scene, cv2.COLOR_BGR2RGB)


def _structure(values: np.ndarray) -> np.ndarray:
    """The map as it is: a model that makes pictures by it takes it as gray or RGB."""
    plane = values if values.dtype == np.uint8 else np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return plane if plane.ndim == 3 else np.repeat(plane[..., None], 3, axis=2)


def _map(values: np.ndarray) -> np.ndarray:
    import cv2

    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    scaled = np.nan_to_num((values - low) / max(high - low, 1e-9) * 255).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(scaled, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
