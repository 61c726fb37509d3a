"""What a file is, from its first bytes, when it is not a picture: for an error that helps."""

from __future__ import annotations

import codecs
import re
from typing import BinaryIO

_RENDER = "save the page as PNG first"
_EXTRACT = "unpack it first"
_VIDEO = "open it as a video"
_AUDIO = "open it as audio"
_CONVERT = "convert it to JPEG or PNG first"

# (pattern at the start of the file, what it is, what to do)
_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (rb"%PDF", "it is a PDF", _RENDER),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "it is PostScript", _RENDER),
    (
        rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml.*?)?(?:<!--.*?-->\s*)?(?:<!DOCTYPE svg.*?)?<svg",
        "it is an SVG drawing",
        _RENDER,
    ),
    (rb"(?i:\s*<!doctype html|\s*<html)", "it is a web page", "download the picture itself"),
    (rb"....ftyp(?:heic|heix|hevc|heim|heis|mif1|msf1)", "it is HEIC", _CONVERT),
    (rb"....ftyp", "it is a video", _VIDEO),
    (rb"\x1a\x45\xdf\xa3", "it is a video", _VIDEO),
    (rb"RIFF....AVI ", "it is a video", _VIDEO),
    (rb"RIFF....WAVE|ID3|fLaC|OggS", "it is sound", _AUDIO),
    (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!|BZh|\xfd7zXZ", "it is an archive", _EXTRACT),
    (rb"\x93NUMPY", "it is a numpy array", "load it with numpy.load and give the array"),
    (rb"\x89HDF", "it is HDF5", _CONVERT),
    (rb"8BPS", "it is a Photoshop file", _CONVERT),
    (rb"SIMPLE  =", "it is FITS", _CONVERT),
)


def kind_of(file: BinaryIO) -> tuple[str, str]:
    """Name what a file holds and what to do about it.

    Args:
        file: Open, anywhere; only its first 4096 bytes are read.

    Returns:
        What it is (``it holds text``) and a remedy (``give a JPEG, PNG, ...``).
    """
    file.seek(0)
    head = file.read(4096)
    for pattern, what, remedy in _KINDS:
        if re.match(pattern, head, re.DOTALL):
            return what, remedy
    what = "it holds text" if _is_text(head) else "its format is not known"
    return what, "give a JPEG, PNG, TIFF, WebP, AVIF, GIF, BMP or DICOM file"


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:  # incremental, as the last character may be cut
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True
