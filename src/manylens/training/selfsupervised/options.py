"""Options of the recipes here: read from a config's free-form section, and refused by name where they do not fit."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from manylens.training.errors import TrainError


class Options(BaseModel):
    """Base of all options: frozen, and without a key that is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @classmethod
    def of(cls, values: Mapping[str, Any], section: str = "options") -> Self:
        """Validate values.

        Args:
            values: By name.
            section: The part of the config that they stand in, for errors.

        Raises:
            TrainError: A key does not exist (the nearest one is named), or a value does not fit.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            key = f"{section}.{name}" if name else section
            if first["type"] == "extra_forbidden":
                near = difflib.get_close_matches(name, cls.model_fields, n=1)
                raise TrainError(
                    f"config {key!r}: there is no such key",
                    f"did you mean {section}.{near[0]}?" if near else f"the keys are {', '.join(cls.model_fields)}",
                ) from None
            reason = first["msg"].removeprefix("Value error, ")
            raise TrainError(
                f"config {key!r}: {first.get('input')!r} does not fit", reason[:1].lower() + reason[1:]
            ) from None
