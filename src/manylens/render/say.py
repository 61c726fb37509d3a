"""A result in plain words, for the terminal and for reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from manylens.tasks import Answer, Classification, Embedding, Reading, Result
from manylens.tasks.results import Caption, Depth, Match, Picture, Speech, StructureMap, Tracks, Transcript

_ROWS = 20  # of detections that are said one by one


def say(result: Any) -> str:
    """One line or a few; never empty."""
    if not isinstance(result, Result):
        return _detections(result)
    match result:
        case Classification():
            return "\n".join(f"{label.score:6.1%}  {label.name}" for label in result.labels)
        case Answer():
            return result.text
        case Reading():
            return result.text or "no text found"
        case Embedding():
            dense = "" if result.dense is None else f", patch features {result.dense.shape}"
            return f"vector of {result.vector.size} in the space {result.space}{dense}"
        case Match():
            return f"{result.kind} {result.score:.3f}"
        case Caption() | Transcript():
            return result.text
        case Picture():
            return f"picture of {result.image.width}x{result.image.height} pixels"
        case Depth():
            return f"{result.scale} depth, {result.map.shape[1]}x{result.map.shape[0]} pixels"
        case StructureMap(keypoints=np.ndarray() as people):
            count = "1 person" if len(people) == 1 else f"{len(people)} people"
            return f"{count}, {result.kind} map, {result.map.shape[1]}x{result.map.shape[0]} pixels"
        case StructureMap():
            return f"{result.kind} map, {result.map.shape[1]}x{result.map.shape[0]} pixels"
        case Tracks():
            return _tracks(result)
        case Speech():
            return f"{result.samples.size / result.rate:.1f} s of speech"
    return f"{type(result).__name__.lower()} result"


def _detections(found: Any) -> str:
    if not len(found):
        notes = found.metadata["provenance"].notes if "provenance" in found.metadata else ()
        return "nothing found" + (f": {'; '.join(notes)}" if notes else "")
    names = Counter(str(name) or "object" for name in found.data.get("class_name", ()))
    if set(names) - {"object"}:
        head = f"found {', '.join(f'{count} {name}' for name, count in names.items())}"
    else:
        head = _count(len(found), "box", "boxes") if found.mask is None else _count(len(found), "mask", "masks")
    rows = [_row(found, i) for i in range(min(len(found), _ROWS))]
    if len(found) > _ROWS:
        rows.append(f"  and {len(found) - _ROWS} more")
    return "\n".join([head, *rows])


def _tracks(tracks: Tracks) -> str:
    head = f"{_count(len(tracks), 'frame', 'frames')} of {tracks.width}x{tracks.height} pixels"
    rows = []
    for id in tracks.ids:
        seen = {frame.index: one for frame in tracks.frames for one in frame.objects if one.tracker_id == id}
        name = next((one.name for one in seen.values() if one.name), "object")
        score = sum(one.score for one in seen.values()) / len(seen)
        rows.append(f"  {score:5.2f}  {id} {name:<12} in {_count(len(seen), 'frame', 'frames')}: {_runs(sorted(seen))}")
    return "\n".join([head, *rows]) if rows else f"{head}; nothing followed"


def _runs(numbers: Sequence[int]) -> str:
    """``[0, 1, 2, 5]`` as ``0-2, 5``."""
    starts = [n for i, n in enumerate(numbers) if i == 0 or numbers[i - 1] != n - 1]
    ends = [n for i, n in enumerate(numbers) if i == len(numbers) - 1 or numbers[i + 1] != n + 1]
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def _count(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"


def _row(found: Any, i: int) -> str:
    name = str(found.data["class_name"][i] or found.data["level"][i] or "object")
    score = "" if found.confidence is None else f"{found.confidence[i]:5.2f}  "
    box = " ".join(f"{v:.0f}" for v in found.xyxy[i])
    area = "" if found.mask is None else f"  {int(np.count_nonzero(found.mask[i])):,} pixels"
    return f"  {score}{name:<14} box {box}{area}"
