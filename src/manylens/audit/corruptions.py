"""Corruptions of pictures in five severities (Hendrycks & Dietterich 2019), and three sweeps beside them.

Lengths are in pixels of the picture as it is, as for COCO-C (Michaelis et al. 2019), whatever its size. Frost is grown
here instead of laid over from photographs of ice, which carry a licence. Two corruptions move things; the truth moves
with them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

import numpy as np
import numpy.typing as npt

from manylens.errors import UserError

Pixels = npt.NDArray[np.uint8]
_Floats = npt.NDArray[np.float32]
SEVERITIES = (1, 2, 3, 4, 5)
Group = Literal["noise", "blur", "weather", "digital", "extra"]


@dataclass(frozen=True)
class Corruption:
    """One way in which pictures go bad.

    Attributes:
        name: As in the benchmark.
        group: ``noise``, ``blur``, ``weather``, ``digital``; or ``extra`` for those beside the standard fifteen.
        about: What it looks like.
        values: Its parameters for each of the five severities.
        moves: Whether things change their place, and so the truth.
    """

    name: str
    group: Group
    about: str
    values: Sequence[Sequence[float]]
    moves: bool = False

    def apply(self, pixels: Pixels, severity: int, seed: int = 0) -> Pixels:
        """The corrupted picture.

        Args:
            pixels: RGB uint8 ``(H, W, 3)``.
            severity: 1 to 5.
            seed: The same seed gives the same picture.

        Raises:
            UserError: There is no such severity.
        """
        rng = np.random.default_rng(seed)
        if self.moves:
            return _warped(pixels, *_field(self, pixels.shape[:2], severity, rng), smooth=True)
        return _PICTURES[self.name](pixels, rng, *self._at(severity))

    def move(self, mask: npt.NDArray[np.bool_], severity: int, seed: int = 0) -> npt.NDArray[np.bool_]:
        """Where a mask bool ``(H, W)`` lies in the corrupted picture of the same seed."""
        if not self.moves:
            return mask
        field = _field(self, mask.shape, severity, np.random.default_rng(seed))
        return _warped(mask.astype(np.uint8), *field, smooth=False).astype(bool)

    def _at(self, severity: int) -> Sequence[float]:
        if severity not in SEVERITIES:
            raise UserError(f"severity {severity}: not one of 1 to 5", "give 1 for the mildest, 5 for the worst")
        return self.values[severity - 1]


@cache
def table() -> Mapping[str, Corruption]:
    """All corruptions by name, the standard fifteen first."""
    rows = tomllib.loads(resources.files("manylens.audit").joinpath("data", "corruptions.toml").read_text("utf-8"))
    return {name: Corruption(name=name, **row) for name, row in rows.items()}


def named(names: Sequence[str]) -> list[Corruption]:
    """Corruptions by name or group; ``standard`` is the fifteen, ``all`` is every one.

    Raises:
        UserError: There is none of that name.
    """
    known = table()
    found: dict[str, Corruption] = {}
    for name in names or ("standard",):
        group = {
            other.name: other
            for other in known.values()
            if name in (other.name, other.group, "all") or (name == "standard" and other.group != "extra")
        }
        if not group:
            every = ", ".join(["standard", "all", *dict.fromkeys(one.group for one in known.values()), *known])
            raise UserError(f"{name}: no corruption of that name", f"choose of: {every}")
        found |= group
    return list(found.values())


def _unit(pixels: Pixels) -> _Floats:
    return (pixels / 255).astype(np.float32)


def _bytes(values: npt.NDArray[np.floating]) -> Pixels:
    return (np.clip(values, 0, 1) * 255).round().astype(np.uint8)


# ---------------------------------------------------------------------------- noise


def _gaussian_noise(pixels: Pixels, rng: np.random.Generator, deviation: float) -> Pixels:
    return _bytes(_unit(pixels) + rng.normal(0, deviation, pixels.shape))


def _shot_noise(pixels: Pixels, rng: np.random.Generator, photons: float) -> Pixels:
    return _bytes(rng.poisson(_unit(pixels) * photons) / photons)


def _impulse_noise(pixels: Pixels, rng: np.random.Generator, share: float) -> Pixels:
    hit = rng.random(pixels.shape) < share
    return np.where(hit, np.where(rng.random(pixels.shape) < 0.5, 0, 255), pixels).astype(np.uint8)


# ---------------------------------------------------------------------------- blur


def _disk(radius: int, soft: float) -> _Floats:
    import cv2

    reach = max(8, radius)
    across = np.arange(-reach, reach + 1)
    x, y = np.meshgrid(across, across)
    disk = (x**2 + y**2 <= radius**2).astype(np.float32)
    side = 3 if radius <= 8 else 5
    return np.asarray(cv2.GaussianBlur(disk / disk.sum(), (side, side), soft), np.float32)


def _defocus_blur(pixels: Pixels, rng: np.random.Generator, radius: float, soft: float) -> Pixels:
    import cv2

    return np.asarray(cv2.filter2D(pixels, -1, _disk(int(radius), soft), borderType=cv2.BORDER_REFLECT), np.uint8)


def _glass_blur(pixels: Pixels, rng: np.random.Generator, sigma: float, reach: float, rounds: float) -> Pixels:
    import cv2

    blurred = cv2.GaussianBlur(pixels, (0, 0), sigma)
    height, width = pixels.shape[:2]
    rows, columns = np.indices((height, width))
    for _ in range(int(rounds)):
        # All pixels trade places with a neighbour at once: the benchmark does it one by one, which looks the same.
        steps = rng.integers(-int(reach), int(reach) + 1, (2, height, width))
        blurred = blurred[np.clip(rows + steps[0], 0, height - 1), np.clip(columns + steps[1], 0, width - 1)]
    return np.asarray(cv2.GaussianBlur(blurred, (0, 0), sigma), np.uint8)


def _streak(radius: int, sigma: float, degrees: float) -> _Floats:
    """A one-sided Gaussian along a line from the kernel's middle, so that what is seen stays in its place."""
    reach = 2 * radius
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    along = np.arange(reach + 1)
    weights = np.exp(-(along**2) / (2 * sigma**2)).astype(np.float32)
    x = np.round(reach + along * np.cos(np.deg2rad(degrees))).astype(int)
    y = np.round(reach + along * np.sin(np.deg2rad(degrees))).astype(int)
    np.add.at(kernel, (y, x), weights)
    return kernel / kernel.sum()


def _motion_blur(pixels: Pixels, rng: np.random.Generator, radius: float, sigma: float) -> Pixels:
    import cv2

    kernel = _streak(int(radius), sigma, rng.uniform(-45, 45))
    return np.asarray(cv2.filter2D(pixels, -1, kernel, borderType=cv2.BORDER_REFLECT), np.uint8)


def _zoomed(values: _Floats, factor: float) -> _Floats:
    """The middle of an array, enlarged to its own size."""
    import cv2

    height, width = values.shape[:2]
    inner_height, inner_width = max(1, round(height / factor)), max(1, round(width / factor))
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    inner = values[top : top + inner_height, left : left + inner_width]
    return np.asarray(cv2.resize(inner, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def _zoom_blur(pixels: Pixels, rng: np.random.Generator, end: float, step: float) -> Pixels:
    clean = _unit(pixels)
    zooms = np.arange(1, end, step)
    return _bytes((clean + sum(_zoomed(clean, factor) for factor in zooms)) / (len(zooms) + 1))


# ---------------------------------------------------------------------------- weather


def _snow(
    pixels: Pixels,
    rng: np.random.Generator,
    mean: float,
    deviation: float,
    zoom: float,
    threshold: float,
    radius: float,
    sigma: float,
    share: float,
) -> Pixels:
    import cv2

    clean = _unit(pixels)
    flakes = _zoomed(rng.normal(mean, deviation, pixels.shape[:2]).astype(np.float32), zoom)
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    kernel = _streak(int(radius), sigma, rng.uniform(-135, -45))
    flakes = np.asarray(cv2.filter2D(flakes, -1, kernel, borderType=cv2.BORDER_REFLECT), np.float32)
    gray = cv2.cvtColor(clean, cv2.COLOR_RGB2GRAY)[..., None]
    pale = share * clean + (1 - share) * np.maximum(clean, gray * 1.5 + 0.5)
    return _bytes(pale + flakes[..., None] + np.rot90(flakes, 2)[..., None])


def _frost(pixels: Pixels, rng: np.random.Generator, share: float, ice: float) -> Pixels:
    """Feathered ice: ridges of fractal noise, thicker towards the border, bluish white."""
    height, width = pixels.shape[:2]
    noise = _plasma((height, width), 1.8, rng)
    ridges = 1 - np.abs(2 * noise - 1)
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    edge = np.clip(np.maximum(np.abs(x), np.abs(y)), 0, 1) ** 2
    thick = np.clip(0.25 + 0.75 * ridges**3 + 0.5 * edge * noise, 0, 1)
    colour = np.array([0.80, 0.88, 0.95], np.float32)
    return _bytes(share * _unit(pixels) + ice * thick[..., None] * colour)


def _fog(pixels: Pixels, rng: np.random.Generator, thick: float, decay: float) -> Pixels:
    clean = _unit(pixels)
    most = float(clean.max())
    fog = clean + thick * _plasma(pixels.shape[:2], decay, rng)[..., None]
    return _bytes(fog * most / (most + thick))


def _plasma(shape: tuple[int, int], decay: float, rng: np.random.Generator) -> _Floats:
    """Fractal noise of 0..1 by diamond and square (Fournier et al. 1982), cut to a shape ``(H, W)``."""
    size = 1 << int(np.ceil(np.log2(max(*shape, 4))))
    values = np.zeros((size, size), np.float32)
    step, rough = size, 100.0
    while step >= 2:
        half = step // 2
        corners = values[::step, ::step]
        total = corners + np.roll(corners, -1, 0)
        total = total + np.roll(total, -1, 1)
        values[half::step, half::step] = total / 4 + rng.uniform(-rough, rough, total.shape)
        middle, corner = values[half::step, half::step], values[::step, ::step]
        across = middle + np.roll(middle, 1, 0) + corner + np.roll(corner, -1, 1)
        values[::step, half::step] = across / 4 + rng.uniform(-rough, rough, across.shape)
        down = middle + np.roll(middle, 1, 1) + corner + np.roll(corner, -1, 0)
        values[half::step, ::step] = down / 4 + rng.uniform(-rough, rough, down.shape)
        step, rough = half, rough / decay
    values -= values.min()
    values = values / max(float(values.max()), 1e-9)
    return values[: shape[0], : shape[1]]


def _brightness(pixels: Pixels, rng: np.random.Generator, more: float) -> Pixels:
    import cv2

    hsv = cv2.cvtColor(_unit(pixels), cv2.COLOR_RGB2HSV)
    hsv[..., 2] = np.clip(hsv[..., 2] + more, 0, 1)
    return _bytes(np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32))


# ---------------------------------------------------------------------------- digital


def _contrast(pixels: Pixels, rng: np.random.Generator, left: float) -> Pixels:
    clean = _unit(pixels)
    middle = clean.mean(axis=(0, 1), keepdims=True)
    return _bytes((clean - middle) * left + middle)


def _shrunk(pixels: Pixels, share: float, back: int) -> Pixels:
    import cv2

    height, width = pixels.shape[:2]
    small = cv2.resize(pixels, (max(1, int(width * share)), max(1, int(height * share))), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=back), np.uint8)


def _pixelate(pixels: Pixels, rng: np.random.Generator, share: float) -> Pixels:
    import cv2

    return _shrunk(pixels, share, cv2.INTER_NEAREST)


def _resolution(pixels: Pixels, rng: np.random.Generator, share: float) -> Pixels:
    import cv2

    return _shrunk(pixels, share, cv2.INTER_CUBIC)


def _jpeg(pixels: Pixels, rng: np.random.Generator, quality: float) -> Pixels:
    import cv2

    _, file = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    return np.ascontiguousarray(np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR))[..., ::-1])


_PICTURES: Mapping[str, Callable[..., Pixels]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "defocus_blur": _defocus_blur,
    "glass_blur": _glass_blur,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "snow": _snow,
    "frost": _frost,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg,
    "resolution": _resolution,
    "jpeg": _jpeg,
}


# ---------------------------------------------------------------------------- what moves


def _field(
    corruption: Corruption, shape: tuple[int, ...], severity: int, rng: np.random.Generator
) -> tuple[_Floats, _Floats]:
    """Where each pixel of the corrupted picture comes from: x and y, float32 ``(H, W)``."""
    height, width = shape[:2]
    values = corruption._at(severity)
    if corruption.name == "rotation":
        return _turned(height, width, values[0])
    return _stretched(height, width, rng, *values)


def _turned(height: int, width: int, degrees: float) -> tuple[_Floats, _Floats]:
    y, x = np.indices((height, width), np.float32)
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    across, down = x - middle_x, y - middle_y
    return (
        (cosine * across - sine * down + middle_x).astype(np.float32),
        (sine * across + cosine * down + middle_y).astype(np.float32),
    )


def _stretched(
    height: int, width: int, rng: np.random.Generator, strength: float, smooth: float, shift: float
) -> tuple[_Floats, _Floats]:
    """A shear of three corners and a smooth random field (Simard et al. 2003)."""
    import cv2

    side = min(height, width)
    centre = np.array([width / 2, height / 2], np.float32)
    third = side / 3
    corners = np.array([centre + third, [centre[0] + third, centre[1] - third], centre - third], np.float32)
    moved = corners + rng.uniform(-shift * side, shift * side, corners.shape).astype(np.float32)
    matrix = cv2.invertAffineTransform(cv2.getAffineTransform(corners, moved))
    y, x = np.indices((height, width), np.float32)
    from_x = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]
    from_y = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]
    fields = [
        cv2.GaussianBlur(rng.uniform(-1, 1, (height, width)).astype(np.float32), (0, 0), smooth * side)
        * strength
        * side
        for _ in range(2)
    ]
    return (from_x + fields[0]).astype(np.float32), (from_y + fields[1]).astype(np.float32)


def _warped(values: Pixels, from_x: _Floats, from_y: _Floats, *, smooth: bool) -> Pixels:
    import cv2

    border = cv2.BORDER_REFLECT_101 if smooth else cv2.BORDER_CONSTANT
    how = cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST
    return np.asarray(cv2.remap(values, from_x, from_y, how, borderMode=border), np.uint8)
