"""What goes into each task: one request type a task, the same for Python, command line, HTTP, MCP and the agent.

Coordinates are absolute pixels of the upright picture, x right, y down; boxes are ``xyxy`` with exclusive max.
Every field's description is shown by every face, so it is written for users.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from manylens.errors import PromptError
from manylens.media import Audio, Image, MaskInput
from manylens.tasks import flags
from manylens.tasks.flags import Flag
from manylens.tasks.geometry import Box, check_box
from manylens.tasks.prompts import DEFAULT, NamedExample, Request, check_mask, said
from manylens.tasks.regions import DetectRequest, ImageRequest, NamedRequest, SegmentMode, SegmentRequest, TrackRequest


class ClassifyRequest(NamedRequest):
    """Ranked labels of the whole picture."""

    task: ClassVar[str] = "classify"
    top: int = Field(5, ge=1, description="How many labels are returned.")
    like: Annotated[
        tuple[NamedExample, ...],
        Flag("--like", "IMAGE NAME", many=True, arity=(2, 2), parse=flags.named_example),
    ] = Field((), description="An example picture and what it shows; the nearest examples decide.")

    def needs(self) -> frozenset[str]:
        return frozenset({"like"}) if self.like else super().needs()

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.like and self.names is not None:
            raise PromptError("classify: both names and examples are given", "give names or examples (like)")
        return self


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
        said(self.text, "embed", "text")
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

    def needs(self) -> frozenset[str]:
        return frozenset({"image"} if self.text is None else {"text"})

    @model_validator(mode="after")
    def _checked(self) -> Self:
        said(self.text, "match", "text")
        if (self.text is None) == (self.other is None):
            raise PromptError(
                "match: needs a text or another picture", "give text (--text) or other (--other), one of them"
            )
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
        said(self.question, "answer", "question")
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
        said(self.text, "generate", "text")
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
            check_mask(self.mask, self.image, "mask")
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
        said(self.text, "speak", "text")
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
        said(self.request, "ask", "request")
        return self


__all__ = [
    "AnswerRequest",
    "AskRequest",
    "CaptionRequest",
    "ClassifyRequest",
    "DepthRequest",
    "DetectRequest",
    "EditRequest",
    "EmbedRequest",
    "GenerateRequest",
    "ImageRequest",
    "MatchRequest",
    "ReadRequest",
    "RecognizeRequest",
    "Request",
    "SegmentMode",
    "SegmentRequest",
    "SpeakRequest",
    "StructureKind",
    "StructureRequest",
    "TrackRequest",
    "TranscribeRequest",
    "UpscaleRequest",
    "all_requests",
]


def all_requests() -> Iterator[type[Request]]:
    """Every request type of this module that belongs to a task."""
    for kind in list(globals().values()):
        if isinstance(kind, type) and issubclass(kind, Request) and "task" in vars(kind):
            yield kind
