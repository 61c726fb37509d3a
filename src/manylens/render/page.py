"""Self-contained HTML pages: one look for all of them, pictures and drawings inside the file."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.media import bounds
from manylens.version import __version__

if TYPE_CHECKING:
    import PIL.Image

    from manylens.media import Image

_LONGEST = 1000
_QUALITY = 86


@dataclass(frozen=True)
class Picture:
    """A picture on a page: ``src`` is a data URI; ``cut`` asks for a chequered ground behind what is transparent."""

    src: str
    alt: str
    width: int
    height: int
    cut: bool = False


def page(package: str, template: str, filters: Mapping[str, Callable[..., Any]] | None = None, **values: Any) -> str:
    """A page as HTML, with everything in it.

    Args:
        package: Whose ``data/`` folder holds the template; it extends ``base.html.j2`` of this room.
        template: The file's name.
        filters: Functions that the template uses behind a bar, by name.
        values: What the template shows.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "data"), PackageLoader("manylens.render", "data")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters or {})
    return environment.get_template(template).render(version=__version__, **values)


def jpeg(image: Image | np.ndarray, alt: str, longest: int = _LONGEST) -> Picture:
    """A photograph, made smaller where it is larger than ``longest`` pixels; RGB uint8 ``(H, W, 3)`` or an Image."""
    import PIL.Image

    picture = PIL.Image.fromarray(image) if isinstance(image, np.ndarray) else image.pil()
    picture.thumbnail((longest, longest))
    return _picture(picture, alt, "JPEG", quality=_QUALITY, optimize=True)


def cutout(image: Image, mask: np.ndarray, alt: str, longest: int = _LONGEST // 2) -> Picture:
    """What a mask bool ``(H, W)`` that is not empty shows of a picture, cropped to it."""
    import PIL.Image

    x0, y0, x1, y1 = bounds(mask) or (0, 0, image.width, image.height)
    on = mask[y0:y1, x0:x1]
    pixels = np.dstack([image.array[y0:y1, x0:x1] * on[..., None], on.astype(np.uint8) * 255])
    picture = PIL.Image.fromarray(pixels)
    picture.thumbnail((longest, longest))
    return _picture(picture, alt, "PNG", cut=True)


def _picture(picture: PIL.Image.Image, alt: str, form: str, cut: bool = False, **how: Any) -> Picture:
    file = io.BytesIO()
    picture.save(file, form, **how)
    uri = f"data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
    return Picture(uri, alt, *picture.size, cut)
