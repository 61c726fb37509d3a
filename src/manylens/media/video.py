"""Moving pictures: a file, a folder of frames, an animation or a list, read one frame at a time."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from manylens.errors import MediaError
from manylens.media import formats
from manylens.media._av import container
from manylens.media.base import Media
from manylens.media.identity import content_id
from manylens.media.image import Image
from manylens.media.sources import Source, find, is_encoded

_PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".avif", ".gif", ".ppm", ".qoi", ".dcm"}


class _Reader(Protocol):
    """Where the frames of a video come from. Each pass over it starts anew; a frame is made only when called for."""

    fps: float | None
    count: int

    def __iter__(self) -> Iterator[Callable[[], Image]]: ...


class Video(Media):
    """A sequence of upright RGB frames of one size. Make one with `Video.of`.

    Only the frame that is asked for is in memory. Times are ``frame / fps``: a file with a changing frame rate is taken
    at its mean.

    Attributes:
        name: The file's or folder's name, or ``frames``.
        path: The file or folder, or None.
        width: Width of every frame in pixels, upright.
        height: Height of every frame in pixels, upright.
        fps: Frames a second; None where nothing states it.
        count: Number of frames.
    """

    json_format: ClassVar[str] = "video"
    json_description: ClassVar[str] = (
        "A video: the path of a file, an animation or a folder of frames, or its content as a data URI"
    )

    def __init__(self, reader: _Reader, *, name: str, shown: str, path: Path | None) -> None:
        """Not called by users: `Video.of` finds the reader for what it is given."""
        self._reader = reader
        self._shown = shown
        self.name = name
        self.path = path
        self.fps = reader.fps
        self.count = reader.count
        first = next(iter(reader), None)
        if first is None or not self.count:
            raise MediaError(f"{shown}: has no frames", "give at least one frame")
        self.width, self.height = first().size

    @classmethod
    def of(cls, source: Any, *, fps: float | None = None) -> Self:
        """Make a video from whatever holds one.

        Args:
            source: The path, bytes or ``data:`` URI of a video (needs the extra ``video``) or of an animated GIF, WebP,
                PNG or AVIF or a TIFF of many pages; the path of a folder, whose pictures are the frames in the natural
                order of their names (``2.png`` before ``10.png``); a list of whatever `Image.of` takes; a uint8 array
                ``(N, H, W, 3)``; or a Video.
            fps: Frames a second, for what does not state it itself.

        Raises:
            MediaError: It is none of these, has no frames, or cannot be read.
        """
        if isinstance(source, cls):
            return source
        if fps is not None and not 0 < fps < 1e6:
            raise MediaError(f"video: {fps} frames a second", "give a number above 0")
        if isinstance(source, list | tuple) or (isinstance(source, np.ndarray) and source.ndim == 4):
            return cls(_Pictures(list(source), fps), name="frames", shown="frames", path=None)
        if not is_encoded(source):
            raise MediaError(f"{type(source).__name__}: not a video", "give a path, a folder or a list of frames")
        found = find(source, folders=True)
        reader: _Reader
        if found.path is not None and found.path.is_dir():
            reader = _Pictures(_pictures_in(found.path), fps)
        elif formats.is_picture(found):
            reader = _Animation(found, fps)
        else:
            reader = _File(found, fps)
        return cls(reader, name=found.label, shown=found.name, path=found.path)

    @property
    def size(self) -> tuple[int, int]:
        """``(width, height)`` of every frame in pixels."""
        return self.width, self.height

    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[Image]:
        """The frames of ``range(start, stop, step)``, in order, decoded one at a time.

        Raises:
            MediaError: A frame has another size, or the file is cut in the middle. Frames before it were good.
        """
        for index, make in islice(enumerate(self._reader), start, stop, step):
            frame = make()
            if frame.size != self.size:
                sizes = f"{frame.width} x {frame.height}, the first {self.width} x {self.height}"
                raise MediaError(
                    f"{self._shown}: frame {index} is {sizes}",
                    "give frames of one size",
                )
            yield frame

    def frame(self, index: int) -> Image:
        """One frame, from 0.

        Raises:
            MediaError: There is no such frame.
        """
        if 0 <= index < self.count:
            for frame in self.frames(index, index + 1):
                return frame
        raise MediaError(f"{self._shown}: has no frame {index}", f"give a frame from 0 to {self.count - 1}")

    def __iter__(self) -> Iterator[Image]:
        return self.frames()

    def __len__(self) -> int:
        return self.count

    @cached_property
    def id(self) -> str:
        """Hash of all frames, without the rate: 40 hexadecimal digits. Decodes the whole video once."""
        return content_id("video", (frame.id for frame in self))

    def summary(self) -> dict[str, Any]:
        """``name``, ``width``, ``height``, ``fps`` and ``count``: how a video stands in JSON."""
        return {"name": self.name, "width": self.width, "height": self.height, "fps": self.fps, "count": self.count}

    def __repr__(self) -> str:
        return f"<Video {self.name} {self.width} x {self.height}, {self.count} frames>"


class _Pictures:
    """Frames that are each a picture of their own."""

    def __init__(self, pictures: Sequence[Any], fps: float | None) -> None:
        self.fps = fps
        self.count = len(pictures)
        # A file is opened anew on each pass, so that its pixels do not stay; the rest is in memory anyhow.
        self._pictures = [one if isinstance(one, str | os.PathLike) else Image.of(one) for one in pictures]

    def __iter__(self) -> Iterator[Callable[[], Image]]:
        for picture in self._pictures:
            yield lambda picture=picture: Image.of(picture)  # type: ignore[misc]


class _Animation:
    """The frames of an animated picture or the pages of a document."""

    def __init__(self, source: Source, fps: float | None) -> None:
        self._source = source
        info = formats.decode(source)[1]
        self.fps = 1 / info.seconds if info.seconds else fps
        self.count = info.frames

    def __iter__(self) -> Iterator[Callable[[], Image]]:
        for pixels, info in formats.decode_frames(self._source):
            name = f"{self._source.label}#{info.frame}"
            yield lambda pixels=pixels, info=info, name=name: Image(pixels, info, name=name)  # type: ignore[misc]


class _File:
    """The frames of a video file, through PyAV."""

    def __init__(self, source: Source, fps: float | None) -> None:
        self._source = source
        with container(source, "video") as opened:
            stream = opened.streams.video[0]
            formats.check_size(source.name, stream.width, stream.height)
            self.fps = float(stream.average_rate) if stream.average_rate else fps
            stated = stream.frames
            if not stated and opened.duration and self.fps:
                stated = round(opened.duration / 1_000_000 * self.fps)
            self._stated = int(stated)
            self.count = int(stream.frames) or sum(1 for packet in opened.demux(stream) if packet.size)

    def __iter__(self) -> Iterator[Callable[[], Image]]:
        seen = 0
        with container(self._source, "video") as opened:
            opened.streams.video[0].thread_type = "AUTO"
            for frame in opened.decode(video=0):
                yield lambda frame=frame, index=seen: self._image(frame, index)  # type: ignore[misc]
                seen += 1
        # A file may rightly hold a little less than it states (a rounded duration), but not a twentieth less.
        if seen + max(2, self._stated // 20) < self._stated:
            raise MediaError(
                f"{self._source.name}: the video is cut in the middle ({seen} of {self._stated} frames can be read)",
                "get a whole copy of it",
            )

    def _image(self, frame: Any, index: int) -> Image:
        pixels = frame.to_ndarray(format="rgb24")
        # The angle is how far the file wants the picture turned counterclockwise, a multiple of 90 in practice.
        turns = round(frame.rotation / 90) % 4
        upright = np.ascontiguousarray(np.rot90(pixels, turns))
        image = Image.of(upright)
        return Image(image.array, formats.ImageInfo(turned=turns > 0), name=f"{self._source.label}#{index}")


def _pictures_in(folder: Path) -> list[Path]:
    try:
        files = [
            path for path in folder.iterdir() if path.suffix.lower() in _PICTURES and not path.name.startswith(".")
        ]
    except OSError as error:
        raise MediaError(f"{folder}: no permission to read it", "change its permissions") from error
    return sorted(
        files, key=lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]
    )
