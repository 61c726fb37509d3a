"""Results back from their JSON form, for restarted maps and for clients of the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.errors import UserError
from manylens.tasks import results as r

if TYPE_CHECKING:
    from supervision import Detections

_KINDS: dict[str, type[r.Result]] = {
    kind.__name__.lower(): kind
    for kind in (
        r.Classification,
        r.Embedding,
        r.Match,
        r.Caption,
        r.Answer,
        r.Reading,
        r.Transcript,
        r.Recognition,
        r.Tracks,
    )
}
_PARTS: dict[tuple[str, str], type] = {
    ("classification", "labels"): r.Label,
    ("answer", "evidence"): r.Evidence,
    ("reading", "lines"): r.TextLine,
    ("transcript", "parts"): r.Utterance,
    ("recognition", "regions"): r.Region,
    ("tracks", "frames"): r.Frame,
}


def from_json(body: Mapping[str, Any]) -> Any:
    """The result that :func:`manylens.tasks.to_json` wrote.

    Results whose content is a file (pictures, maps, sound, dense features) have no full JSON form and are refused.

    Raises:
        UserError: The body is no result, or one that JSON does not hold whole.
    """
    kind = str(body.get("type", ""))
    if kind == "detections":
        return _detections(body)
    if kind not in _KINDS or body.get("dense"):
        raise UserError(f"a result of type {kind!r} cannot be read back from JSON", "keep its files with -o instead")
    cls = _KINDS[kind]
    values = {f.name: _field(kind, f.name, body[f.name]) for f in fields(cls) if f.name in body}
    return cls(**{**values, "provenance": _provenance(body)})


def _field(kind: str, name: str, value: Any) -> Any:
    part = _PARTS.get((kind, name))
    if part is r.Frame:
        return tuple(_frame(row) for row in value)
    if part is not None:
        return tuple(part(**{key: _tuples(v) for key, v in row.items()}) for row in value)
    if name == "vector":
        return np.asarray(value, dtype=np.float32)
    return value


def _frame(row: Mapping[str, Any]) -> r.Frame:
    objects = ({**one, "box": tuple(one["box"])} for one in row["objects"])
    return r.Frame(row["index"], tuple(r.Tracked(**one) for one in objects))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _provenance(body: Mapping[str, Any]) -> r.Provenance | None:
    found = body.get("provenance")
    if not found:
        return None
    return r.Provenance(
        **{
            **found,
            "inputs": tuple(found["inputs"]),
            "notes": tuple(found["notes"]),
            "parts": tuple(found.get("parts", ())),
        }
    )


def _detections(body: Mapping[str, Any]) -> Detections:
    from manylens.media import from_rle

    rows = body["detections"]
    masks = [from_rle(row["mask"]) for row in rows if row["mask"]]
    found = r.detections(
        [row["box"] for row in rows],
        [row["score"] for row in rows],
        masks=np.stack(masks) if masks else None,
        names=[row["class_name"] for row in rows],
        class_ids=[row["class_id"] for row in rows],
        objects=[row["object"] for row in rows],
        levels=[row["level"] for row in rows],
        things=[row["is_thing"] for row in rows],
    )
    provenance = _provenance(body)
    return r.with_provenance(found, provenance) if provenance else found
