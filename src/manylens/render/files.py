"""A result as files in a folder: pictures for people, COCO JSON and arrays for machines; each whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from manylens.media import Image, Video, atomic_write, save_cutout_png, save_image, save_mask_png
from manylens.render.coco import coco_json
from manylens.render.draw import draw
from manylens.render.tracks import write_tracks
from manylens.tasks import Embedding, to_json
from manylens.tasks.results import Depth, Picture, Speech, StructureMap, Tracks

_MANY = 20  # masks


def slug(text: str) -> str:
    """``"Coffee cup"`` to ``"coffee-cup"``: safe in a file name, never empty."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "object"


def write_result(
    result: Any, image: Image | None, folder: str | Path, stem: str, video: Video | None = None
) -> list[Path]:
    """Write everything that a result holds.

    Args:
        result: Any task's result.
        image: The picture it is about, if it is about one.
        folder: Where to; made where it is missing.
        stem: How the files' names begin, such as ``cat-segment``.
        video: The video it is about, if it is about one.

    Returns:
        The files, the picture for people first, the JSON last.

    Raises:
        OutputError: A file could not be written; what stood there before is untouched.
    """
    folder = Path(folder)
    made: list[Path] = []
    drawn = draw(image, result) if image is not None else None
    if isinstance(result, Tracks) and video is not None:
        made += write_tracks(result, video, folder, stem)
    if isinstance(result, Picture):
        provenance = to_json(result)["provenance"]
        made.append(save_image(result.image, folder / f"{stem}.png", made_by=provenance))
    elif drawn is not None:
        made.append(save_image(Image.of(drawn), folder / f"{stem}.png"))
    if image is not None and getattr(result, "xyxy", None) is not None:
        former = _former_masks(folder, stem)
        made += _masks(result, image, folder, stem)
        for old in former - set(made):  # else the folder would show masks that its labels do not know
            old.unlink(missing_ok=True)
        labels = json.dumps(coco_json([(image, result)]), indent=1)
        made.append(atomic_write(folder / f"{stem}-coco.json", labels.encode()))
    made += _arrays(result, folder, stem)
    made.append(atomic_write(folder / f"{stem}.json", json.dumps(to_json(result), indent=1).encode()))
    return made


def _masks(found: Any, image: Image, folder: Path, stem: str) -> list[Path]:
    if found.mask is None:
        return []
    made = []
    names = [str(name or level) for name, level in zip(found.data["class_name"], found.data["level"], strict=True)]
    for mask, (masked, cut) in zip(found.mask, _mask_files(folder, stem, names), strict=True):
        made.append(save_mask_png(mask, masked))
        if cut is not None:
            made.append(save_cutout_png(image, mask, cut))
    return made


def _mask_files(folder: Path, stem: str, names: Sequence[str]) -> list[tuple[Path, Path | None]]:
    """Where the mask and the cutout of each of several things go.

    Many masks go into a folder of their own, and nobody wants all the cutouts.
    """
    many = len(names) > _MANY
    if many:
        stem = f"{stem}-masks/{stem}"
    bases = [f"{stem}-{i}-{slug(name)}" for i, name in enumerate(names, 1)]
    return [(folder / f"{base}-mask.png", None if many else folder / f"{base}-cutout.png") for base in bases]


def _former_masks(folder: Path, stem: str) -> set[Path]:
    """The masks and cutouts that a result written here before under the same name says it has."""
    try:
        former = json.loads((folder / f"{stem}.json").read_bytes())["detections"]
        names = [str(row["class_name"] or row["level"]) for row in former if row["mask"] is not None]
    except (OSError, ValueError, LookupError, TypeError):
        return set()
    return {path for pair in _mask_files(folder, stem, names) for path in pair if path is not None}


def _arrays(result: Any, folder: Path, stem: str) -> list[Path]:
    arrays: dict[str, np.ndarray] = {}
    match result:
        case Embedding():
            arrays = {"vector": result.vector} | ({} if result.dense is None else {"dense": result.dense})
        case Depth():
            arrays = {"map": np.asarray(result.map)}
        case StructureMap():
            people = {} if result.keypoints is None else {"keypoints": result.keypoints}
            arrays = {"map": np.asarray(result.map), **people}
        case Speech():
            arrays = {"samples": result.samples, "rate": np.asarray(result.rate)}
    if not arrays:
        return []
    return [atomic_write(folder / f"{stem}.npz", lambda file: np.savez(file, allow_pickle=False, **arrays))]
