"""Masks: bool ``(H, W)`` in memory, COCO RLE when stored or sent, PNG for people."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import numpy as np
import numpy.typing as npt

from manylens.errors import MediaError
from manylens.media import formats
from manylens.media.files import atomic_write
from manylens.media.sources import find, is_encoded

if TYPE_CHECKING:
    import PIL.Image
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core.core_schema import CoreSchema

    from manylens.media.image import Image

BoolMask = npt.NDArray[np.bool_]

_HALF = 128


class RLE(TypedDict):
    """A mask in COCO's run-length encoding: ``size`` is ``[height, width]``, ``counts`` COCO's compressed string."""

    size: list[int]
    counts: str


class Mask:
    """How a mask is read; the mask itself is a plain bool array. As a pydantic field its value is that array."""

    @staticmethod
    def of(source: Any, size: tuple[int, int] | None = None) -> BoolMask:
        """Make a mask from whatever holds one.

        Args:
            source: A path, bytes, a ``data:`` URI or a Pillow image (`from_picture` says how each kind is read); an
                array ``(H, W)``, ``(H, W, 1)`` or ``(1, H, W)`` of bool or integers, non-zero on the object; or a
                COCO RLE dict, its counts compressed or as a list.
            size: ``(width, height)`` that it must have, as `Image.size`; None for any.

        Returns:
            Bool ``(H, W)``, read-only, True on the object.

        Raises:
            MediaError: It is none of these, cannot be read, or is not of that size.
        """
        name, mask = _read(source)
        height, width = mask.shape
        if size is not None and (width, height) != tuple(size):
            raise MediaError(
                f"{name}: the mask is {width} x {height} pixels, the image {size[0]} x {size[1]}",
                "give a mask of the image's size",
            )
        mask.flags.writeable = False
        return mask

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            cls.of, serialization=core_schema.plain_serializer_function_ser_schema(to_rle)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        rle = {
            "type": "object",
            "description": "The mask in COCO run-length encoding; size is [height, width]",
            "properties": {
                "size": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
                "counts": {"type": "string"},
            },
            "required": ["size", "counts"],
        }
        if handler.mode == "serialization":
            return rle
        path = {"type": "string", "format": "mask", "description": "A mask: path of a PNG, or a data URI"}
        return {"anyOf": [path, rle]}


MaskInput = Annotated[BoolMask, Mask]
"""A mask as the field of a pydantic model, for a type checker: takes what `Mask.of` takes, holds a bool array."""


def from_picture(image: PIL.Image.Image, format_name: str | None) -> BoolMask:
    """Read a mask from a Pillow image, given the format of the file that it came from.

    - gray (1, 8, 16 or 32 bits, float): non-zero is object, so label images work; NaN is not
    - gray or colour from a lossy JPEG: bright is object (128 and more), since its black is never quite black
    - palette: every index but 0 is object, as in the label files of PASCAL VOC and DAVIS
    - alpha that is not opaque everywhere: half opaque and more is object, so a cut-out works
    - colour: every pixel that is not black is object
    """
    lossy = format_name in ("JPEG", "MPO")
    if image.mode == "P":
        return np.asarray(image) != 0
    if image.mode in ("LA", "RGBA", "PA"):
        alpha = np.asarray(image.getchannel("A"))
        if alpha.min() < 255:
            return alpha >= _HALF
        image = image.convert("L" if image.mode[0] == "L" else "RGB")
    elif image.mode in ("CMYK", "YCbCr", "HSV"):
        image = image.convert("RGB")
    values = np.asarray(image)
    if values.dtype.kind == "f":
        values = np.nan_to_num(values)
    on = values >= _HALF if lossy else values != 0
    return np.asarray(on if on.ndim == 2 else on.any(axis=2))


def to_rle(mask: npt.ArrayLike) -> RLE:
    """Encode a mask ``(H, W)``, non-zero on the object, as COCO's compressed RLE."""
    from pycocotools import mask as coco

    array = np.asarray(mask)
    if array.ndim != 2 or 0 in array.shape:
        raise MediaError(f"mask: its shape is {_shape(array)}, a mask is height x width", "give one mask")
    encoded = coco.encode(np.asfortranarray(array != 0, dtype=np.uint8))
    return {"size": [int(side) for side in array.shape], "counts": encoded["counts"].decode("ascii")}


def from_rle(rle: Mapping[str, Any]) -> BoolMask:
    """Decode a COCO RLE, compressed or with a list of counts, to bool ``(H, W)``.

    The runs are read here and not by pycocotools, whose decoder hands out memory that it never wrote when the runs of
    a broken RLE do not fill the mask.
    """
    try:
        height, width = (int(side) for side in rle["size"])
        counts = rle["counts"]
    except (KeyError, TypeError, ValueError) as error:
        raise MediaError("RLE: needs size [height, width] and counts", "give COCO run-length encoding") from error
    if height < 1 or width < 1:
        raise MediaError(f"RLE: its size is {height} x {width}", "give a size of at least 1 x 1")
    formats.check_size("RLE", width, height)
    runs = _runs(counts)
    if any(run < 0 for run in runs) or sum(runs) != height * width:
        raise MediaError(
            f"RLE: its runs do not fill {height} x {width} pixels",
            "give COCO run-length encoding, size [height, width]",
        )
    on = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(on, runs).reshape(width, height).T)


def bounds(mask: BoolMask) -> tuple[int, int, int, int] | None:
    """The smallest box around a mask bool ``(H, W)``: ``x0, y0, x1, y1``, max exclusive; None where it is empty."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not columns.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def save_mask_png(mask: npt.ArrayLike, path: str | os.PathLike[str]) -> Path:
    """Write a mask as a gray PNG, 255 on the object and 0 elsewhere."""
    import PIL.Image

    picture = PIL.Image.fromarray(Mask.of(np.asarray(mask)).astype(np.uint8) * 255)
    return atomic_write(path, lambda file: picture.save(file, "PNG"))


def save_cutout_png(image: Image, mask: npt.ArrayLike, path: str | os.PathLike[str], *, cropped: bool = False) -> Path:
    """Write what a mask shows of an image as a PNG that is transparent elsewhere.

    The pixels outside the mask are blanked, not only hidden, so that the file does not carry what was cut away.

    Args:
        image: The picture.
        mask: ``(H, W)`` of the picture's size.
        path: The PNG to write.
        cropped: Whether to keep only the smallest box around the mask.

    Raises:
        MediaError: The mask has another size, or is empty and shall be cropped.
        OutputError: The file cannot be written.
    """
    import PIL.Image

    on = Mask.of(np.asarray(mask), image.size)
    cutout = np.dstack([image.array * on[:, :, np.newaxis], on.astype(np.uint8) * 255])
    if cropped:
        box = bounds(on)
        if box is None:
            raise MediaError(f"{image.name}: the mask is empty, nothing to cut out", "give a mask with an object")
        x0, y0, x1, y1 = box
        cutout = cutout[y0:y1, x0:x1]
    picture = PIL.Image.fromarray(cutout)
    return atomic_write(path, lambda file: picture.save(file, "PNG"))


def _read(source: Any) -> tuple[str, BoolMask]:
    import PIL.Image

    if is_encoded(source):
        found = find(source)
        picture, info = formats.decode_raw(found)
        return found.name, from_picture(picture, info.format)
    if isinstance(source, PIL.Image.Image):
        return "PIL image", from_picture(source, source.format)
    if isinstance(source, Mapping):
        return "RLE", from_rle(source)
    if isinstance(source, np.ndarray):
        return "mask", _from_array(source)
    raise MediaError(f"{type(source).__name__}: not a mask", "give a path, a bool array or a COCO RLE")


def _from_array(array: npt.NDArray[Any]) -> BoolMask:
    plane = array
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        plane = array[0] if array.shape[0] == 1 else array[:, :, 0]
    if plane.ndim != 2 or 0 in plane.shape:
        raise MediaError(f"mask: its shape is {_shape(array)}, a mask is height x width", "give one mask")
    if plane.dtype.kind not in "bui":
        raise MediaError(f"mask: its type is {array.dtype}", "make it bool with a threshold, such as mask > 0.5")
    return plane != 0


def _runs(counts: Any) -> list[int]:
    if isinstance(counts, list | tuple):
        if not all(isinstance(run, int) for run in counts):
            raise MediaError("RLE: its counts are not whole numbers", "give COCO run-length encoding")
        return list(counts)
    if isinstance(counts, str):
        counts = counts.encode("ascii", "replace")
    if not isinstance(counts, bytes):
        raise MediaError(f"RLE: its counts are a {type(counts).__name__}", "give COCO run-length encoding")
    return _decompressed(counts)


def _decompressed(counts: bytes) -> list[int]:
    """COCO's string: 5 bits a character, low bits first; from the fourth run on, the difference to the run 2 before."""
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = character - 48
        if not 0 <= bits < 64 or shift > 60:
            raise MediaError("RLE: its counts are not COCO's string", "give COCO run-length encoding")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise MediaError("RLE: its counts are cut short", "give the whole string")
    return runs


def _shape(array: npt.NDArray[Any]) -> str:
    return "x".join(map(str, array.shape)) or "()"
