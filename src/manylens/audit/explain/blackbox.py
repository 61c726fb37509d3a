"""Methods that see no more of a model than its scores: occlusion and RISE, on pictures, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from time import perf_counter

import numpy as np

from manylens.audit.explain.options import Options
from manylens.audit.explain.pictures import blended, emptied
from manylens.audit.explain.saliency import Saliency
from manylens.audit.explain.score import Score
from manylens.media import Image

_SIDE = 224  # of the maps that are added up; what covers the picture is far coarser
_MOST = 150  # squares of occlusion where no stride is given: each is a call of the model
_LONG = 5.0  # seconds from which it is said beforehand how long it will take
Progress = Callable[[float, str], None]


def rise(image: Image, score: Score, options: Options, *, seed: int = 0, progress: Progress | None = None) -> Saliency:
    """Randomised input sampling (Petsiuk et al., 2018).

    Coarse random masks, enlarged smoothly and shifted at random, cover the picture; the map is their mean, weighted by
    the score that what is left seen gets.

    Args:
        image: The picture.
        score: What is explained.
        options: ``masks``, ``grid``, ``keep``, ``baseline``, ``batch``.
        seed: Of the masks.
        progress: Told the fraction done.
    """
    shape = _map_shape(image)
    total, seen, values = np.zeros(shape), np.zeros(shape), []
    masks = random_masks(options.masks, shape, options.grid, options.keep, seed)
    for batch, scores in _scored(image, score, masks, options, options.masks, progress):
        for mask, value in zip(batch, scores, strict=True):
            total += value * mask
            seen += mask
        values.extend(scores.tolist())
    mean = float(np.mean(values))
    # Divided by how often a place was seen rather than by its expectation: that takes out the noise of the draw.
    found = total / np.maximum(seen, 1e-9)
    return Saliency(found.astype(np.float32), details={"masks": options.masks, "mean_score": mean, "seed": seed})


def occlusion(image: Image, score: Score, options: Options, *, progress: Progress | None = None) -> Saliency:
    """How much the score sinks when a square is covered (Zeiler & Fergus, 2014); the mean over squares at a place."""
    shape = _map_shape(image)
    side = max(1, round(min(shape) * options.window))
    places = _places(shape, side, options.stride)
    original = float(score([image])[0])
    total, covered = np.zeros(shape), np.zeros(shape)
    masks = (_covered(shape, y, x, side) for y, x in places)
    for batch, scores in _scored(image, score, masks, options, len(places), progress):
        for mask, value in zip(batch, scores, strict=True):
            total += (original - value) * (1 - mask)
            covered += 1 - mask
    found = total / np.maximum(covered, 1e-9)
    details = {"window": side / min(shape), "squares": len(places)}
    return Saliency(found.astype(np.float32), signed=True, details=details)


def random_masks(count: int, shape: tuple[int, int], grid: int, keep: float, seed: int) -> Iterator[np.ndarray]:
    """Masks of RISE: float32 ``shape`` in 0..1, one at a time.

    Args:
        count: How many.
        shape: ``(h, w)``.
        grid: Cells along a side; one more is drawn, so that the mask can be shifted by up to a cell.
        keep: Chance of a cell to be 1.
        seed: The same seed gives the same masks.
    """
    import cv2

    rng = np.random.default_rng(seed)
    cell = [-(-side // grid) for side in shape]
    large = ((grid + 1) * cell[1], (grid + 1) * cell[0])
    for _ in range(count):
        cells = (rng.random((grid + 1, grid + 1)) < keep).astype(np.float32)
        smooth = cv2.resize(cells, large, interpolation=cv2.INTER_LINEAR)
        y, x = (int(rng.integers(0, size)) for size in cell)
        yield smooth[y : y + shape[0], x : x + shape[1]]


def _scored(
    image: Image,
    score: Score,
    masks: Iterable[np.ndarray],
    options: Options,
    count: int,
    progress: Progress | None,
) -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
    """Batches of masks with the scores of the picture under them; never more pictures than a batch at once."""
    empty, done, rest = emptied(image, options.baseline or "mean"), 0, iter(masks)
    if progress is not None:
        _foretell(score, blended(image, empty, np.full(_map_shape(image), 0.5, np.float32)), count, progress)
    while batch := list(islice(rest, options.batch)):
        yield batch, np.asarray(score([blended(image, empty, mask) for mask in batch]), dtype=np.float64)
        done += len(batch)
        if progress is not None:
            progress(done / count, f"{done} of {count} pictures")


def _map_shape(image: Image) -> tuple[int, int]:
    scale = min(1.0, _SIDE / max(image.size))
    return max(1, round(image.height * scale)), max(1, round(image.width * scale))


def _places(shape: tuple[int, int], side: int, stride: float | None) -> list[tuple[int, int]]:
    """Top left corners of the squares, y first; without a stride no more than :data:`_MOST` where no gap is left."""
    step = max(1, round(side * (stride or 0.5)))
    while True:
        places = [(y, x) for y in _starts(shape[0], side, step) for x in _starts(shape[1], side, step)]
        if stride is not None or len(places) <= _MOST or step >= side:
            return places
        step += 1


def _foretell(score: Score, picture: Image, count: int, progress: Progress) -> None:
    """Time one call and say how long all will take, where that is long."""
    began = perf_counter()
    score([picture])
    one = perf_counter() - began
    if (whole := one * count) >= _LONG:
        about = f"{whole / 60:.0f} min" if whole >= 90 else f"{whole:.0f} s"
        progress(0.0, f"about {count} calls of {one:.1f} s: {about}")


def _starts(length: int, side: int, stride: int) -> list[int]:
    """Where squares begin along a side, the last one ending with it."""
    last = max(0, length - side)
    return sorted({*range(0, last + 1, stride), last})


def _covered(shape: tuple[int, int], y: int, x: int, side: int) -> np.ndarray:
    mask = np.ones(shape, np.float32)
    mask[y : y + side, x : x + side] = 0
    return mask
