"""The parts that requests are made of: their base, clicks and boxes on an object, and examples."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from manylens.errors import PromptError
from manylens.media import Audio, Image, MaskInput, Video
from manylens.tasks.geometry import Box, Points, check_box, check_point

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
        values = [getattr(self, name) for name in type(self).model_fields]
        parts = [part for value in values if isinstance(value, tuple) for part in value]
        examples = [part.image for part in parts if isinstance(part, BaseModel) and hasattr(part, "image")]
        return [value for value in values if isinstance(value, Image)] + examples

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


def said(text: str | None, task: str, field: str) -> str | None:
    """The text, refused where it is empty."""
    if text is not None and not text.strip():
        raise PromptError(f"{task}: the {field} is empty", f"say something in {field}")
    return text


def as_names(names: Any, task: str) -> Any:
    """Class names as a tuple, one name included; None stays None.

    Raises:
        PromptError: One is no name, or there is none.
    """
    if names is None:
        return None
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise PromptError(f"{task}: {name!r} is not a name", "give words such as 'cat'")
    if not names:
        raise PromptError(f"{task}: the list of names is empty", "give at least one name, or leave names away")
    return names


class Part(BaseModel):
    """Base of what stands inside a request."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class ObjectPrompt(Part):
    """What points out one object: clicks, a box, a coarse mask, or several of these."""

    points: Points = Field((), description="Clicks on the object, (x, y) in pixels.")
    background_points: Points = Field((), description="Clicks on what is not the object.")
    box: Box | None = Field(None, description="A box around the object: x0, y0, x1, y1.")
    mask: MaskInput | None = Field(None, description="A coarse mask of the object, of the picture's size.")

    def check(self, image: Image) -> None:
        """Refuse what does not lie on the picture; see :mod:`manylens.tasks.geometry`."""
        for point in (*self.points, *self.background_points):
            check_point(point, image.size, image.name)
        if self.box is not None:
            check_box(self.box, image.size, image.name)
        if self.mask is not None:
            check_mask(self.mask, image, "mask")
        if self.background_points and not self.points and self.box is None and self.mask is None:
            raise PromptError(
                "background points alone point out no object", "add a point, a box or a mask of the object"
            )

    def kinds(self) -> frozenset[str]:
        """Which of ``points``, ``box`` and ``mask`` are given."""
        given = {"points": self.points or self.background_points, "box": self.box, "mask": self.mask}
        return frozenset(kind for kind, value in given.items() if value is not None and len(value))


def check_mask(mask: np.ndarray, image: Image, name: str) -> None:
    """Refuse a mask that is empty or not of the picture's size."""
    height, width = mask.shape
    if (width, height) != tuple(image.size):
        raise PromptError(
            f"{name} of {image.name} is {width}x{height} pixels but the picture is {image.width}x{image.height}",
            "give a mask of the picture's own size",
        )
    if not mask.any():
        raise PromptError(f"{name} of {image.name} is empty", "give a mask with at least one pixel of the object")


class Shown(Part):
    """Base of examples: a mapping, or a tuple of the same in order as on the command line."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        if isinstance(given, tuple) and 2 <= len(given) <= len(cls.model_fields):
            return dict(zip(cls.model_fields, given, strict=False))
        if not isinstance(given, dict | cls):
            fields = ", ".join(f'"{name}": ...' for name in cls.model_fields)
            raise ValueError(f"not an example; give {{{fields}}}")
        return given


class Example(Shown):
    """A picture with a mask of the thing meant, and the thing's name if it has one."""

    image: Image = Field(description="The example picture.")
    mask: MaskInput = Field(description="The thing in it, a mask of the example picture's size.")
    name: str | None = Field(None, description="What the thing is called.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_mask(self.mask, self.image, "example mask")
        return self


class BoxExample(Shown):
    """A picture with a box around the thing meant, and the thing's name if it has one."""

    image: Image = Field(description="The example picture.")
    box: Box = Field(description="A box around the thing in it: x0, y0, x1, y1.")
    name: str | None = Field(None, description="What the thing is called.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_box(self.box, self.image.size, self.image.name)
        return self


class NamedExample(Shown):
    """A picture and what it shows."""

    image: Image = Field(description="The example picture.")
    name: str = Field(min_length=1, description="What it shows.")
