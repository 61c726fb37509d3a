"""Writing pictures, and marking those that a model made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manylens.errors import MediaError
from manylens.media import formats
from manylens.media.files import atomic_write
from manylens.media.sources import find

if TYPE_CHECKING:
    from manylens.media.image import Image

_KEY = "manylens"
_SHOWN = {"model", "prompt", "seed"}
_XMP_KEY = "XML:com.adobe.xmp"
# XMP with the IPTC's term for a picture that a trained model made; picture archives and browsers look for it.
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    ' Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
    "</rdf:RDF></x:xmpmeta>"
)


def save_image(image: Image, path: str | os.PathLike[str], made_by: Mapping[str, Any] | None = None) -> Path:
    """Write a picture as PNG; one that a model made is marked as made.

    Args:
        image: The picture.
        path: Where to write it; its name ends in ``.png``.
        made_by: For a made picture how it was made: ``model``, ``prompt``, ``seed`` and whatever else JSON can hold.
            It is kept in the file's text, whole as JSON (which `made_by` reads back) and the first three also under
            their own names, together with the IPTC's mark for pictures made by a model.

    Raises:
        MediaError: The name does not end in .png.
        OutputError: The file cannot be written.
    """
    from PIL.PngImagePlugin import PngInfo

    if Path(path).suffix.lower() != ".png":
        raise MediaError(f"{path}: pictures are written as PNG", "end the name in .png")
    text = PngInfo()
    if made_by is not None:
        text.add_itxt("Software", "manylens")
        text.add_itxt(_KEY, json.dumps(dict(made_by), ensure_ascii=False, sort_keys=True))
        for key in _SHOWN & made_by.keys():
            text.add_itxt(key, str(made_by[key]))
        text.add_itxt(_XMP_KEY, _XMP)
    picture = image.pil()
    return atomic_write(path, lambda file: picture.save(file, "PNG", pnginfo=text))


def made_by(path: str | os.PathLike[str] | bytes) -> dict[str, Any] | None:
    """How a picture was made, as `save_image` was told; None for one that carries no such mark."""
    raw, _ = formats.decode_raw(find(path))
    try:
        made = json.loads(raw.info[_KEY])
    except (KeyError, TypeError, ValueError):
        return None
    return made if isinstance(made, dict) else None
