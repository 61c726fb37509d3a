"""An explanation: the map over the picture, what it is of, and its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from manylens.audit.explain.overlay import heads_sheet, overlay
from manylens.audit.explain.pictures import resized
from manylens.audit.explain.saliency import Saliency
from manylens.media import Image, atomic_write, save_image
from manylens.tasks import Provenance

_HIGHEST = 99  # percentile that becomes 1: gradients have single pixels that would make all else dark

_FINE = 112  # from this resolution on a map is of single pixels, which as they are look like noise


@dataclass(frozen=True, eq=False)
class Explanation:
    """Which pixels a score rests on.

    Attributes:
        image: The picture.
        method: Such as ``grad-cam``.
        task: The task whose score is explained.
        target: What the score is of, in words.
        score: The task's score of the picture itself.
        map: float32 ``(H, W)`` of the upright picture: 0 nothing to 1 most; where ``signed``, -1 speaks against it.
        signed: Whether the map goes below 0.
        raw: The map in the method's own resolution and units; see :class:`~manylens.audit.explain.saliency.Saliency`.
        provenance: Of the model's answer for the picture.
        details: What the method found on the way.
    """

    image: Image
    method: str
    task: str
    target: str
    score: float
    map: np.ndarray
    signed: bool
    raw: Saliency
    provenance: Provenance
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, image: Image, raw: Saliency, *, method: str, task: str, target: str, score: float, provenance: Provenance
    ) -> Explanation:
        """Lay a method's map over the picture."""
        shown = scaled(resized(raw.map, (image.height, image.width)), raw.signed)
        return cls(image, method, task, target, score, shown, raw.signed, raw, provenance, raw.details)

    @property
    def heads(self) -> np.ndarray | None:
        """Each attention head by itself: float32 ``(heads, rows, columns)``; None where the method has none."""
        return self.raw.heads

    def overlay(self) -> np.ndarray:
        """The picture with the map on it and a line that says what it is: uint8 RGB."""
        return overlay(self.image, self.map, self.caption, smooth=min(self.raw.map.shape) >= _FINE)

    @property
    def caption(self) -> str:
        """Such as ``grad-cam: Egyptian cat 0.58``."""
        return f"{self.method}: {self.target} {self.score:.2f}"

    def to_json(self) -> dict[str, Any]:
        """All but the arrays, which are files; the place where the map is strongest stands for it."""
        y, x = (int(i) for i in np.unravel_index(int(self.map.argmax()), self.map.shape))
        return {
            "type": "explanation",
            "input": self.image.summary(),
            "method": self.method,
            "task": self.task,
            "target": self.target,
            "score": round(self.score, 6),
            "signed": self.signed,
            "map": {"shape": list(self.map.shape), "dtype": "float32", "strongest": [x, y]},
            "heads": None if self.heads is None else {"shape": list(self.heads.shape), "dtype": "float32"},
            "details": dict(self.details),
            "provenance": asdict(self.provenance),
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write the overlay (PNG), the map (npy, float32), the heads where there are any, and the JSON.

        Returns:
            The files, the overlay first, the JSON last.

        Raises:
            OutputError: A file could not be written; what stood there before is untouched.
        """
        folder, stem = Path(folder), f"{Path(self.image.name).stem}-{self.task}-{self.method}"
        made = [save_image(Image.of(self.overlay()), folder / f"{stem}.png")]
        made.append(_save_array(folder / f"{stem}-map.npy", self.map))
        if self.heads is not None:
            sheet = heads_sheet(self.image, self.heads, self.raw.regions)
            made.append(save_image(Image.of(sheet), folder / f"{stem}-heads.png"))
            made.append(_save_array(folder / f"{stem}-heads.npy", self.heads))
        made.append(atomic_write(folder / f"{stem}.json", json.dumps(self.to_json(), indent=1).encode()))
        return made


def scaled(values: np.ndarray, signed: bool) -> np.ndarray:
    """A map in 0..1, or in -1..1 with 0 kept where it is signed: float32. One that is flat becomes all 0."""
    if signed:
        most = float(np.percentile(np.abs(values), _HIGHEST)) or float(np.abs(values).max())
        return np.clip(values / most, -1, 1).astype(np.float32) if most > 0 else np.zeros(values.shape, np.float32)
    low, high = float(values.min()), float(np.percentile(values, _HIGHEST))
    high = high if high > low else float(values.max())
    if high <= low:
        return np.zeros(values.shape, np.float32)
    return np.clip((values - low) / (high - low), 0, 1).astype(np.float32)


def _save_array(path: Path, array: np.ndarray) -> Path:
    return atomic_write(path, lambda file: np.save(file, array.astype(np.float32), allow_pickle=False))
