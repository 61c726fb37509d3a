"""Depth maps against measured depth, with the figures of Eigen et al. (NeurIPS 2014), each a mean over pictures.

A relative map is known up to scale and shift: these are fitted to the truth of each picture by least squares first,
as Ranftl et al. (MiDaS, TPAMI 2022) do, in depth or in disparity (1 / depth).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from manylens.data.problems import DataError
from manylens.data.records import Record
from manylens.evaluation.measure import Measure
from manylens.evaluation.measures.driving import Rows
from manylens.evaluation.tally import FloatArray, RatioTally
from manylens.tasks.results import Depth

Alignment = Literal["auto", "none", "scale", "depth", "disparity"]
ERRORS = ("AbsRel", "SqRel", "RMSE", "log RMSE")
THRESHOLDS = {"delta<1.25": 1.25, "delta<1.25^2": 1.25**2, "delta<1.25^3": 1.25**3}


@dataclass
class DepthMaps(Measure):
    """Judges :class:`manylens.tasks.results.Depth` against the file that ``record.columns["depth"]`` names.

    Args:
        png_scale: Metres of one step of a 16-bit picture: 1/256 (KITTI) or 1/1000 (NYU and most sensors). Arrays and
            float pictures are metres.
        nearest: Metres; nearer truth is not judged, and predictions are clipped to it.
        farthest: Likewise; 80 for KITTI, 10 for NYU.
        align: ``auto``: metric maps as they are, relative ones in ``depth``, or in ``disparity`` where the prediction
            is inverse depth. ``depth`` and ``disparity``: scale and shift by least squares in that space. ``scale``:
            by the ratio of medians. ``none``: as they are.
    """

    name: ClassVar[str] = "depth"

    png_scale: float = 1 / 256
    nearest: float = 1e-3
    farthest: float = 80.0
    align: Alignment = "auto"

    def __post_init__(self) -> None:
        self._units = Rows("image", self.columns)
        self._rows: list[dict[str, float]] = []

    def add(self, record: Record, prediction: Depth | None) -> None:
        """See :meth:`Measure.add`; a picture without a prediction is left out and said to be."""
        named = record.columns.get("depth")
        if not named:
            self.problems.add("no depth", record.id, f"{record.id}: no depth map is named; left out")
            return
        if prediction is None:
            self.problems.add("missing prediction", record.id, f"{record.id}: no depth was predicted; left out")
            return
        try:
            truth = read_depth(_place(str(named), record.path), self.png_scale)
        except DataError as error:
            self.problems.add("unreadable depth", record.id, f"{record.id}: {error.what}; left out")
            return
        guess = resized(np.asarray(prediction.map, np.float64), *truth.shape)
        judged = np.isfinite(truth) & (truth >= self.nearest) & (truth <= self.farthest)
        if not judged.any():
            self.problems.add("empty depth", record.id, f"{record.id}: no depth is known between the limits; left out")
            return
        true, guessed = truth[judged], guess[judged]
        if not np.isfinite(guessed).all():
            self.problems.add("NaN depth", record.id, f"{record.id}: the predicted depth has NaN or inf; left out")
            return
        how = self.align
        if how == "auto":
            how = "none" if prediction.scale == "metric" else "disparity" if prediction.inverse else "depth"
        fitted = np.clip(aligned(guessed, true, how, self.farthest), self.nearest, self.farthest)
        self._units.add(record.id, record.id, record, None, {})
        self._rows.append(depth_figures(fitted, true))

    def tally(self) -> RatioTally:
        """See :meth:`Measure.tally`."""
        values: Mapping[str, list[float]] = {name: [row[name] for row in self._rows] for name in (*ERRORS, *THRESHOLDS)}
        return RatioTally.of_values(self._units.units(), values, errors=list(ERRORS), first="AbsRel")


def depth_figures(guess: FloatArray, truth: FloatArray) -> dict[str, float]:
    """The figures of one picture.

    Args:
        guess: ``(P,)`` metres of the pixels judged, above 0.
        truth: Likewise.
    """
    difference, logs = guess - truth, np.log(guess) - np.log(truth)
    worse = np.maximum(guess / truth, truth / guess)
    return {
        "AbsRel": float(np.mean(np.abs(difference) / truth)),
        "SqRel": float(np.mean(difference**2 / truth)),
        "RMSE": float(np.sqrt(np.mean(difference**2))),
        "log RMSE": float(np.sqrt(np.mean(logs**2))),
        **{name: float(np.mean(worse < limit)) for name, limit in THRESHOLDS.items()},
    }


def aligned(guess: FloatArray, truth: FloatArray, how: Alignment, farthest: float) -> FloatArray:
    """A prediction brought to the truth's scale.

    Args:
        guess: ``(P,)``.
        truth: ``(P,)`` metres.
        how: See :class:`DepthMaps`; not ``auto``.
        farthest: Metres; a fitted disparity below 1 / farthest is as far as can be.
    """
    if how == "none":
        return guess
    if how == "scale":
        middle = float(np.median(guess))
        return guess * (float(np.median(truth)) / middle) if middle else guess
    target = truth if how == "depth" else 1 / truth
    centre = guess.mean()  # about the mean, the fit is two numbers and well conditioned
    spread = float(np.sum((guess - centre) ** 2))
    slope = float(np.sum((guess - centre) * (target - target.mean()))) / spread if spread > 0 else 0.0
    fitted = target.mean() + slope * (guess - centre)
    return fitted if how == "depth" else 1 / np.maximum(fitted, 1 / farthest)


def resized(guess: FloatArray, height: int, width: int) -> FloatArray:
    """A map at another size, bilinear, pixel centres at half."""
    if guess.shape == (height, width):
        return guess
    import cv2

    return np.asarray(cv2.resize(guess, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float64)


def read_depth(path: Path, png_scale: float = 1 / 256) -> npt.NDArray[np.float64]:
    """Read a depth map.

    Args:
        path: ``.npy``, a 16-bit PNG or TIFF, or a float TIFF.
        png_scale: Metres of one step of a picture of whole numbers.

    Returns:
        ``(H, W)`` metres; 0, NaN and inf are unknown.

    Raises:
        DataError: It is missing or none of these.
    """
    from PIL import Image

    remedy = "give a 16-bit PNG, a float TIFF or a .npy of (height, width)"
    try:
        if path.suffix.lower() == ".npy":
            stored = np.load(path, allow_pickle=False)
        else:
            with Image.open(path) as picture:
                stored = np.asarray(picture)
    except (OSError, EOFError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path.name}: cannot be read as depth ({error})", remedy) from error
    stored = stored[..., 0] if stored.ndim == 3 and stored.shape[2] == 1 else stored
    if stored.ndim != 2 or stored.dtype.kind not in "uif" or stored.dtype == np.uint8:
        raise DataError(f"{path.name}: holds {stored.dtype} of shape {stored.shape}, no depth map", remedy)
    whole = stored.dtype.kind in "ui" and path.suffix.lower() != ".npy"
    return stored.astype(np.float64) * (png_scale if whole else 1.0)


def _place(named: str, picture: Path) -> Path:
    """A path as it stands, or beside the picture."""
    path = Path(named)
    return path if path.is_absolute() or path.exists() else picture.parent / path
