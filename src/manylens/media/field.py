"""Media as fields of pydantic models, without importing pydantic until a model is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core.core_schema import CoreSchema


class MediaField:
    """A media type that a pydantic v2 model can have as a field.

    Validation goes through ``of``, so a field takes whatever ``of`` takes. A file that is no good raises its
    ``MediaError`` as it is, one line that names the file, and not wrapped in pydantic's own error. In JSON schemas the
    field is a string (a path or a data URI); it is written out as a summary, never as content.
    """

    json_format: ClassVar[str]
    json_description: ClassVar[str]

    @classmethod
    def of(cls, source: Any) -> Self:
        """Make one from whatever this kind of media can come from."""
        raise NotImplementedError

    def summary(self) -> dict[str, Any]:
        """What stands for this object in JSON."""
        raise NotImplementedError

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
