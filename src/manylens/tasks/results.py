"""What comes out of each task.

``segment`` and ``detect`` give :class:`supervision.Detections`, ordered by score: boxes in ``.xyxy``, masks in
``.mask``, scores in ``.confidence``; ``.data`` holds ``object`` (which prompt), ``level`` (whole, part, subpart),
``class_name`` and ``is_thing``; ``.metadata["provenance"]`` holds a :class:`Provenance`. All other results are the
dataclasses below.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from supervision import Detections

    from manylens.media import Image

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Provenance:
    """Where a result comes from: enough to make it again.

    ``parts`` holds, for a composed model, the models that it called, in the order of first use: task, model, weights,
    engine, precision, device, seconds in all and number of calls.
    """

    task: str
    model: str
    weights: str = ""
    prompt: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    device: str = "cpu"
    engine: str = ""
    precision: str = ""
    seed: int = 0
    cache: str = ""
    inputs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    parts: tuple[dict[str, Any], ...] = ()
    version: str = ""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Base of the results that are not Detections."""

    provenance: Provenance | None = None


@dataclass(frozen=True)
class Label:
    """A class name with its probability."""

    name: str
    score: float


@dataclass(frozen=True)
class Classification(Result):
    """Labels of the whole picture, the best first; ``scores`` sum to at most 1."""

    labels: tuple[Label, ...]

    @property
    def best(self) -> Label:
        """The first label."""
        return self.labels[0]


@dataclass(frozen=True, eq=False)
class Embedding(Result):
    """A unit vector.

    Attributes:
        vector: float32 ``(D,)``, L2 norm 1.
        space: Names the space; cosines mean something between vectors of one space only.
        dense: float32 ``(rows, columns, D)`` patch features, not normalised, where they were asked for.
    """

    vector: np.ndarray
    space: str
    dense: np.ndarray | None = None


@dataclass(frozen=True)
class Match(Result):
    """How well two things fit: a cosine or a probability, as ``kind`` says."""

    score: float
    kind: Literal["cosine", "probability"] = "cosine"


@dataclass(frozen=True)
class Caption(Result):
    """A sentence."""

    text: str
    score: float | None = None


@dataclass(frozen=True)
class Evidence:
    """What an answer rests on: a box with a label and a score, or a line of read text."""

    kind: Literal["box", "label", "text", "colour", "region"]
    label: str
    score: float | None = None
    box: Box | None = None
    task: str = ""


@dataclass(frozen=True)
class Answer(Result):
    """A short answer with what it rests on.

    Attributes:
        text: The answer, or why there is none.
        known: False where the question was not understood or cannot be answered; ``text`` then says so.
        kind: The kind of question: count, presence, colour, position, name, text.
    """

    text: str
    known: bool = True
    kind: str = ""
    score: float | None = None
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True)
class TextLine:
    """A line of read text; ``polygon`` has four corners, clockwise from the top left of the line."""

    text: str
    score: float
    box: Box
    polygon: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Reading(Result):
    """Lines in reading order."""

    lines: tuple[TextLine, ...]

    @property
    def text(self) -> str:
        """All lines, one a row."""
        return "\n".join(line.text for line in self.lines)


@dataclass(frozen=True, eq=False)
class StructureMap(Result):
    """A structure of a picture.

    Attributes:
        map: float32 or uint8 ``(H, W[, C])``.
        keypoints: float32 ``(N, K, 3)``: x, y, score, where the kind is ``pose``.
    """

    kind: str
    map: np.ndarray
    keypoints: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Depth(Result):
    """How far away each pixel is.

    Attributes:
        map: float32 ``(H, W)``: metres where ``scale`` is metric, else known up to scale and shift.
        scale: Relative or metric.
        inverse: Whether the map is inverse depth, so that larger is nearer; else larger is farther.
    """

    map: np.ndarray
    scale: Literal["relative", "metric"] = "relative"
    inverse: bool = False


@dataclass(frozen=True, eq=False)
class Picture(Result):
    """A made picture; ``blanked`` says that a safety check blanked it."""

    image: Image
    blanked: bool = False


@dataclass(frozen=True)
class Utterance:
    """Words with their time in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Transcript(Result):
    """What was said, in order."""

    parts: tuple[Utterance, ...]
    language: str = ""

    @property
    def text(self) -> str:
        """All that was said."""
        return " ".join(part.text.strip() for part in self.parts)


@dataclass(frozen=True, eq=False)
class Speech(Result):
    """Sound: float32 mono ``samples`` in -1..1 at ``rate`` a second."""

    samples: np.ndarray
    rate: int


@dataclass(frozen=True)
class Tracked:
    """An object as one frame of a video shows it; ``mask`` is COCO RLE, ``tracker_id`` the same in all frames."""

    tracker_id: int
    box: Box
    score: float
    mask: dict[str, Any]
    name: str = ""


@dataclass(frozen=True)
class Frame:
    """What is seen in one frame of a video; an object that is out of sight is not among them."""

    index: int
    objects: tuple[Tracked, ...] = ()

    def detections(self, size: tuple[int, int]) -> Detections:
        """As Detections with masks bool ``(N, H, W)`` and ``tracker_id``; ``size`` is ``(width, height)``."""
        from manylens.media import from_rle

        width, height = size
        ordered = sorted(self.objects, key=lambda one: -one.score)
        masks = [from_rle(one.mask) for one in ordered]
        found = detections(
            [one.box for one in ordered],
            [one.score for one in ordered],
            masks=np.stack(masks) if masks else np.zeros((0, height, width), bool),
            names=[one.name for one in ordered],
            objects=[one.tracker_id - 1 for one in ordered],
        )
        found.tracker_id = np.array([one.tracker_id for one in ordered], int)
        return found


@dataclass(frozen=True)
class Tracks(Result):
    """Objects followed through a video. Iterating gives Detections with ``tracker_id``, frame by frame.

    Masks are kept as RLE, so that a long video fits; an object's ``tracker_id`` is its place among the prompts, from 1.

    Attributes:
        frames: One for each frame of the video, in order.
        width: Of the video in pixels.
        height: Of the video in pixels.
        fps: Frames a second; None where the video does not say.
    """

    frames: tuple[Frame, ...]
    width: int
    height: int
    fps: float | None = None

    @property
    def ids(self) -> tuple[int, ...]:
        """The tracker ids that occur, in order."""
        return tuple(sorted({one.tracker_id for frame in self.frames for one in frame.objects}))

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[Detections]:
        return (frame.detections((self.width, self.height)) for frame in self.frames)

    def __getitem__(self, index: int) -> Detections:
        return self.frames[index].detections((self.width, self.height))


@dataclass(frozen=True)
class Region:
    """A region that was recognised; ``mask`` is COCO RLE."""

    box: Box
    name: str
    sentence: str
    score: float
    mask: dict[str, Any] | None = None


@dataclass(frozen=True)
class Recognition(Result):
    """Open-world regions, the best first."""

    regions: tuple[Region, ...]


def detections(
    boxes: np.ndarray | Sequence[Sequence[float]],
    scores: np.ndarray | Sequence[float],
    *,
    masks: np.ndarray | None = None,
    names: Sequence[str] | None = None,
    class_ids: Sequence[int] | None = None,
    objects: Sequence[int] | None = None,
    levels: Sequence[str] | None = None,
    things: Sequence[bool] | None = None,
    low_res: np.ndarray | None = None,
) -> Detections:
    """Build Detections in the house's form, ordered by score, best first. Arrays that are so already are not copied.

    Args:
        boxes: ``(N, 4)`` xyxy in pixels.
        scores: ``(N,)`` in 0..1.
        masks: bool ``(N, H, W)``.
        names: Class name of each; empty where there is none.
        class_ids: Class number of each in the model's own list.
        objects: Which prompt each belongs to, from 0.
        levels: ``whole``, ``part`` or ``subpart`` of each.
        things: Whether each is a countable thing.
        low_res: float32 ``(N, h, w)`` logits of the masks, for ``previous`` of a later request; kept as
            ``metadata["low_res"]``.
    """
    import supervision as sv

    score = np.asarray(scores, dtype=np.float32).reshape(-1)
    count = len(score)
    order: Any = np.argsort(-score, kind="stable")
    if (order == np.arange(count)).all():
        order = slice(None)
    pick = lambda values, default, dtype: np.asarray(default if values is None else values, dtype=dtype)[order]  # noqa: E731
    return sv.Detections(
        xyxy=np.asarray(boxes, dtype=np.float32).reshape(-1, 4)[order],
        mask=None if masks is None else np.asarray(masks, dtype=bool)[order],
        confidence=score[order],
        class_id=pick(class_ids, np.zeros(count), int),
        data={
            "object": pick(objects, np.zeros(count), int),
            "level": pick(levels, [""] * count, str),
            "class_name": pick(names, [""] * count, str),
            "is_thing": pick(things, np.ones(count), bool),
        },
        metadata={} if low_res is None else {LOW_RES: np.asarray(low_res, np.float32)[order]},
    )


def provenance_of(result: Any) -> Provenance | None:
    """The provenance of any result, Detections included."""
    if isinstance(result, Result):
        return result.provenance
    return getattr(result, "metadata", {}).get("provenance")


LOW_RES = "low_res"
"""Key in the metadata of Detections: logits float32 ``(N, h, w)`` of the masks at the network's own resolution."""


def with_provenance(result: Any, provenance: Provenance) -> Any:
    """The same result with its provenance set; Detections are changed in place."""
    if isinstance(result, Result):
        return replace(result, provenance=provenance)
    result.metadata["provenance"] = provenance
    return result


def to_json(result: Any) -> dict[str, Any]:
    """The stated JSON form of a result, the same in ``--json``, HTTP and the agent; schema in docs/results.schema.json.

    Masks become COCO RLE, vectors lists, dense features and maps their shape only (they are files: ``-o``).
    """
    provenance = provenance_of(result)
    body = _detections_json(result) if not isinstance(result, Result) else _body(result)
    return {**body, "provenance": asdict(provenance) if provenance else None}


def _detections_json(found: Detections) -> dict[str, Any]:
    from manylens.media import to_rle

    rows = []
    for i in range(len(found)):
        row: dict[str, Any] = {
            "box": [round(float(v), 2) for v in found.xyxy[i]],
            "score": None if found.confidence is None else round(float(found.confidence[i]), 6),
            "mask": None if found.mask is None else to_rle(found.mask[i]),
            "class_id": None if found.class_id is None else int(found.class_id[i]),
            "tracker_id": None if found.tracker_id is None else int(found.tracker_id[i]),
        }
        rows.append(row | {key: np.asarray(found.data[key])[i].item() for key in found.data})
    return {"type": "detections", "detections": rows}


def _body(result: Result) -> dict[str, Any]:
    kept = {f.name: _plain(getattr(result, f.name)) for f in fields(result) if f.name != "provenance"}
    return {"type": type(result).__name__.lower(), **kept}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist() if value.ndim == 1 else {"shape": list(value.shape), "dtype": str(value.dtype)}
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, (str, int, float, bool, dict)) or value is None:
        return value
    return {"name": value.name, "width": value.width, "height": value.height, "id": value.id}
