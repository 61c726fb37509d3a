"""What goes into each task: one request type a task, the same for Python, command line, HTTP, MCP and the agent.

Coordinates are absolute pixels of the upright picture, x right, y down; boxes are ``xyxy`` with exclusive max.
Every field's description is shown by every face, so it is written for users.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from manylens.errors import PromptError
from manylens.media import Audio, Image, MaskInput, Video
from manylens.tasks import flags
from manylens.tasks.flags import Flag
from manylens.tasks.geometry import Box, Point, check_box, check_point

DEFAULT = frozenset({"default"})


class Request(BaseModel):
    """Base of all requests: validated, immutable, and able to say what it needs of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    task: ClassVar[str]

    @classmethod
    def of(cls, **fields: Any) -> Self:
        """Build a request, turning a validation failure into one readable line.

        Raises:
            PromptError: A field is missing, unknown, or has a value that does not fit.
            MediaError: A picture, mask, sound or video cannot be read.
        """
        try:
            return cls(**fields)
        except ValidationError as failure:
            first = failure.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "request"
            known = f"the fields are {', '.join(cls.model_fields)}" if first["type"] == "extra_forbidden" else ""
            raise PromptError(f"{cls.task}: {place}: {first['msg'].removeprefix('Value error, ')}", known) from None

    def needs(self) -> frozenset[str]:
        """The capabilities that a model must have for this request, as the catalog's rows name them."""
        return DEFAULT

    def pictures(self) -> list[Image]:
        """The pictures that the request brings, the main one first."""
        return [value for name in type(self).model_fields if isinstance(value := getattr(self, name), Image)]

    def prompt(self) -> dict[str, Any]:
        """All that was asked, without the media: goes into provenance and cache keys; JSON-ready."""
        kept: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is None or (isinstance(value, (tuple, list)) and not value):
                continue
            if not isinstance(value, (Image, Audio, Video, np.ndarray)):
                kept[name] = _plain(value)
        return kept


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, BaseModel):
        return {k: _plain(getattr(value, k)) for k in type(value).model_fields if getattr(value, k) is not None}
    if isinstance(value, np.ndarray):
        return f"mask of {int(np.count_nonzero(value))} pixels"
    if isinstance(value, Image):
        return value.name
    return value


def _said(text: str | None, task: str, field: str) -> str | None:
    if text is not None and not text.strip():
        raise PromptError(f"{task}: the {field} is empty", f"say something in {field}")
    return text


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class ObjectPrompt(_Part):
    """What points out one object: clicks, a box, a coarse mask, or several of these."""

    points: tuple[Point, ...] = Field((), description="Clicks on the object, (x, y) in pixels.")
    background_points: tuple[Point, ...] = Field((), description="Clicks on what is not the object.")
    box: Box | None = Field(None, description="A box around the object: x0, y0, x1, y1.")
    mask: MaskInput | None = Field(None, description="A coarse mask of the object, of the picture's size.")

    def check(self, image: Image) -> None:
        """Refuse what does not lie on the picture; see :mod:`manylens.tasks.geometry`."""
        for point in (*self.points, *self.background_points):
            check_point(point, image.size, image.name)
        if self.box is not None:
            check_box(self.box, image.size, image.name)
        if self.mask is not None:
            _check_mask(self.mask, image, "mask")
        if self.background_points and not self.points and self.box is None and self.mask is None:
            raise PromptError(
                "background points alone point out no object", "add a point, a box or a mask of the object"
            )

    def kinds(self) -> frozenset[str]:
        """Which of ``points``, ``box`` and ``mask`` are given."""
        given = {"points": self.points or self.background_points, "box": self.box, "mask": self.mask}
        return frozenset(kind for kind, value in given.items() if value is not None and len(value))


def _check_mask(mask: np.ndarray, image: Image, name: str) -> None:
    height, width = mask.shape
    if (width, height) != tuple(image.size):
        raise PromptError(
            f"{name} of {image.name} is {width}x{height} pixels but the picture is {image.width}x{image.height}",
            "give a mask of the picture's own size",
        )
    if not mask.any():
        raise PromptError(f"{name} of {image.name} is empty", "give a mask with at least one pixel of the object")


class Example(_Part):
    """A picture with a mask of the thing meant, and the thing's name if it has one."""

    image: Image = Field(description="The example picture.")
    mask: MaskInput = Field(description="The thing in it, a mask of the example picture's size.")
    name: str | None = Field(None, description="What the thing is called.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check_mask(self.mask, self.image, "example mask")
        return self


class BoxExample(_Part):
    """A picture with a box around the thing meant."""

    image: Image
    box: Box

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_box(self.box, self.image.size, self.image.name)
        return self


class ImageRequest(Request):
    """A request about one picture."""

    image: Annotated[Image, Flag(metavar="IMAGE")] = Field(
        description="The picture: a path, a PIL image or an RGB array."
    )


SegmentMode = Literal["prompt", "everything", "main", "semantic", "instance", "panoptic"]


class SegmentRequest(ImageRequest):
    """Masks of what is pointed out, named, shown by example, or of everything."""

    task: ClassVar[str] = "segment"
    points: Annotated[tuple[Point, ...], Flag("--point", "x,y", many=True, parse=flags.point)] = Field(
        (), description="A click on the object; several refine it."
    )
    background_points: Annotated[tuple[Point, ...], Flag("--background-point", "x,y", many=True, parse=flags.point)] = (
        Field((), description="A click on what is not the object.")
    )
    box: Annotated[Box | None, Flag("--box", "x0,y0,x1,y1", parse=flags.box)] = Field(
        None, description="A box around the object."
    )
    mask: Annotated[MaskInput | None, Flag("--mask", "FILE")] = Field(
        None, description="A coarse mask of the object to refine, of the picture's size."
    )
    text: Annotated[str | None, Flag("--text", "WORDS")] = Field(None, description="The thing in words, such as 'cat'.")
    like: Annotated[
        tuple[Example, ...], Flag("--like", "IMAGE MASK [NAME]", many=True, arity=(2, 3), parse=flags.example)
    ] = Field((), description="An example: a picture, a mask of the thing in it, and its name.")
    objects: Annotated[tuple[ObjectPrompt, ...], Flag(hidden=True)] = Field(
        (), description="Several objects at once, each with points, background_points, box or mask."
    )
    mode: Annotated[SegmentMode, Flag("--mode")] = Field(
        "prompt",
        description="prompt: what is pointed out or named; everything: all masks; main: the main object; "
        "semantic, instance, panoptic: a closed set of classes.",
    )

    def prompts(self) -> tuple[ObjectPrompt, ...]:
        """The objects that are pointed out, the single one of the plain fields first."""
        single = ObjectPrompt(
            points=self.points, background_points=self.background_points, box=self.box, mask=self.mask
        )
        return ((single,) if single.kinds() else ()) + self.objects

    def needs(self) -> frozenset[str]:
        if self.mode != "prompt":
            return frozenset({self.mode})
        kinds = frozenset().union(*(prompt.kinds() for prompt in self.prompts()))
        words = {"text"} if self.text is not None else set()
        return kinds | words | ({"like"} if self.like else set())

    @model_validator(mode="after")
    def _checked(self) -> Self:
        _said(self.text, "segment", "text")
        for prompt in self.prompts():
            prompt.check(self.image)
            if not prompt.kinds():
                raise PromptError("segment: one of the objects has no prompt", "give it points, a box or a mask")
        asked = self.prompts() or self.like or self.text is not None
        if self.mode == "prompt" and not asked:
            raise PromptError(
                f"segment: no prompt for {self.image.name}",
                "give a point, a box, a mask, words (text) or an example (like), or another mode such as 'everything'",
            )
        if self.mode != "prompt" and asked:
            raise PromptError(f"segment: mode {self.mode!r} takes no prompt", "leave the prompt or the mode away")
        return self


class TrackRequest(Request):
    """Follows what is pointed out in one frame through a video."""

    task: ClassVar[str] = "track"
    video: Annotated[Video, Flag(metavar="VIDEO")] = Field(
        description="The video: a file, a folder of frames, or frames."
    )
    frame: int = Field(0, ge=0, description="The frame, from 0, that the prompt speaks of.")
    points: Annotated[tuple[Point, ...], Flag("--point", "x,y", many=True, parse=flags.point)] = Field(
        (), description="A click on the object in that frame."
    )
    background_points: Annotated[tuple[Point, ...], Flag("--background-point", "x,y", many=True, parse=flags.point)] = (
        Field((), description="A click on what is not the object.")
    )
    box: Annotated[Box | None, Flag("--box", "x0,y0,x1,y1", parse=flags.box)] = Field(
        None, description="A box around the object in that frame."
    )
    mask: Annotated[MaskInput | None, Flag("--mask", "FILE")] = Field(
        None, description="A mask of the object in that frame."
    )
    text: Annotated[str | None, Flag("--text", "WORDS")] = Field(None, description="The thing in words.")
    objects: Annotated[tuple[ObjectPrompt, ...], Flag(hidden=True)] = Field((), description="Several objects at once.")


def _names(names: Any, task: str) -> Any:
    if names is None:
        return None
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise PromptError(f"{task}: {name!r} is not a name", "give words such as 'cat'")
    if not names:
        raise PromptError(f"{task}: the list of names is empty", "give at least one name, or leave names away")
    return names


class _Named(ImageRequest):
    names: Annotated[tuple[str, ...] | None, Flag("--name", "WORDS", many=True)] = Field(
        None, description="A class name to look for; none for the model's own closed set."
    )

    @field_validator("names", mode="before")
    @classmethod
    def _clean(cls, value: Any, info: ValidationInfo) -> Any:
        return _names(value, cls.task)

    def needs(self) -> frozenset[str]:
        return frozenset({"closed" if self.names is None else "names"})


class DetectRequest(_Named):
    """Boxes of things, by class name, by an example box, or of a closed set."""

    task: ClassVar[str] = "detect"
    like: Annotated[BoxExample | None, Flag(hidden=True)] = Field(
        None, description="An example: a picture and a box around the thing in it."
    )
    threshold: float = Field(0.4, ge=0, le=1, description="The least score of a detection that is kept.")

    def needs(self) -> frozenset[str]:
        return frozenset({"like"}) if self.like is not None else super().needs()


class ClassifyRequest(_Named):
    """Ranked labels of the whole picture."""

    task: ClassVar[str] = "classify"
    top: int = Field(5, ge=1, description="How many labels are returned.")


class EmbedRequest(Request):
    """Unit vectors of pictures, regions, text or sound; the same space only where one model made both."""

    task: ClassVar[str] = "embed"
    image: Annotated[Image | None, Flag(metavar="IMAGE")] = Field(None, description="The picture.")
    box: Annotated[Box | None, Flag("--box", "x0,y0,x1,y1", parse=flags.box)] = Field(
        None, description="A region of the picture instead of the whole."
    )
    text: str | None = Field(None, description="Text instead of a picture.")
    audio: Audio | None = Field(None, description="Sound instead of a picture.")
    dense: bool = Field(False, description="Also the patch features, (rows, columns, channels).")

    def needs(self) -> frozenset[str]:
        if self.text is not None:
            return frozenset({"text"})
        if self.audio is not None:
            return frozenset({"audio"})
        return frozenset({"region" if self.box is not None else "image"} | ({"dense"} if self.dense else set()))

    @model_validator(mode="after")
    def _checked(self) -> Self:
        _said(self.text, "embed", "text")
        given = sum(value is not None for value in (self.image, self.text, self.audio))
        if given != 1:
            raise PromptError(f"embed: {given} inputs are given", "give exactly one of image, text or audio")
        if self.box is not None:
            if self.image is None:
                raise PromptError("embed: a box without a picture", "give the picture that the box is on")
            check_box(self.box, self.image.size, self.image.name)
        return self


class MatchRequest(ImageRequest):
    """How well a text, or another picture, fits a picture."""

    task: ClassVar[str] = "match"
    text: str | None = Field(None, description="The text to compare with the picture.")
    other: Image | None = Field(None, description="Another picture to compare with the picture.")

    @model_validator(mode="after")
    def _checked(self) -> Self:
        _said(self.text, "match", "text")
        if (self.text is None) == (self.other is None):
            raise PromptError("match: give a text or another picture", "give exactly one of text and other")
        return self


class CaptionRequest(ImageRequest):
    """A sentence about a picture or a region of it."""

    task: ClassVar[str] = "caption"
    box: Annotated[Box | None, Flag("--box", "x0,y0,x1,y1", parse=flags.box)] = Field(
        None, description="A region instead of the whole picture."
    )
    length: Literal["short", "medium", "long"] = Field("short", description="How much is said.")


class AnswerRequest(ImageRequest):
    """The answer to a question about one picture or several, with its evidence."""

    task: ClassVar[str] = "answer"
    question: Annotated[str, Flag(metavar="QUESTION")] = Field(description="The question, in plain words.")
    more_images: Annotated[tuple[Image, ...], Flag("--more-image", "FILE", many=True)] = Field(
        (), description="Further pictures that the question speaks of."
    )

    def needs(self) -> frozenset[str]:
        return frozenset({"several"}) if self.more_images else DEFAULT

    def pictures(self) -> list[Image]:
        return [self.image, *self.more_images]

    @model_validator(mode="after")
    def _checked(self) -> Self:
        _said(self.question, "answer", "question")
        return self


class ReadRequest(ImageRequest):
    """The written text in a picture, line by line."""

    task: ClassVar[str] = "read"
    threshold: float = Field(0.5, ge=0, le=1, description="The least score of a line that is kept.")


StructureKind = Literal["canny", "edges", "lines", "scribble", "pose", "normal", "depth", "segmentation"]


class StructureRequest(ImageRequest):
    """A map of a picture's structure, as conditions for making pictures."""

    task: ClassVar[str] = "structure"
    kind: StructureKind = Field("edges", description="Which structure.")

    def needs(self) -> frozenset[str]:
        return frozenset({self.kind})


class DepthRequest(ImageRequest):
    """How far away each pixel is."""

    task: ClassVar[str] = "depth"


class GenerateRequest(Request):
    """A new picture from words, and a structure map to follow if one is given."""

    task: ClassVar[str] = "generate"
    text: Annotated[str, Flag(metavar="TEXT")] = Field(description="What the picture shall show.")
    structure: Image | None = Field(None, description="A structure map to follow.")
    kind: StructureKind | None = Field(None, description="The kind of the structure map.")
    negative: str | None = Field(None, description="What it shall not show.")
    width: int = Field(512, ge=8, le=4096, description="Width in pixels.")
    height: int = Field(512, ge=8, le=4096, description="Height in pixels.")

    @model_validator(mode="after")
    def _checked(self) -> Self:
        _said(self.text, "generate", "text")
        return self


class EditRequest(ImageRequest):
    """A picture changed by an instruction, or inside a mask by words."""

    task: ClassVar[str] = "edit"
    instruction: str | None = Field(None, description="What to change, such as 'make it night'.")
    mask: Annotated[MaskInput | None, Flag("--mask", "FILE")] = Field(None, description="The part to make anew.")
    text: str | None = Field(None, description="What the masked part shall show.")

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.instruction is None and self.mask is None:
            raise PromptError("edit: nothing to do", "give an instruction, or a mask and text")
        if self.mask is not None:
            _check_mask(self.mask, self.image, "mask")
        return self


class UpscaleRequest(ImageRequest):
    """The picture with more pixels."""

    task: ClassVar[str] = "upscale"
    scale: Literal[2, 4] = Field(4, description="How many times wider and higher.")


class TranscribeRequest(Request):
    """The words spoken in a recording, with their times."""

    task: ClassVar[str] = "transcribe"
    audio: Annotated[Audio, Flag(metavar="AUDIO")] = Field(description="The recording.")
    language: str | None = Field(None, description="Its language, such as 'en'; none to find out.")


class SpeakRequest(Request):
    """Text as speech."""

    task: ClassVar[str] = "speak"
    text: Annotated[str, Flag(metavar="TEXT")] = Field(description="What to say.")
    voice: str | None = Field(None, description="The voice's name.")

    @model_validator(mode="after")
    def _checked(self) -> Self:
        _said(self.text, "speak", "text")
        return self


class RecognizeRequest(ImageRequest):
    """All regions of a picture, each with box, mask, an open-world name and a sentence (the All-Seeing task)."""

    task: ClassVar[str] = "recognize"


class AskRequest(Request):
    """A request in words over any media, served by a plan over the other tasks."""

    task: ClassVar[str] = "ask"
    request: Annotated[str, Flag(metavar="REQUEST")] = Field(description="What is wanted, in plain words.")
    files: Annotated[tuple[Any, ...], Flag(metavar="FILES")] = Field((), description="The pictures that it speaks of.")

    @model_validator(mode="after")
    def _checked(self) -> Self:
        _said(self.request, "ask", "request")
        return self


def all_requests() -> Iterator[type[Request]]:
    """Every request type of this module that belongs to a task."""
    for kind in list(globals().values()):
        if isinstance(kind, type) and issubclass(kind, Request) and "task" in vars(kind):
            yield kind
