"""The tasks as Python functions, with full signatures for editors and type checkers.

Each takes the fields of its task's request, and ``model`` (a catalog id, a folder or a hub id), ``seed`` and
``session``; a test holds them to the declarations in :mod:`manylens.tasks`. Wherever an image goes in, a path, a PIL
image, an RGB uint8 array ``(H, W, 3)`` or an :class:`~manylens.media.Image` does. Coordinates are pixels of the upright
picture, x right, y down; boxes are ``xyxy`` with exclusive max. Mistakes end in a
:class:`~manylens.errors.ManylensError` of one line.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from manylens.media import Image
from manylens.session import Session, default_session
from manylens.tasks import Answer, Classification, Embedding, Reading, request
from manylens.tasks.requests import SegmentMode, StructureKind
from manylens.tasks.results import Caption, Depth, Match, Picture, Recognition, Speech, StructureMap, Tracks, Transcript

if TYPE_CHECKING:
    import PIL.Image
    from supervision import Detections

    ImageLike = str | os.PathLike[str] | PIL.Image.Image | np.ndarray | Image

Point = tuple[float, float]
Box = tuple[float, float, float, float]


def _run(task: str, model: str | None, seed: int, session: Session | None, **fields: Any) -> Any:
    return (session or default_session()).run(request(task, **fields), model=model, seed=seed)


def segment(
    image: ImageLike,
    *,
    points: Sequence[Point] = (),
    background_points: Sequence[Point] = (),
    box: Box | None = None,
    mask: Any = None,
    text: str | None = None,
    like: Sequence[Any] = (),
    objects: Sequence[Any] = (),
    mode: SegmentMode = "prompt",
    threshold: float | None = None,
    points_per_side: int | None = None,
    previous: Any = None,
    model: str | None = None,
    seed: int = 0,
    session: Session | None = None,
) -> Detections:
    """Masks of what is clicked, boxed, named, shown by example, or of everything.

    Args:
        image: The picture.
        points: Clicks on the object, ``(x, y)`` in pixels.
        background_points: Clicks on what is not the object.
        box: ``(x0, y0, x1, y1)`` around the object.
        mask: A coarse mask to refine, bool ``(H, W)`` or a file.
        text: The thing in words.
        like: Examples: ``{"image": ..., "mask": ..., "name": ...}`` each.
        objects: Several objects at once: ``{"points": ..., "background_points": ..., "box": ..., "mask": ...}`` each.
        mode: ``prompt``, ``everything``, ``main``, ``semantic``, ``instance`` or ``panoptic``.
        threshold: The least score that is kept; None for the model's own.
        points_per_side: Of the grid along each side, in mode ``everything``; None for the model's own.
        previous: Logits float32 ``(h, w)`` of an earlier answer about the same object, from
            ``.metadata["low_res"]``, to be refined.

    Returns:
        Detections ordered by score: masks bool ``(N, H, W)`` in ``.mask``, scores in ``.confidence``; a click gives up
        to three (``.data["level"]``: whole, part, subpart).
    """
    return _run(
        "segment",
        model,
        seed,
        session,
        image=image,
        points=points,
        background_points=background_points,
        box=box,
        mask=mask,
        text=text,
        like=like,
        objects=objects,
        mode=mode,
        threshold=threshold,
        points_per_side=points_per_side,
        previous=previous,
    )


def track(
    video: Any,
    *,
    frame: int = 0,
    points: Sequence[Point] = (),
    background_points: Sequence[Point] = (),
    box: Box | None = None,
    mask: Any = None,
    text: str | None = None,
    like: Sequence[Any] = (),
    objects: Sequence[Any] = (),
    model: str | None = None,
    seed: int = 0,
    session: Session | None = None,
) -> Tracks:
    """Masks of objects in each frame of a video, with ``tracker_id``.

    Args:
        video: A file, a folder of frames, or frames.
        frame: The frame, from 0, that the prompt speaks of; the rest of the prompt as in :func:`segment`.

    Returns:
        Iterate for Detections frame by frame; ``.frames`` holds the same as RLE.
    """
    return _run(
        "track",
        model,
        seed,
        session,
        video=video,
        frame=frame,
        points=points,
        background_points=background_points,
        box=box,
        mask=mask,
        text=text,
        like=like,
        objects=objects,
    )


def detect(
    image: ImageLike,
    *,
    names: Sequence[str] | str | None = None,
    like: Any = (),
    threshold: float = 0.4,
    model: str | None = None,
    seed: int = 0,
    session: Session | None = None,
) -> Detections:
    """Boxes of things, by name or of a closed set.

    Args:
        image: The picture.
        names: What to look for; None for all classes that the model knows.
        like: Examples: ``{"image": ..., "box": ..., "name": ...}`` each, the name if it has one.
        threshold: The least score that is kept.

    Returns:
        Detections ordered by score; ``.data["class_name"]`` names each.
    """
    return _run("detect", model, seed, session, image=image, names=names, like=like, threshold=threshold)


def classify(
    image: ImageLike,
    *,
    names: Sequence[str] | str | None = None,
    top: int = 5,
    like: Sequence[Any] = (),
    model: str | None = None,
    seed: int = 0,
    session: Session | None = None,
) -> Classification:
    """Ranked labels of a picture.

    Args:
        image: The picture.
        names: The names to choose from; None for the model's own labels.
        top: How many labels are returned.
        like: Example pictures, ``{"image": ..., "name": ...}`` each; the nearest ones decide.
    """
    return _run("classify", model, seed, session, image=image, names=names, top=top, like=like)


def embed(
    image: ImageLike | None = None,
    *,
    box: Box | None = None,
    text: str | None = None,
    audio: Any = None,
    dense: bool = False,
    model: str | None = None,
    seed: int = 0,
    session: Session | None = None,
) -> Embedding:
    """A unit vector of a picture, a region, text or sound.

    Args:
        image: The picture, or give ``text`` or ``audio`` instead.
        box: A region of the picture.
        text: Text instead of a picture.
        audio: Sound instead of a picture.
        dense: Also the patch features.

    Returns:
        ``.vector`` float32 ``(D,)`` of length 1; ``.dense`` float32 ``(rows, columns, D)``.
    """
    return _run("embed", model, seed, session, image=image, box=box, text=text, audio=audio, dense=dense)


def match(
    image: ImageLike,
    *,
    text: str | None = None,
    other: ImageLike | None = None,
    model: str | None = None,
    seed: int = 0,
    session: Session | None = None,
) -> Match:
    """How well a text, or another picture, fits a picture.

    Args:
        image: The picture.
        text: The text.
        other: Another picture instead of text.
    """
    return _run("match", model, seed, session, image=image, text=text, other=other)


def caption(
    image: ImageLike,
    *,
    box: Box | None = None,
    length: Literal["short", "medium", "long"] = "short",
    model: str | None = None,
    seed: int = 0,
    session: Session | None = None,
) -> Caption:
    """A sentence about a picture or a region.

    Args:
        image: The picture.
        box: A region of it.
        length: How much is said.
    """
    return _run("caption", model, seed, session, image=image, box=box, length=length)


def answer(
    image: ImageLike,
    question: str,
    *,
    more_images: Sequence[ImageLike] = (),
    model: str | None = None,
    seed: int = 0,
    session: Session | None = None,
) -> Answer:
    """The answer to a question about a picture, with its evidence.

    Args:
        image: The picture.
        question: The question, in plain words.
        more_images: Further pictures that it speaks of.

    Returns:
        ``.text``, ``.evidence``, and ``.known``: False where it cannot be answered, and ``.text`` says why.
    """
    return _run("answer", model, seed, session, image=image, question=question, more_images=more_images)


def read(
    image: ImageLike,
    *,
    threshold: float = 0.5,
    model: str | None = None,
    seed: int = 0,
    session: Session | None = None,
) -> Reading:
    """The written text in a picture.

    Args:
        image: The picture.
        threshold: The least score of a line that is kept.

    Returns:
        ``.lines`` in reading order, each with text, score and box; ``.text`` joins them.
    """
    return _run("read", model, seed, session, image=image, threshold=threshold)


def structure(
    image: ImageLike,
    *,
    kind: StructureKind = "edges",
    model: str | None = None,
    seed: int = 0,
    session: Session | None = None,
) -> StructureMap:
    """A map of a picture's structure.

    Args:
        image: The picture.
        kind: canny, edges, lines, scribble, pose, normal, depth or segmentation.
    """
    return _run("structure", model, seed, session, image=image, kind=kind)


def depth(
    image: ImageLike,
    *,
    model: str | None = None,
    seed: int = 0,
    session: Session | None = None,
) -> Depth:
    """How far away each pixel is; ``.scale`` says whether in metres.

    Args:
        image: The picture.
    """
    return _run("depth", model, seed, session, image=image)


def generate(
    text: str,
    *,
    structure: ImageLike | None = None,
    kind: StructureKind | None = None,
    negative: str | None = None,
    width: int = 512,
    height: int = 512,
    model: str | None = None,
    seed: int = 0,
    session: Session | None = None,
) -> Picture:
    """A new picture from words.

    Args:
        text: What it shall show.
        structure: A structure map to follow, of ``kind``.
        kind: The kind of the structure map.
        negative: What it shall not show.
        width: In pixels.
        height: In pixels.
    """
    return _run(
        "generate",
        model,
        seed,
        session,
        text=text,
        structure=structure,
        kind=kind,
        negative=negative,
        width=width,
        height=height,
    )


def edit(
    image: ImageLike,
    *,
    instruction: str | None = None,
    mask: Any = None,
    text: str | None = None,
    model: str | None = None,
    seed: int = 0,
    session: Session | None = None,
) -> Picture:
    """A picture changed by an instruction, or inside a mask by words.

    Args:
        image: The picture.
        instruction: What to change.
        mask: The part to make anew.
        text: What the masked part shall show.
    """
    return _run("edit", model, seed, session, image=image, instruction=instruction, mask=mask, text=text)


def upscale(
    image: ImageLike,
    *,
    scale: Literal[2, 4] = 4,
    model: str | None = None,
    seed: int = 0,
    session: Session | None = None,
) -> Picture:
    """The picture with more pixels.

    Args:
        image: The picture.
        scale: How many times wider and higher.
    """
    return _run("upscale", model, seed, session, image=image, scale=scale)


def transcribe(
    audio: Any,
    *,
    language: str | None = None,
    model: str | None = None,
    seed: int = 0,
    session: Session | None = None,
) -> Transcript:
    """The words of a recording, with times.

    Args:
        audio: The recording.
        language: Such as ``en``; None to find out.
    """
    return _run("transcribe", model, seed, session, audio=audio, language=language)


def speak(
    text: str,
    *,
    voice: str | None = None,
    model: str | None = None,
    seed: int = 0,
    session: Session | None = None,
) -> Speech:
    """Text as speech.

    Args:
        text: What to say.
        voice: The voice's name.
    """
    return _run("speak", model, seed, session, text=text, voice=voice)


def recognize(
    image: ImageLike,
    *,
    model: str | None = None,
    seed: int = 0,
    session: Session | None = None,
) -> Recognition:
    """Every region of a picture with box, mask, open-world name and sentence.

    Args:
        image: The picture.
    """
    return _run("recognize", model, seed, session, image=image)
