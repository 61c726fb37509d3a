"""The JSON schema of every result, made from the result types; ``docs/results.schema.json`` is a copy of it."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from manylens.media import Image
from manylens.tasks import results as r

_SHAPE = {
    "description": "a vector as numbers; an array of more dimensions as its shape and dtype, its content being a file",
    "anyOf": [
        {"type": "array", "items": {"type": "number"}},
        {
            "type": "object",
            "properties": {"shape": {"type": "array", "items": {"type": "integer"}}, "dtype": {"type": "string"}},
            "required": ["shape", "dtype"],
        },
    ],
}
_PICTURE = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "width": {"type": "integer"},
        "height": {"type": "integer"},
        "id": {"type": "string"},
    },
    "required": ["name", "width", "height", "id"],
}
_BOX = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4, "description": "x0, y0, x1, y1"}
_RLE = {
    "type": "object",
    "description": "COCO run-length encoding; size is height, width",
    "properties": {
        "size": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
        "counts": {"type": "string"},
    },
    "required": ["size", "counts"],
}
_SCALARS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    NoneType: {"type": "null"},
    Any: {},
    np.ndarray: _SHAPE,
    Image: _PICTURE,
}
_DETECTIONS: dict[str, Any] = {
    "type": "object",
    "description": "What segment, detect and track give, the best first",
    "properties": {
        "type": {"const": "detections"},
        "detections": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "box": _BOX,
                    "score": {"type": ["number", "null"]},
                    "mask": {"anyOf": [_RLE, {"type": "null"}]},
                    "class_id": {"type": ["integer", "null"]},
                    "tracker_id": {"type": ["integer", "null"]},
                    "object": {"type": "integer", "description": "which prompt it belongs to, from 0"},
                    "level": {"enum": ["", "whole", "part", "subpart"]},
                    "class_name": {"type": "string"},
                    "is_thing": {"type": "boolean"},
                },
                "required": ["box", "score", "mask"],
            },
        },
        "provenance": {"anyOf": [{"$ref": "#/$defs/Provenance"}, {"type": "null"}]},
    },
    "required": ["type", "detections", "provenance"],
}


def results_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) that every output of :func:`manylens.tasks.to_json` meets."""
    definitions: dict[str, Any] = {"Detections": _DETECTIONS}
    kinds = [kind for kind in vars(r).values() if isinstance(kind, type) and issubclass(kind, r.Result)]
    kinds.remove(r.Result)
    for kind in kinds:
        _define(kind, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "manylens results",
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in ("Detections", *(kind.__name__ for kind in kinds))],
        "$defs": dict(sorted(definitions.items())),
    }


def _define(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    reference = {"$ref": f"#/$defs/{kind.__name__}"}
    if kind.__name__ in definitions:
        return reference
    schema: dict[str, Any] = {"type": "object", "description": " ".join((kind.__doc__ or "").split("\n\n")[0].split())}
    definitions[kind.__name__] = schema
    hints = get_type_hints(kind, vars(r) | {"Image": Image})
    properties = {"type": {"const": kind.__name__.lower()}} if issubclass(kind, r.Result) else {}
    properties |= {field.name: _of(hints[field.name], definitions) for field in fields(kind)}
    schema["properties"] = properties
    schema["required"] = ["type", *hints] if issubclass(kind, r.Result) else list(hints)
    return reference


def _of(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if is_dataclass(hint):
        return _define(hint, definitions)  # type: ignore[arg-type]
    if hint in _SCALARS:
        return _SCALARS[hint]
    origin, inner = get_origin(hint), get_args(hint)
    if hint == r.Box:
        return _BOX
    if origin in (Union, UnionType):
        return {"anyOf": [_of(part, definitions) for part in inner]}
    if origin is Literal:
        return {"enum": list(inner)}
    if origin is tuple:
        items = _of(inner[0], definitions)
        return {"type": "array", "items": items}
    if origin is dict:
        return {"type": "object"}
    raise TypeError(f"no schema for {hint}")


if __name__ == "__main__":
    import json

    print(json.dumps(results_schema(), indent=1))
