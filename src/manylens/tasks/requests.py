"""What goes into each task: one request type a task, the same for Python, command line, HTTP, MCP and the agent.

Coordinates are absolute pixels of the upright picture, x right, y down; boxes are ``xyxy`` with exclusive max.
Every field's description is shown by every face, so it is written for users.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from manylens.errors import PromptError
from manylens.media import Audio, Image, MaskInput, Video
from manylens.tasks import flags
from manylens.tasks.flags import Flag
from manylens.tasks.geometry import Box, Points, check_box
from manylens.tasks.prompts import DEFAULT, BoxExample, Example, ObjectPrompt, Request, check_mask, said


class ImageRequest(Request):
    """A request about one picture."""

    image: Annotated[Image, Flag(metavar="IMAGE")] = Field(description="The picture.")


SegmentMode = Literal["prompt", "everything", "main", "semantic", "instance", "panoptic"]


class SegmentRequest(ImageRequest):
    """Masks of what is pointed out, named, shown by example, or of everything."""

    task: ClassVar[str] = "segment"
    points: Annotated[Points, Flag("--point", "x,y", many=True, parse=flags.point)] = Field(
        (), description="A click on the object; several refine it."
    )
    background_points: Annotated[Points, Flag("--background-point", "x,y", many=True, parse=flags.point)] = Field(
        (), description="A click on what is not the object."
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
        said(self.text, "segment", "text")
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
    points: Annotated[Points, Flag("--point", "x,y", many=True, parse=flags.point)] = Field(
        (), description="A click on the object in that frame."
    )
    background_points: Annotated[Points, Flag("--background-point", "x,y", many=True, parse=flags.point)] = Field(
        (), description="A click on what is not the object."
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

    @model_validator(mode="after")
    def _checked(self) -> Self:
        said(self.text, "match", "text")
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


def all_requests() -> Iterator[type[Request]]:
    """Every request type of this module that belongs to a task."""
    for kind in list(globals().values()):
        if isinstance(kind, type) and issubclass(kind, Request) and "task" in vars(kind):
            yield kind
