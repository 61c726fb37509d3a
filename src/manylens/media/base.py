"""What all media share: equality by content, and use as fields of pydantic models without importing pydantic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core.core_schema import CoreSchema


class Media:
    """Immutable media: equal when their content is, and good as a field of a pydantic v2 model.

    Validation goes through ``of``, so a field takes whatever ``of`` takes. A file that is no good raises its
    ``MediaError`` as it is, one line that names the file, and not wrapped in pydantic's own error. In JSON schemas the
    field is a string (a path or a data URI); it is written out as a summary, never as content.

    Attributes:
        name: The file's name, or what it was given as.
        path: The file, or None.
    """

    name: str
    path: Path | None
    json_format: ClassVar[str]
    json_description: ClassVar[str]

    @classmethod
    def of(cls, source: Any) -> Self:
        """Make one from whatever this kind of media can come from."""
        raise NotImplementedError

    def summary(self) -> dict[str, Any]:
        """What stands for this object in JSON."""
        raise NotImplementedError

    @property
    def id(self) -> str:
        """Hash of the decoded content: 40 hexadecimal digits."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Media):
            return NotImplemented
        return self is other or (type(self) is type(other) and self.id == other.id)

    def __hash__(self) -> int:
        return hash(self.id)

    def __copy__(self) -> Self:
        return self  # immutable, as all media here

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            cls.of,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda media: media.summary()),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        if handler.mode == "serialization":
            return {"type": "object", "description": f"Summary of the {cls.json_format}: its name, measures and id"}
        return {"type": "string", "format": cls.json_format, "description": cls.json_description}
