"""One picture: upright RGB, immutable, known by its pixels."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from manylens.errors import MediaError, PromptError
from manylens.media import formats
from manylens.media.base import Media
from manylens.media.formats import ImageInfo
from manylens.media.identity import content_id
from manylens.media.pixels import RGB, array_to_rgb, orientation_of, to_rgb, turn_upright
from manylens.media.sources import Source, find, is_encoded

if TYPE_CHECKING:
    import PIL.Image

    ImageLike: TypeAlias = "Image | str | os.PathLike[str] | bytes | PIL.Image.Image | npt.NDArray[np.uint8]"


class Image(Media):
    """A picture as every model here sees it: RGB, uint8, upright, never changed.

    Make one with `Image.of`. A file is looked at there (its header, so a missing, empty, foreign or oversized file
    fails at once) and decoded on first use of its pixels, once, whichever thread asks first; so a list of 200 paths
    costs little until the workers reach them. Two images are equal when their pixels are.

    Attributes:
        name: The file's name, or what it was given as: ``array``, ``bytes``, ``data URI``, ``PIL image``.
        path: The file, or None.
    """

    json_format: ClassVar[str] = "image"
    json_description: ClassVar[str] = "An image: the path of a file, or its content as a data URI"

    def __init__(
        self,
        pixels: RGB | None,
        info: ImageInfo | None = None,
        *,
        name: str = "array",
        path: Path | None = None,
        source: Source | None = None,
        page: int = 0,
    ) -> None:
        """Not called by users: `Image.of` checks what it is given, this does not."""
        self.name = name
        self.path = path
        self._pixels = pixels
        self._info = info or ImageInfo()
        self._source = source
        self._page = page
        self._id: str | None = None
        self._lock = threading.Lock()

    @classmethod
    def of(cls, source: ImageLike | Any, *, page: int = 0) -> Self:
        """Make an image from whatever holds one.

        Args:
            source: A path; a Pillow image; a uint8 array in RGB order, ``(H, W, 3)``, gray ``(H, W)`` or RGBA
                ``(H, W, 4)``; the bytes of a file; a ``data:`` URI; or an Image, which comes back as it is.
            page: Which frame or page of a file, from 0.

        Raises:
            MediaError: It is none of these, or a file that cannot be read (docs/media.md lists each case).
        """
        import PIL.Image

        if isinstance(source, cls):
            return source
        if is_encoded(source):
            found = find(source)
            formats.check(found)
            return cls(None, name=found.label, path=found.path, source=found, page=page)
        if page:
            raise MediaError(f"{type(source).__name__}: only a file has pages", "leave page out")
        if isinstance(source, np.ndarray):
            pixels, notes = array_to_rgb(source)
            mode = {2: "L"}.get(source.ndim, {1: "L", 4: "RGBA"}.get(source.shape[-1], "RGB"))
            return cls(pixels, ImageInfo(mode=mode, notes=tuple(notes)))
        if isinstance(source, PIL.Image.Image):
            return cls._from_pil(source)
        raise MediaError(
            f"{type(source).__name__}: not an image", "give a path, bytes, a PIL image or a uint8 RGB array"
        )

    @classmethod
    def frames(cls, source: str | os.PathLike[str] | bytes) -> Iterator[Self]:
        """Every frame of an animation or page of a document, in order, decoded one at a time.

        Args:
            source: A path, the bytes of a file or a ``data:`` URI; a file of one picture yields that one.
        """
        found = find(source)
        for pixels, info in formats.decode_frames(found):
            yield cls(pixels, info, name=found.label, path=found.path)

    @property
    def array(self) -> RGB:
        """The pixels: uint8 ``(H, W, 3)``, read-only. Copy before writing, or before ``torch.from_numpy``."""
        return self._decoded()[0]

    @property
    def info(self) -> ImageInfo:
        """What the picture was before it became upright RGB."""
        return self._decoded()[1]

    @property
    def width(self) -> int:
        """Width in pixels, upright."""
        return int(self.array.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels, upright."""
        return int(self.array.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        """``(width, height)`` in pixels, the order that Pillow has."""
        return self.width, self.height

    @property
    def id(self) -> str:
        """Hash of the decoded pixels and their shape: 40 hexadecimal digits, the same for every lossless format."""
        if self._id is None:
            self._id = content_id("image", [self.array])
        return self._id

    def pil(self) -> PIL.Image.Image:
        """A new Pillow image of the pixels, free to be changed."""
        import PIL.Image

        return PIL.Image.fromarray(self.array)

    def resized(self, max_side: int) -> Self:
        """The picture with its longer side at most ``max_side`` pixels (Lanczos); never enlarged."""
        import PIL.Image

        if max_side < 1:
            raise MediaError(f"max_side: {max_side} is no size for {self.name}", "give 1 or more")
        scale = max_side / max(self.size)
        if scale >= 1:
            return self
        size = (max(1, round(self.width * scale)), max(1, round(self.height * scale)))
        small = self.pil().resize(size, PIL.Image.Resampling.LANCZOS)
        return self._derived(np.asarray(small), f"resized from {self.width} x {self.height}")

    def crop(self, box: Sequence[float]) -> Self:
        """Cut out a box.

        Args:
            box: ``(x0, y0, x1, y1)`` in pixels, x1 and y1 exclusive. Fractions are widened to whole pixels; what lies
                outside the picture is left out.

        Raises:
            PromptError: The box is not four finite numbers, is inverted, or does not touch the picture.
        """
        corners = [float(corner) for corner in box]
        shown = "(" + ", ".join(f"{corner:g}" for corner in corners) + ")"
        if len(corners) != 4 or not all(map(math.isfinite, corners)):
            raise PromptError(f"box {shown}: not four numbers", "give x0, y0, x1, y1")
        x0, y0, x1, y1 = corners
        if x0 >= x1 or y0 >= y1:
            raise PromptError(f"box {shown}: is empty or inverted", "give x0 < x1 and y0 < y1")
        left, top = max(0, math.floor(x0)), max(0, math.floor(y0))
        right, bottom = min(self.width, math.ceil(x1)), min(self.height, math.ceil(y1))
        if left >= right or top >= bottom:
            raise PromptError(f"box {shown}: lies outside {self.name} ({self.width} x {self.height})", "move it inside")
        return self._derived(self.array[top:bottom, left:right], f"cropped to {left}, {top}, {right}, {bottom}")

    def summary(self) -> dict[str, Any]:
        """``name``, ``width``, ``height`` and ``id``: how an image stands in JSON."""
        return {"name": self.name, "width": self.width, "height": self.height, "id": self.id}

    def __repr__(self) -> str:
        return f"<Image {self.name}>" if self._pixels is None else f"<Image {self.name} {self.width} x {self.height}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # To another process or machine go the pixels: the path may not be there.
        return _rebuild, (self.array.tobytes(), self.array.shape, self.info, self.name, self.path)

    @classmethod
    def _from_pil(cls, image: PIL.Image.Image) -> Self:
        filename = getattr(image, "filename", "")
        name = Path(os.fsdecode(filename)).name if filename else "PIL image"
        try:
            image.load()
            orientation = orientation_of(image)
            pixels, notes = to_rgb(turn_upright(image, orientation), name)
        except (OSError, ValueError, SyntaxError) as error:
            raise MediaError(f"{name}: the PIL image cannot be decoded ({error})", "get a whole copy of it") from error
        if 0 in pixels.shape:
            raise MediaError(f"{name}: has no pixels", "give a picture of at least 1 x 1")
        info = ImageInfo(image.format, image.mode, turned=orientation > 1, notes=tuple(notes))
        return cls(pixels, info, name=name)

    def _decoded(self) -> tuple[RGB, ImageInfo]:
        if self._pixels is None:
            with self._lock:
                if self._pixels is None:
                    assert self._source is not None
                    # The pixels are set last: another thread takes their presence to mean that all is there.
                    pixels, self._info = formats.decode(self._source, self._page)
                    self._source = None
                    self._pixels = pixels
        return self._pixels, self._info

    def _derived(self, pixels: npt.NDArray[np.uint8], note: str) -> Self:
        info = replace(self.info, notes=(*self.info.notes, note))
        return type(self)(array_to_rgb(pixels)[0], info, name=self.name)


def _rebuild(data: bytes, shape: tuple[int, ...], info: ImageInfo, name: str, path: Path | None) -> Image:
    return Image(np.frombuffer(data, np.uint8).reshape(shape), info, name=name, path=path)
