"""Objects followed through video: J, F and their mean, as DAVIS defines them, of tracks that somebody made.

See :mod:`manylens.evaluation.measures.boundaries` for J and F.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from manylens.data.problems import Problems
from manylens.data.records import BACKGROUND, Annotation, Record
from manylens.errors import MediaError
from manylens.evaluation.measure import Measure
from manylens.evaluation.measures import driving
from manylens.evaluation.measures.boundaries import outline_agreement, region_overlap
from manylens.evaluation.measures.driving import BoolMask, Rows
from manylens.evaluation.tally import RatioTally

_UNKNOWN = (np.nan, np.nan)
_OUT_OF_SIGHT = (1.0, 1.0)
"""Neither there nor said to be: that is right."""


@dataclass
class JFMeasure(Measure):
    """Saved tracks: a prediction maps each object's name to its mask in the frame, COCO RLE or bool ``(H, W)``.

    An object's name is its annotation's column ``track``, else its category. Where a frame has annotations but none of
    an object, the object is out of sight there; a prediction without it says so. Frames without any annotation are not
    judged, for many data sets annotate every fifth only; nor is the first annotated one, which a tracker is given, nor
    the last, as in DAVIS.

    Args:
        last: Whether to judge the last frame too.
    """

    name: ClassVar[str] = "tracks"

    last: bool = False
    _frames: dict[str, dict[int, dict[str, tuple[float, float]]]] = field(default_factory=dict, init=False, repr=False)
    _seen: dict[tuple[str, str], tuple[Record, Annotation]] = field(default_factory=dict, init=False, repr=False)
    _unknown: set[tuple[str, str]] = field(default_factory=set, init=False, repr=False)

    def add(self, record: Record, prediction: Mapping[str, Any] | None) -> None:
        """See :meth:`Measure.add`."""
        place = frame_of(record, self.problems)
        if place is None or not record.annotations:
            return
        video, frame = place
        size = size_of(record)
        truth, broken = masks_of(record, size, self.problems)
        found = self._found(prediction or {}, size, record)
        for track, annotation in objects_of(record).items():
            self._seen.setdefault((video, track), (record, annotation))
        judged = self._frames.setdefault(video, {}).setdefault(frame, {})
        for track in truth.keys() | found.keys() | broken:
            judged[track] = _UNKNOWN if track in broken else _agreement(found.get(track), truth.get(track))

    def tally(self) -> RatioTally:
        """Units are objects, clusters videos; see :meth:`Measure.tally`."""
        rows, values = Rows("object", self.columns), []
        for video, frames in sorted(self._frames.items()):
            order = sorted(frames)
            judged = order[1:] if self.last or len(order) < 3 else order[1:-1]
            for track in sorted({track for found in frames.values() for track in found}):
                if (video, track) not in self._seen:
                    self._tell_unknown(video, track)
                    continue
                pairs = np.array([frames[frame].get(track, _OUT_OF_SIGHT) for frame in judged]).reshape(-1, 2)
                known = pairs[~np.isnan(pairs[:, 0])]
                if len(known):
                    values.append(known.mean(axis=0).tolist())
                    add_object(rows, video, track, *self._seen[video, track])
        return jf_tally(rows, values)

    def _found(
        self, prediction: Mapping[str, Any], size: tuple[int, int] | None, record: Record
    ) -> dict[str, BoolMask]:
        from manylens.media import Mask

        found = {}
        for track, mask in prediction.items():
            try:
                found[track] = Mask.of(mask, size)
            except MediaError as error:
                self.problems.add("bad mask", record.id, f"prediction for {track} in {record.id}: {error.what}")
        return found

    def _tell_unknown(self, video: str, track: str) -> None:
        if (video, track) not in self._unknown:
            self._unknown.add((video, track))
            self.problems.add(
                "unknown object", f"{video}/{track}", f"prediction for {track}: {video} has no such object"
            )


def _agreement(found: BoolMask | None, truth: BoolMask | None) -> tuple[float, float]:
    """J and F of two masks; one that is missing is empty."""
    shape = next(mask.shape for mask in (found, truth) if mask is not None)
    ours, theirs = (np.zeros(shape, bool) if mask is None else mask for mask in (found, truth))
    return region_overlap(ours, theirs), outline_agreement(ours, theirs)


def jf_tally(rows: Rows, values: Sequence[Sequence[float]]) -> RatioTally:
    """The tally of objects with their mean J and mean F over frames, ``(n, 2)``."""
    overlap, outlines = np.array(values, np.float64).reshape(-1, 2).T
    figures = {"J&F": (overlap + outlines) / 2, "J": overlap, "F": outlines}
    return RatioTally.of_values(rows.units(), figures, first="J&F")


def frame_of(record: Record, problems: Problems) -> tuple[str, int] | None:
    """Video and number of a frame; a record without them is a problem, and None."""
    video, frame = record.columns.get("video"), record.columns.get("frame")
    try:
        if video not in (None, ""):
            return str(video), int(frame)  # type: ignore[arg-type]  # None and texts are told below
    except (TypeError, ValueError):
        pass
    problems.add("no frame", record.id, f"image {record.id}: it needs a column video and a number in frame")
    return None


def masks_of(record: Record, size: tuple[int, int] | None, problems: Problems) -> tuple[dict[str, BoolMask], set[str]]:
    """The mask of each object in a frame, bool ``(H, W)``, and the objects whose masks cannot be read.

    Annotations of one object are one mask; one without a mask is out of sight.
    """
    found: dict[str, BoolMask] = {}
    broken = set()
    for annotation in record.annotations:
        name = name_of(annotation)
        if annotation.ignore or annotation.mask is None or size is None or not name:
            continue
        mask = driving.mask_of(annotation, size, problems)
        if mask is None:
            broken.add(name)
        else:
            found[name] = found[name] | mask if name in found else mask
    return {name: mask for name, mask in found.items() if name not in broken}, broken


def name_of(annotation: Annotation) -> str:
    """What tells an object apart in a video; empty for what is none."""
    track = annotation.columns.get("track")
    if track in (None, ""):
        return "" if annotation.category == BACKGROUND else annotation.category
    return str(track)


def objects_of(record: Record) -> dict[str, Annotation]:
    """The first annotation of each object in a frame."""
    found: dict[str, Annotation] = {}
    for annotation in record.annotations:
        if not annotation.ignore and annotation.mask is not None and name_of(annotation):
            found.setdefault(name_of(annotation), annotation)
    return found


def size_of(record: Record) -> tuple[int, int] | None:
    """Width and height of a frame, as its labels say; None where they do not."""
    if record.width and record.height:
        return record.width, record.height
    sizes = [annotation.mask["size"] for annotation in record.annotations if annotation.mask is not None]
    return (int(sizes[0][1]), int(sizes[0][0])) if sizes else None


def add_object(rows: Rows, video: str, track: str, record: Record, annotation: Annotation) -> None:
    """Take an object as a unit."""
    known = {"class": annotation.category}
    if annotation.area is not None:
        known["size"] = driving.size_name(annotation.area)
    rows.add(f"{video}/{track}", video, record, annotation, known)
