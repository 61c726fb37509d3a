"""Opening image files: which formats are read, the pixel limit, frames and pages, and what a bad file is told."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

from manylens.errors import MediaError, UserError
from manylens.media.pixels import RGB, orientation_of, to_rgb, turn_upright
from manylens.media.sniff import kind_of
from manylens.media.sources import Source

if TYPE_CHECKING:
    import PIL.Image

DEFAULT_MAX_PIXELS = 200_000_000

# Pillow reads more, but some of it runs outside programs (EPS) or guesses without a signature (TGA).
_PLUGINS = ("Jpeg", "Png", "Gif", "Bmp", "Tiff", "WebP", "Avif", "Jpeg2K", "Mpo", "Ppm", "Ico", "Qoi")
# HEIF is there when the caller has registered pillow-heif.
_FORMATS = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "MPO", "PPM", "ICO", "QOI", "HEIF"]


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What a picture was before it became upright RGB.

    Attributes:
        format: Pillow's name of the file format, or None for an array.
        mode: Pillow's name of the original mode: ``RGB``, ``CMYK``, ``P``, ``I;16``, ...
        bits: Bits a channel in the file.
        frames: Frames or pages in the file.
        frame: Which of them this is, from 0.
        turned: Whether an EXIF orientation was applied.
        seconds: How long an animation shows this frame; None for a still picture.
        notes: What was changed or left out, in plain words.
    """

    format: str | None = None
    mode: str = "RGB"
    bits: int = 8
    frames: int = 1
    frame: int = 0
    turned: bool = False
    seconds: float | None = None
    notes: tuple[str, ...] = ()


def max_pixels() -> int:
    """The largest picture that is opened, in pixels: ``MANYLENS_MAX_PIXELS`` or 200 million."""
    text = os.environ.get("MANYLENS_MAX_PIXELS", "").replace("_", "")
    if not text:
        return DEFAULT_MAX_PIXELS
    if not text.isdecimal() or int(text) == 0:
        raise UserError(f"MANYLENS_MAX_PIXELS: {text!r} is not a number of pixels", "set it to a whole number above 0")
    return int(text)


def check_size(name: str, width: int, height: int) -> None:
    """Refuse a picture over the pixel limit, from its header, before anything is decoded."""
    if (limit := max_pixels()) < width * height:
        raise MediaError(
            f"{name}: {width} x {height} is {width * height / 1e6:.0f} million pixels, the limit is {limit / 1e6:g}",
            f"make it smaller, or set MANYLENS_MAX_PIXELS={width * height} if you trust the file",
        )


def is_picture(source: Source) -> bool:
    """Whether this is a picture or an animation, by its first bytes."""
    with source.open() as file:
        prefix = file.read(16)
    return any(_accepts(format_name, prefix) for format_name in _FORMATS)


def check(source: Source) -> None:
    """Read the header only: is this a picture, and not too large?"""
    if is_dicom(source):
        from manylens.media.dicom import check_dicom

        check_dicom(source)
        return
    with _opened(source):
        pass


def decode(source: Source, page: int = 0) -> tuple[RGB, ImageInfo]:
    """Decode one frame or page to upright RGB."""
    if is_dicom(source):
        from manylens.media.dicom import decode_dicom

        return decode_dicom(source, page)
    raw, info = decode_raw(source, page)
    pixels, notes = to_rgb(raw, source.name)
    return pixels, replace(info, notes=info.notes + tuple(notes))


def decode_raw(source: Source, page: int = 0) -> tuple[PIL.Image.Image, ImageInfo]:
    """Decode one frame or page, upright, in the mode that the file has."""
    with _opened(source) as image, _broken_named(source.name, image.format):
        return _load(source.name, image, page)


def decode_frames(source: Source) -> Iterator[tuple[RGB, ImageInfo]]:
    """Decode every frame or page, one at a time."""
    if is_dicom(source):
        first = decode(source)
        yield first
        for page in range(1, first[1].frames):
            yield decode(source, page)
        return
    with _opened(source) as image:
        page, frames = 0, 1
        while page < frames:
            with _broken_named(source.name, image.format):
                raw, info = _load(source.name, image, page)
            pixels, notes = to_rgb(raw, source.name)
            # Without the note 'first of 12 frames', which says nothing where all of them come.
            yield pixels, replace(info, notes=tuple(notes))
            page, frames = page + 1, info.frames


def is_dicom(source: Source) -> bool:
    """Whether the DICOM mark stands at byte 128 (and the file is not a TIFF that carries it in its free space)."""
    with source.open() as file:
        head = file.read(132)
    return head[128:] == b"DICM" and head[:4] not in (b"II*\0", b"MM\0*")


def _load(name: str, image: PIL.Image.Image, page: int) -> tuple[PIL.Image.Image, ImageInfo]:
    frames = getattr(image, "n_frames", 1)
    if not 0 <= page < frames:
        raise MediaError(f"{name}: has no page {page}", f"give a page from 0 to {frames - 1}")
    image.seek(page)
    check_size(name, *image.size)
    mode, bits = image.mode, _bits(image)
    # Pillow turns TIFF pages itself while it decodes them, so the orientation is read before and after.
    before = orientation_of(image)
    image.load()
    after = orientation_of(image)
    notes = []
    if frames > 1:
        notes.append(f"first of {frames} frames" if page == 0 else f"frame {page} of {frames}, counted from 0")
    shown_ms = image.info.get("duration") if frames > 1 else None
    seconds = shown_ms / 1000 if isinstance(shown_ms, int | float) else None
    info = ImageInfo(image.format, mode, bits, frames, page, max(before, after) > 1, seconds, tuple(notes))
    return turn_upright(image, after), info


def _bits(image: PIL.Image.Image) -> int:
    tiff_tags: Any = getattr(image, "tag_v2", {})
    if stated := tiff_tags.get(258):
        return int(stated[0])
    if any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):
        return 16
    return {"1": 1, "I": 32, "F": 32}.get(image.mode, 16 if image.mode.startswith("I;16") else 8)


@functools.cache
def _openers() -> dict[str, tuple[Callable[..., Any], Callable[[bytes], bool | str] | None]]:
    import PIL.Image

    for plugin in _PLUGINS:
        importlib.import_module(f"PIL.{plugin}ImagePlugin")
    return PIL.Image.OPEN


@contextmanager
def _opened(source: Source) -> Iterator[PIL.Image.Image]:
    """Open the header of an image file, within the pixel limit.

    The plugin is called itself: `PIL.Image.open` applies a limit that is one for the whole process and warns at half of
    it, and this package must neither change that for its caller nor be bound by it.
    """
    with source.open() as file:
        image = _identify(source.name, file)
        if image is None:
            what, remedy = kind_of(file)
            raise MediaError(f"{source.name}: not an image that can be read ({what})", remedy)
        with image:
            check_size(source.name, *image.size)
            yield image


def _identify(name: str, file: BinaryIO) -> PIL.Image.Image | None:
    prefix = file.read(16)
    format_name = next((known for known in _FORMATS if _accepts(known, prefix)), None)
    if format_name is None:
        return None
    file.seek(0)
    with _broken_named(name, format_name):
        image: PIL.Image.Image = _openers()[format_name][0](file, "")
        return image


def _accepts(format_name: str, prefix: bytes) -> bool:
    _, accept = _openers().get(format_name, (None, None))
    return bool(accept and accept(prefix) is True)


@contextmanager
def _broken_named(name: str, format_name: str | None) -> Iterator[None]:
    import PIL.Image

    try:
        yield
    except MediaError:
        raise
    except PIL.Image.DecompressionBombError as error:  # WebP, GIF and MPO have Pillow's own limit inside
        raise MediaError(f"{name}: more pixels than Pillow opens in {format_name}", "save it as PNG") from error
    except MemoryError as error:
        raise MediaError(f"{name}: does not fit in memory", "make it smaller") from error
    except Exception as error:  # each of Pillow's parsers has its own kinds of error for a bad file
        reason = f" ({str(error).lower()})" if isinstance(error, OSError) else ""  # the others tell users nothing
        raise MediaError(
            f"{name}: the {format_name} file is cut short or broken{reason}", "get a whole copy of it"
        ) from error
