"""The size of a picture by the head of its file: nothing is decoded."""

from __future__ import annotations

from pathlib import Path

from manylens.data.records import Record

_LYING = (5, 6, 7, 8)
"""EXIF orientations that turn a picture by a quarter."""


def upright_size(path: Path) -> tuple[int, int] | None:
    """``(width, height)`` of the upright picture; None where the head of the file does not say.

    Args:
        path: Of a picture; a file that is broken or of a kind that has no such head (DICOM) is not complained of here.
    """
    import PIL.Image

    from manylens.media.pixels import orientation_of

    try:
        with PIL.Image.open(path) as picture:
            width, height = picture.size
            return (height, width) if orientation_of(picture) in _LYING else (width, height)
    except Exception:  # a broken head raises many kinds of error; whoever reads the picture says what is wrong
        return None


def other_size(record: Record) -> tuple[int, int] | None:
    """The size of the picture, where its boxes and masks were made for another; None where they fit or none is known.

    Labels are of the upright picture. Those of a tool that does not look at the EXIF orientation are of the picture as
    it is stored, and would be judged in the wrong places.
    """
    if None in (record.width, record.height) or all(one.box is None and one.mask is None for one in record.annotations):
        return None
    size = upright_size(record.path)
    return None if size == (record.width, record.height) else size
