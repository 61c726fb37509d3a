"""A map drawn on its picture, readable in print and by colour-blind people."""

from __future__ import annotations

import numpy as np

from manylens.audit.explain.pictures import resized
from manylens.media import Image

_FOR, _AGAINST = "inferno", "PuBu"  # the strength is in the brightness, the sign in the hue
_SMALLEST, _LARGEST = 480, 1600  # pixels of the longer side of what is drawn
_OPACITY = 0.75
_SPREAD = 0.015  # standard deviation of that smoothing, as a share of the longer side
_HEAD_SIDE = 320


def overlay(image: Image, values: np.ndarray, caption: str = "", *, smooth: bool = False) -> np.ndarray:
    """The picture in grey with the map on it in colour.

    Args:
        image: The picture.
        values: float32 ``(H, W)`` in 0..1, or in -1..1 where below 0 speaks against.
        caption: A line for the band on top; none for no band.
        smooth: Whether to spread single pixels over their neighbours, for the eye only.

    Returns:
        uint8 RGB; small pictures come enlarged, large ones reduced.
    """
    import cv2

    scale = min(max(1.0, _SMALLEST / max(image.size)), _LARGEST / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    rgb = cv2.resize(image.array, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    laid = resized(values, (size[1], size[0]))
    if smooth:
        laid = cv2.GaussianBlur(laid, (0, 0), _SPREAD * max(size))
        laid = laid / max(float(np.abs(laid).max()), 1e-9)
    laid = np.clip(laid, -1, 1)
    grey = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB).astype(np.float32)
    alpha = (_OPACITY * np.abs(laid))[..., None]
    drawn = grey * (1 - alpha) + _coloured(laid) * alpha
    return _banded(drawn.round().clip(0, 255).astype(np.uint8), caption)


def heads_sheet(image: Image, heads: np.ndarray, regions: np.ndarray | None = None) -> np.ndarray:
    """Attention heads side by side, each on the picture; a line goes round its region where there is one.

    Args:
        image: The picture.
        heads: float32 ``(heads, rows, columns)``.
        regions: bool, of the same shape.
    """
    import cv2

    scale = _HEAD_SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = Image.of(cv2.resize(image.array, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC))
    tiles = []
    for number, head in enumerate(heads):
        shown = resized(head / max(float(head.max()), 1e-12), (size[1], size[0]))
        tile = cv2.resize(overlay(small, shown.clip(0, 1)), size, interpolation=cv2.INTER_AREA)
        if regions is not None:
            inside = cv2.resize(regions[number].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
            lines, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(tile, lines, -1, (86, 180, 233), 2)
        tiles.append(_banded(tile, f"head {number + 1}"))
    columns = min(3, len(tiles))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])


def _coloured(values: np.ndarray) -> np.ndarray:
    """float32 ``(H, W, 3)`` in 0..255."""
    from matplotlib import colormaps

    # The dark end of inferno would hide the picture, the light end of the blues would look like paper.
    positive = colormaps[_FOR](0.35 + 0.6 * np.clip(values, 0, 1))[..., :3]
    negative = colormaps[_AGAINST](0.5 + 0.4 * np.clip(-values, 0, 1))[..., :3]
    return np.where((values >= 0)[..., None], positive, negative).astype(np.float32) * 255


def _banded(drawn: np.ndarray, caption: str) -> np.ndarray:
    """A white band with a line of text above the picture."""
    if not caption:
        return drawn
    import cv2

    text = caption.encode("ascii", "replace").decode()
    width = drawn.shape[1]
    scale = 0.55
    (needed, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    scale = min(scale, scale * (width - 16) / max(needed, 1))
    band = np.full((height + below + 12, width, 3), 255, np.uint8)
    cv2.putText(band, text, (8, height + 6), cv2.FONT_HERSHEY_SIMPLEX, scale, (20, 20, 20), 1, cv2.LINE_AA)
    return np.vstack([band, drawn])
