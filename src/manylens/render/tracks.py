"""Objects followed through a video, as files: an overview, the video with its masks on it, and label pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from manylens.media import Image, Video, atomic_write, from_rle, save_image
from manylens.render.draw import draw

if TYPE_CHECKING:
    from manylens.tasks.results import Frame, Tracks

_SHOWN = 12
"""Frames of an overview."""

_COLUMNS = 4
_SHEET_SIDE, _FILM_SIDE = 360, 640
"""Pixels of the longer side of a frame in the overview and in the video."""

_RATE = 12.0  # frames a second where the video does not say
_MOST = 255  # objects that an indexed picture can tell apart


def write_tracks(tracks: Tracks, video: Video, folder: Path, stem: str) -> list[Path]:
    """Write what people look at, and the masks as DAVIS keeps them.

    ``STEM.png`` shows up to twelve frames; ``STEM.mp4`` (with PyAV) or ``STEM.webp`` plays the video with its masks;
    ``STEM-masks/00000.png`` and so on are indexed pictures: 0 is none, 1 the first object.

    Returns:
        The overview, the film, the folder of masks.

    Raises:
        OutputError: A file could not be written.
    """
    made = [save_image(Image.of(_sheet(tracks, video)), folder / f"{stem}.png"), _film(tracks, video, folder / stem)]
    if max(tracks.ids, default=0) <= _MOST:
        made.append(_masks(tracks, folder / f"{stem}-masks"))
    return made


def drawn(frame: Frame, image: Image, side: int) -> np.ndarray:
    """A frame with its objects on it, each in its own colour: RGB uint8, its longer side at most ``side``.

    The frame is reduced before it is drawn on, so that outlines and labels of a large video stay readable.
    """
    found = frame.detections(image.size)
    small = image.resized(side) if max(image.size) > side else image
    if small.size != image.size and found.mask is not None:
        scale = np.array([small.width / image.width, small.height / image.height] * 2, np.float32)
        found.xyxy = found.xyxy * scale
        found.mask = np.stack([_reduced(mask, small.size) for mask in found.mask])
    ids = found.tracker_id if found.tracker_id is not None else np.zeros(0, int)
    found.data["hue"] = ids - 1
    found.data["class_name"] = np.array(
        [f"{name} {id}".strip() for name, id in zip(found.data["class_name"], ids, strict=True)], dtype=str
    )
    scene = draw(small, found)
    assert scene is not None
    return Image.of(scene).resized(side).array


def _reduced(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask bool ``(H, W)`` at a smaller ``(width, height)``; what is thin stays."""
    import cv2

    share = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0])
    return np.asarray(share > 0.49 * float(share.max()))


def label_picture(frame: Frame, size: tuple[int, int]) -> np.ndarray:
    """Which object each pixel is of: uint8 ``(H, W)``, 0 for none."""
    labels = np.zeros((size[1], size[0]), np.uint8)
    for one in frame.objects:
        labels[from_rle(one.mask)] = one.tracker_id
    return labels


@cache
def palette() -> tuple[int, ...]:
    """The 256 colours of PASCAL VOC and DAVIS: bits of the number, spread over red, green and blue."""
    numbers = np.arange(256)
    colours = np.zeros((256, 3), int)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((numbers >> (3 * bit + channel)) & 1) << (7 - bit)
    return tuple(colours.ravel().tolist())


def _scenes(tracks: Tracks, video: Video, side: int) -> Iterator[np.ndarray]:
    for frame, image in zip(tracks.frames, video, strict=False):
        yield drawn(frame, image, side)


def _sheet(tracks: Tracks, video: Video) -> np.ndarray:
    """Frames spread over the video, row by row: RGB uint8."""
    import cv2

    count = len(tracks)
    wanted = np.unique(np.linspace(0, count - 1, min(count, _SHOWN)).round().astype(int))
    scenes = []
    for frame, image in zip(tracks.frames, video, strict=False):
        if frame.index in wanted:
            scene = drawn(frame, image, _SHEET_SIDE).copy()
            for colour, width in ((0, 3), (255, 1)):
                place = (6, scene.shape[0] - 8)
                cv2.putText(
                    scene, f"{frame.index}", place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, [colour] * 3, width, cv2.LINE_AA
                )
            scenes.append(scene)
    high, wide = scenes[0].shape[:2]
    columns = min(_COLUMNS, len(scenes))
    rows = -(-len(scenes) // columns)
    sheet = np.full((rows * (high + 4) - 4, columns * (wide + 4) - 4, 3), 255, np.uint8)
    for number, scene in enumerate(scenes):
        y, x = number // columns * (high + 4), number % columns * (wide + 4)
        sheet[y : y + high, x : x + wide] = scene
    return sheet


def _film(tracks: Tracks, video: Video, path: Path) -> Path:
    rate = tracks.fps or _RATE
    if find_spec("av") is not None:
        return atomic_write(path.with_name(f"{path.name}.mp4"), partial(_mp4, tracks, video, rate))
    return atomic_write(path.with_name(f"{path.name}.webp"), partial(_webp, tracks, video, rate))


def _mp4(tracks: Tracks, video: Video, rate: float, file: BinaryIO) -> None:
    import av

    codec = next(name for name in ("libx264", "libopenh264", "mpeg4") if name in av.codecs_available)
    with av.open(file, "w", format="mp4") as film:
        stream: Any = None
        for scene in _scenes(tracks, video, _FILM_SIDE):
            even = scene[: max(2, scene.shape[0] // 2 * 2), : max(2, scene.shape[1] // 2 * 2)]
            even = np.pad(even, ((0, even.shape[0] % 2), (0, even.shape[1] % 2), (0, 0)), mode="edge")
            if stream is None:
                stream = film.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
                stream.height, stream.width = even.shape[:2]
                stream.pix_fmt = "yuv420p"
            film.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")))
        film.mux(stream.encode())


def _webp(tracks: Tracks, video: Video, rate: float, file: BinaryIO) -> None:
    import PIL.Image

    scenes = (PIL.Image.fromarray(scene) for scene in _scenes(tracks, video, _FILM_SIDE))
    first = next(scenes)
    first.save(file, "WEBP", save_all=True, append_images=scenes, duration=round(1000 / rate), quality=80, loop=0)


def _masks(tracks: Tracks, folder: Path) -> Path:
    import PIL.Image

    for frame in tracks.frames:
        picture = PIL.Image.fromarray(label_picture(frame, (tracks.width, tracks.height)))
        picture.putpalette(palette())
        atomic_write(folder / f"{frame.index:05d}.png", lambda file, picture=picture: picture.save(file, "PNG"))  # type: ignore[misc]
    for old in folder.glob("*.png"):  # of a longer video that was written here before
        if re.fullmatch(r"\d{5,}", old.stem) and int(old.stem) >= len(tracks):
            old.unlink()
    return folder
