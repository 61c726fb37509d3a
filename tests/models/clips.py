"""Short videos with known masks: cut-outs of the example photographs that move over other photographs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

EXAMPLES = Path(__file__).parents[2] / "examples"
SIZE = (426, 320)
Pose = tuple[float, float, float, float]
"""Where a thing is: x and y of its middle and its height, in parts of the frame, and its angle in degrees."""


@dataclass(frozen=True)
class Actor:
    """A thing that moves: a region of ``examples/regions.json``, and its pose at time 0..1; None where it is away."""

    picture: str
    region: str
    path: Callable[[float], Pose]


@dataclass(frozen=True)
class Script:
    """A video: what stands behind, who moves, from back to front, and which of them are objects to follow."""

    name: str
    backdrop: str
    actors: Sequence[Actor]
    objects: int = 1
    frames: int = 20
    pan: float = 0.05


@dataclass
class Clip:
    """Frames RGB uint8 ``(H, W, 3)``, and the masks bool ``(H, W)`` of each object in each."""

    frames: list[np.ndarray] = field(default_factory=list)
    masks: list[list[np.ndarray]] = field(default_factory=list)


def _cutout(picture: str, region: str) -> tuple[np.ndarray, np.ndarray]:
    labels = json.loads((EXAMPLES / "regions.json").read_text())
    image = next(one for one in labels["images"] if one["file_name"] == picture)
    names = {one["id"]: one["name"] for one in labels["categories"]}
    found = next(
        one for one in labels["annotations"] if one["image_id"] == image["id"] and names[one["category_id"]] == region
    )
    rgb = cv2.cvtColor(cv2.imread(str(EXAMPLES / picture)), cv2.COLOR_BGR2RGB)
    mask = np.zeros(rgb.shape[:2], np.uint8)
    for polygon in found["segmentation"]:
        cv2.fillPoly(mask, [np.array(polygon).reshape(-1, 2).round().astype(np.int32)], 255)
    x, y, w, h = cv2.boundingRect(mask)
    return rgb[y : y + h, x : x + w], mask[y : y + h, x : x + w]


def made(script: Script, size: tuple[int, int] = SIZE) -> Clip:
    """Play a script; the same frames each time."""
    width, height = size
    photo = cv2.cvtColor(cv2.imread(str(EXAMPLES / script.backdrop)), cv2.COLOR_BGR2RGB)
    scale = (1 + script.pan) * max(width / photo.shape[1], height / photo.shape[0])
    wide = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    parts = [_cutout(actor.picture, actor.region) for actor in script.actors]
    clip = Clip()
    for number in range(script.frames):
        time = number / max(1, script.frames - 1)
        left = round(time * (wide.shape[1] - width))
        top = (wide.shape[0] - height) // 2
        frame = wide[top : top + height, left : left + width].astype(np.float32)
        seen: list[np.ndarray] = []
        for actor, (rgb, mask) in zip(script.actors, parts, strict=True):
            x, y, tall, angle = actor.path(time)
            matrix = cv2.getRotationMatrix2D((rgb.shape[1] / 2, rgb.shape[0] / 2), angle, tall * height / rgb.shape[0])
            matrix[:, 2] += (x * width - rgb.shape[1] / 2, y * height - rgb.shape[0] / 2)
            alpha = cv2.warpAffine(mask, matrix, size, flags=cv2.INTER_AREA).astype(np.float32) / 255
            colour = cv2.warpAffine(rgb, matrix, size, flags=cv2.INTER_AREA).astype(np.float32)
            frame += alpha[..., None] * (colour - frame)
            seen = [before & (alpha < 0.5) for before in seen] + [alpha >= 0.5]
        clip.frames.append(frame.round().astype(np.uint8))
        clip.masks.append(seen[: script.objects])
    return clip


def _line(start: Pose, end: Pose) -> Callable[[float], Pose]:
    return lambda t: tuple(a + t * (b - a) for a, b in zip(start, end, strict=True))  # type: ignore[return-value]


MOVES = Script(
    "moves and grows", "rocket.jpg", [Actor("cat.jpg", "cat", _line((0.25, 0.6, 0.3, 0), (0.7, 0.5, 0.6, 0)))]
)
TURNS = Script("turns", "sign.png", [Actor("coffee.jpg", "cup", _line((0.3, 0.4, 0.45, 0), (0.65, 0.55, 0.4, 70)))])
HIDES = Script(
    "passes behind",
    "cat.jpg",
    [
        Actor("astronaut.jpg", "helmet", _line((0.15, 0.5, 0.3, 0), (0.85, 0.5, 0.3, 10))),
        Actor("sign.png", "board", lambda t: (0.5, 0.5, 0.4, 0)),
    ],
    frames=24,
    pan=0,
)
RETURNS = Script(
    "leaves and returns",
    "coffee.jpg",
    [
        Actor(
            "photographer.jpg",
            "person",
            lambda t: (0.6 - 2.4 * t, 0.5, 0.7, 0) if t < 0.5 else (1.8 - 1.3 * t, 0.55, 0.6, 0),
        )
    ],
    frames=24,
)
TWO = Script(
    "two that cross",
    "photographer.jpg",
    [
        Actor("coffee.jpg", "cup", _line((0.2, 0.35, 0.3, 0), (0.8, 0.4, 0.3, 0))),
        Actor("rocket.jpg", "rocket", _line((0.75, 0.5, 0.7, 0), (0.35, 0.55, 0.7, -10))),
    ],
    objects=2,
)
SHRINKS = Script(
    "turns and shrinks",
    "astronaut.jpg",
    [Actor("cat.jpg", "cat", _line((0.8, 0.3, 0.3, 10), (0.2, 0.6, 0.25, -10)))],
)
SCRIPTS = (MOVES, TURNS, HIDES, RETURNS, TWO, SHRINKS)
