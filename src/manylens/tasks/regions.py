"""What goes into the tasks whose answers lie in the picture: segment, track and detect.

All are part of :mod:`manylens.tasks.requests`, which says how coordinates are meant.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, ValidationInfo, field_validator, model_validator

from manylens.errors import PromptError
from manylens.media import Image, MaskInput, Video
from manylens.tasks import flags
from manylens.tasks.flags import Flag
from manylens.tasks.geometry import Box, Points
from manylens.tasks.prompts import BoxExample, Example, ObjectPrompt, Request, as_names, said


class ImageRequest(Request):
    """A request about one picture."""

    image: Annotated[Image, Flag(metavar="IMAGE")] = Field(description="The picture.")


class _Pointed(Request):
    """What points things out: clicks, a box, a mask, words, examples, for one object or several."""

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
        None, description="A coarse mask of the object, of the picture's size."
    )
    text: Annotated[str | None, Flag("--text", "WORDS")] = Field(None, description="The thing in words, such as 'cat'.")
    like: Annotated[
        tuple[Example, ...], Flag("--like", "IMAGE MASK [NAME]", many=True, arity=(2, 3), parse=flags.example)
    ] = Field((), description="An example: a picture, a mask of the thing in it, and its name.")
    objects: Annotated[tuple[ObjectPrompt, ...], Flag(hidden=True)] = Field(
        (), description="Several objects at once, each with points, background_points, box or mask."
    )

    def prompts(self) -> tuple[ObjectPrompt, ...]:
        """The objects that are pointed out, the single one of the plain fields first."""
        single = ObjectPrompt(
            points=self.points, background_points=self.background_points, box=self.box, mask=self.mask
        )
        return ((single,) if single.kinds() else ()) + self.objects

    def prompted(self) -> frozenset[str]:
        """Which kinds of prompt are given: ``points``, ``box``, ``mask``, ``text``, ``like``."""
        kinds = frozenset[str]().union(*(prompt.kinds() for prompt in self.prompts()))
        return kinds | ({"text"} if self.text is not None else set()) | ({"like"} if self.like else set())

    def _check_prompts(self, image: Image) -> None:
        said(self.text, self.task, "text")
        for prompt in self.prompts():
            if not prompt.kinds():
                raise PromptError(f"{self.task}: one of the objects has no prompt", "give it points, a box or a mask")
            prompt.check(image)
        unnamed = [example for example in self.like if example.name is None]
        if unnamed and len(unnamed) < len(self.like):
            raise PromptError(
                f"{self.task}: {unnamed[0].image.name} is an example without a name among examples that have one",
                "name all examples, or none",
            )


SegmentMode = Literal["prompt", "everything", "main", "semantic", "instance", "panoptic"]


class SegmentRequest(_Pointed, ImageRequest):
    """Masks of what is pointed out, named, shown by example, or of everything."""

    task: ClassVar[str] = "segment"
    mode: Annotated[SegmentMode, Flag("--mode")] = Field(
        "prompt",
        description="prompt: what is pointed out or named; everything: all masks; main: the main object; "
        "semantic, instance, panoptic: a closed set of classes, or the classes of the examples (like).",
    )
    threshold: float | None = Field(
        None, ge=0, le=1, description="The least score of a mask that is kept; none for the model's own."
    )
    points_per_side: int | None = Field(
        None,
        ge=1,
        le=128,
        description="With mode everything: points of the grid along each side; none for the model's own.",
    )
    previous: Annotated[Any, Flag(hidden=True)] = Field(
        None,
        description="The low-resolution mask of an earlier answer about the same object, as its metadata holds it: "
        "float32 (h, w) logits that further clicks refine.",
    )

    def needs(self) -> frozenset[str]:
        return frozenset({self.mode}) if self.mode != "prompt" and not self.like else self.prompted()

    @field_validator("previous")
    @classmethod
    def _logits(cls, value: Any) -> Any:
        if value is None:
            return None
        logits = np.asarray(value, np.float32)
        if logits.ndim != 2:
            raise PromptError(f"segment: previous is of shape {logits.shape}", "give one low-resolution mask, (h, w)")
        return logits

    @model_validator(mode="after")
    def _checked(self) -> Self:
        self._check_prompts(self.image)
        pointed = self.prompts() or self.text is not None
        if self.mode == "prompt" and not (pointed or self.like):
            raise PromptError(
                f"segment: no prompt for {self.image.name}",
                "give a point, a box, a mask, words (text) or an example (like), or another mode such as 'everything'",
            )
        by_example = self.mode in ("semantic", "instance", "panoptic")
        if self.mode != "prompt" and (pointed or (self.like and not by_example)):
            takes = "no prompt but examples (like)" if by_example else "no prompt"
            raise PromptError(f"segment: mode {self.mode!r} takes {takes}", "leave the prompt or the mode away")
        return self


class VideoRequest(Request):
    """A request about a video and one of its frames."""

    video: Annotated[Video, Flag(metavar="VIDEO")] = Field(
        description="The video: a file, a folder of frames, or frames."
    )
    frame: int = Field(0, ge=0, description="The frame, from 0, that clicks, boxes and masks speak of.")


class TrackRequest(_Pointed, VideoRequest):
    """Follows what is pointed out in one frame through a video."""

    task: ClassVar[str] = "track"

    def needs(self) -> frozenset[str]:
        return self.prompted()

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.frame >= self.video.count:
            raise PromptError(
                f"track: {self.video.name} has no frame {self.frame}",
                f"give a frame from 0 to {self.video.count - 1}",
            )
        if not (self.prompts() or self.like or self.text is not None):
            raise PromptError(
                f"track: no prompt for {self.video.name}",
                "give a point, a box or a mask on a frame, words (text) or an example (like)",
            )
        self._check_prompts(self.video.frame(self.frame) if self.prompts() else next(iter(self.video)))
        return self


class NamedRequest(ImageRequest):
    """A request that takes class names, or none for the model's own closed set."""

    names: Annotated[tuple[str, ...] | None, Flag("--name", "WORDS", many=True)] = Field(
        None, description="A class name to look for; none for the model's own closed set."
    )

    @field_validator("names", mode="before")
    @classmethod
    def _clean(cls, value: Any, info: ValidationInfo) -> Any:
        return as_names(value, cls.task)

    def needs(self) -> frozenset[str]:
        return frozenset({"closed" if self.names is None else "names"})


class DetectRequest(NamedRequest):
    """Boxes of things, by class name, by example boxes, or of a closed set."""

    task: ClassVar[str] = "detect"
    like: Annotated[
        tuple[BoxExample, ...],
        Flag("--like", "IMAGE x0,y0,x1,y1 [NAME]", many=True, arity=(2, 3), parse=flags.box_example),
    ] = Field((), description="An example: a picture, a box around the thing in it, and its name.")
    threshold: float = Field(0.4, ge=0, le=1, description="The least score of a detection that is kept.")

    @field_validator("like", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return () if value is None else (value,) if isinstance(value, dict | BoxExample) else value

    def needs(self) -> frozenset[str]:
        return frozenset({"like"}) if self.like else super().needs()

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.like and self.names is not None:
            raise PromptError("detect: both names and examples are given", "give names or examples (like)")
        return self
