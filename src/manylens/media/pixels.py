"""From whatever a picture holds to upright RGB, 8 bits a channel: one stated rule for each kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from manylens.errors import MediaError

if TYPE_CHECKING:
    import PIL.Image

RGB = npt.NDArray[np.uint8]

_ORIENTATION_TAG = 0x0112
_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")


def orientation_of(image: PIL.Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or the EXIF block is broken."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a broken EXIF block raises many kinds of error; the pixels are still good
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def turn_upright(image: PIL.Image.Image, orientation: int) -> PIL.Image.Image:
    """Undo an EXIF orientation; the same object when there is nothing to undo."""
    from PIL.Image import Transpose

    undo = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(undo[orientation]) if orientation in undo else image


def to_rgb(image: PIL.Image.Image, name: str) -> tuple[RGB, list[str]]:
    """Decode any Pillow mode to RGB.

    Alpha and transparent palette entries are flattened on white; 16- and 32-bit and float values are scaled by
    `scale_values`; other colour models (CMYK, YCbCr, palette, gray, 1-bit) are converted without colour management.

    Args:
        image: Any Pillow image.
        name: What to call it in an error.

    Returns:
        Read-only uint8 ``(H, W, 3)``, and notes on what was lost.
    """
    import PIL.Image

    notes: list[str] = []
    if image.mode in _DEEP_MODES:
        gray, note = scale_values(np.asarray(image), name)
        return gray_to_rgb(gray), [note]
    try:
        if image.has_transparency_data:
            image = image.convert("RGBA")
            if image.getchannel("A").getextrema() != (255, 255):
                image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)
                notes.append("alpha flattened on white")
        elif image.mode not in ("RGB", "L"):
            notes.append(f"{image.mode} converted to RGB")
        if image.mode != "RGB":
            image = image.convert("RGB")
    except ValueError as error:
        raise MediaError(f"{name}: its colour model {image.mode} is not read", "save it as RGB") from error
    return frozen(np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, 3)), notes


def scale_values(values: npt.NDArray[Any], name: str) -> tuple[RGB, str]:
    """Scale one channel of deep values to 8 bits.

    Integers in 0..65535 are divided by the full scale of the bits that they use (8, 10, 12, 14 or 16), so that a
    12-bit camera or scanner is not shown black and relative brightness stays. Floats in 0..1 are multiplied by 255.
    Everything else runs from its smallest value (black) to its largest (white). NaN and infinities become black.

    Args:
        values: ``(H, W)``, integer or float.
        name: What to call it in an error.

    Returns:
        uint8 ``(H, W)`` and a note saying what was done.
    """
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        if not finite.any():
            raise MediaError(f"{name}: holds no finite value", "give a picture with values")
        low, high = float(values[finite].min()), float(values[finite].max())
        values = np.where(finite, values, low)
        if low >= 0.0 and high <= 1.0:
            low, high = 0.0, 1.0
    else:
        low, high = int(values.min()), int(values.max())
        if low >= 0 and high <= 0xFFFF:
            low, high = 0, next(2**bits - 1 for bits in (8, 10, 12, 14, 16) if high < 2**bits)
    span = (high - low) or 1
    scaled = (values.astype(np.float64) - low) * 255.0 / span
    return np.rint(scaled).astype(np.uint8), f"values {low:g} to {high:g} scaled to 8 bit"


def gray_to_rgb(gray: npt.NDArray[np.uint8]) -> RGB:
    """Repeat one uint8 channel ``(H, W)`` to a read-only ``(H, W, 3)``."""
    return frozen(np.repeat(gray[:, :, np.newaxis], 3, axis=2))


def array_to_rgb(array: npt.NDArray[Any]) -> tuple[RGB, list[str]]:
    """Check a uint8 array and copy it to RGB: ``(H, W, 3)``, gray ``(H, W)`` or ``(H, W, 1)``, RGBA ``(H, W, 4)``.

    Raises:
        MediaError: Another type or shape. Float and 16-bit arrays are refused: only their maker knows their range.
    """
    import PIL.Image

    if array.dtype == np.bool_:
        raise MediaError("array: bool is a mask, not a picture", "give it as mask, or as array.astype('uint8') * 255")
    if array.dtype != np.uint8:
        raise MediaError(
            f"array: its type is {array.dtype}, a picture is uint8",
            "scale it to 0..255 and convert it with .astype('uint8')",
        )
    shape = "x".join(map(str, array.shape))
    if 0 in array.shape or array.ndim not in (2, 3):
        raise MediaError(f"array: its shape is {shape}, a picture is height x width x 3", "give one RGB picture")
    if array.ndim == 2 or array.shape[2] == 1:
        return gray_to_rgb(array.reshape(array.shape[:2])), []
    if array.shape[2] == 4:
        return to_rgb(PIL.Image.fromarray(array), "array")
    if array.shape[2] == 3:
        return _copied(array), []
    remedy = "move the channels last: array.transpose(1, 2, 0)" if array.shape[0] in (1, 3, 4) else "give RGB"
    raise MediaError(f"array: its shape is {shape}, a picture is height x width x 3", remedy)


def frozen(array: RGB) -> RGB:
    """An array that this package made, contiguous and over bytes, so that nobody can make it writable again."""
    return _copied(array) if array.flags.writeable or not array.flags.c_contiguous else array


def _copied(array: RGB) -> RGB:
    return np.frombuffer(array.tobytes(), np.uint8).reshape(array.shape)
