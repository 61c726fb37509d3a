"""Panoptic quality of 100 pictures of 640 x 480 pixels with some twenty segments each, and equal numbers.

Peer: the reference's rules in plain NumPy, as its evaluation script has them: ``np.unique`` over the pixels of both id
maps, then loops over pairs and segments. It is handed both id maps in memory, ready to count.

Measured: images a second of the measure, from what a data set holds (masks as COCO RLE), records and checks included:
predictions as RLE. It reads the strings, checks every mask, and counts; only the counts are kept from picture to
picture. Both sides use one thread. Two parts without a goal: predictions as an id map, and the peer beginning from RLE
too. In turns, median of five rounds. Every figure must be equal to 1e-12: PQ, SQ, RQ of all, things and stuff, PQ of
each class.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks._claims import Options, Outcome, Part, say
from benchmarks._harness import in_turns, medians
from manylens.data.records import Annotation, Category, Record
from manylens.evaluation.measure import Regions
from manylens.evaluation.measures.panoptic import Panoptic, PanopticMap

GOAL = "PQ at least 10x as fast as plain NumPy, with equal numbers"
PICTURES, WIDTH, HEIGHT, SEGMENTS, CLASSES = 100, 640, 480, 24, 133
ROUNDS, TIMES, CLOSE = 5, 10.0, 1e-12

_THINGS = 80
_OFFSET = 1 << 24

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Picture:
    """A picture in every form: id maps (0 is void) with the class of each id, and RLE."""

    true: Ids
    true_classes: Mapping[int, int]
    crowds: frozenset[int]
    predicted: Ids
    predicted_classes: Mapping[int, int]
    record: Record
    regions: Regions
    map: PanopticMap


def run(options: Options) -> Outcome:
    """Judge the pictures by each way in turns."""
    say(f"pq: drawing {PICTURES} pictures")
    pictures = [_picture(seed) for seed in range(PICTURES)]
    categories = [Category(i, f"class {i}", i < _THINGS) for i in range(CLASSES)]
    ways = {
        "RLE": lambda: _ours(pictures, categories, [one.regions for one in pictures]),
        "map": lambda: _ours(pictures, categories, [one.map for one in pictures]),
        "peer": lambda: _plain(pictures, [(one.true, one.predicted) for one in pictures]),
        "peer from RLE": lambda: _plain(pictures, [_decoded(one) for one in pictures]),
    }
    say("pq: measuring")
    speed = {name: PICTURES / seconds for name, seconds in medians(in_turns(ways, ROUNDS)).items()}
    expected = ways["peer"]()
    found = {name: ways[name]() for name in ("RLE", "map")}
    apart = max(_apart(figures, expected) for figures in found.values())
    return Outcome(
        [
            Part("PQ, predictions as RLE", speed["RLE"], speed["peer"], "images/s", TIMES, "ratio", "least"),
            Part("PQ, predictions as a map", speed["map"], speed["peer"], "images/s"),
            Part("PQ, both from RLE", speed["RLE"], speed["peer from RLE"], "images/s"),
        ],
        {
            "the same numbers": apart <= CLOSE and ways["peer from RLE"]() == expected,
            "some match and some do not": 0.2 < expected["PQ"] < 0.9,
        },
        {
            "largest difference": apart,
            "PQ": round(expected["PQ"], 6),
            "segments in a picture": round(float(np.mean([len(one.true_classes) for one in pictures])), 1),
        },
    )


def _ours(
    pictures: Sequence[Picture], categories: Sequence[Category], predictions: Sequence[Regions | PanopticMap]
) -> dict[str, float]:
    measure = Panoptic(categories)
    for picture, prediction in zip(pictures, predictions, strict=True):
        measure.add(picture.record, prediction)
    return measure.tally().all()


def _plain(pictures: Sequence[Picture], maps: Sequence[tuple[Ids, Ids]]) -> dict[str, float]:
    """The reference's rules, plainly."""
    iou_of: dict[int, float] = defaultdict(float)
    hits: dict[int, int] = defaultdict(int)
    false: dict[int, int] = defaultdict(int)
    missed: dict[int, int] = defaultdict(int)
    for picture, (true, predicted) in zip(pictures, maps, strict=True):
        true_area = dict(zip(*(part.tolist() for part in np.unique(true, return_counts=True)), strict=True))
        area = dict(zip(*(part.tolist() for part in np.unique(predicted, return_counts=True)), strict=True))
        joint, counts = np.unique(true.astype(np.int64) * _OFFSET + predicted, return_counts=True)
        common = {divmod(both, _OFFSET): pixels for both, pixels in zip(joint.tolist(), counts.tolist(), strict=True)}
        matched_true, matched = set(), set()
        for (one, other), pixels in common.items():
            if one == 0 or other == 0 or one in picture.crowds:
                continue
            of = picture.true_classes[one]
            if of != picture.predicted_classes[other]:
                continue
            iou = pixels / (true_area[one] + area[other] - pixels - common.get((0, other), 0))
            if iou > 0.5:
                hits[of] += 1
                iou_of[of] += iou
                matched_true.add(one)
                matched.add(other)
        crowd_of = {}
        for one, of in picture.true_classes.items():
            if one in picture.crowds:
                crowd_of[of] = one
            elif one not in matched_true:
                missed[of] += 1
        for other, of in picture.predicted_classes.items():
            if other in matched:
                continue
            excused = common.get((0, other), 0) + (common.get((crowd_of[of], other), 0) if of in crowd_of else 0)
            if excused / area[other] <= 0.5:
                false[of] += 1
    figures: dict[str, float] = {}
    for group, classes in (("", range(CLASSES)), (" things", range(_THINGS)), (" stuff", range(_THINGS, CLASSES))):
        rows = []
        for of in classes:
            both = hits[of] + false[of] / 2 + missed[of] / 2
            row = (iou_of[of] / both, iou_of[of] / hits[of] if hits[of] else 0.0, hits[of] / both) if both else None
            figures[f"PQ/class {of}"] = row[0] if row else np.nan
            rows += [row] if row else []
        figures |= {name + group: float(np.mean([row[i] for row in rows])) for i, name in enumerate(("PQ", "SQ", "RQ"))}
    return figures


def _decoded(picture: Picture) -> tuple[Ids, Ids]:
    """Both id maps, painted from RLE."""
    from pycocotools import mask as coco

    true, predicted = np.zeros((2, HEIGHT, WIDTH), np.int32)
    for one in picture.record.annotations:
        true[coco.decode(one.mask) == 1] = int(one.id)
    for number, mask in zip(picture.predicted_classes, picture.regions.masks or (), strict=True):
        predicted[coco.decode(mask) == 1] = number
    return true, predicted


def _apart(ours: Mapping[str, float], theirs: Mapping[str, float]) -> float:
    """The largest difference of a figure; infinite where only one of the two is defined."""
    if ours.keys() != theirs.keys():
        return np.inf
    pairs = [(ours[name], theirs[name]) for name in theirs]
    if any(np.isnan(one) != np.isnan(other) for one, other in pairs):
        return np.inf
    return max(abs(one - other) for one, other in pairs if not np.isnan(one))


def _picture(seed: int) -> Picture:
    """Blobs of the argmax of smooth noise, a tenth of them void; the prediction from the same noise, shaken."""
    from manylens.media import to_rle

    rng = np.random.default_rng(seed)
    hills = _noise(rng)
    true = hills.argmax(axis=0).astype(np.int32) + 1
    predicted = (hills + rng.uniform(0.1, 0.6) * _noise(rng)).argmax(axis=0).astype(np.int32) + 1
    true[true > SEGMENTS * 0.9] = 0
    # Each class in few pictures, ids as in a PNG of three bytes.
    classes = rng.integers(0, CLASSES, SEGMENTS + 1)
    guessed = np.where(rng.random(SEGMENTS + 1) < 0.1, rng.integers(0, CLASSES, SEGMENTS + 1), classes)
    ids = np.concatenate([[0], rng.choice(np.arange(1, _OFFSET), SEGMENTS, replace=False)]).astype(np.int32)
    true_classes = {int(ids[i]): int(classes[i]) for i in np.unique(true) if i}
    predicted_classes = {int(ids[i]): int(guessed[i]) for i in np.unique(predicted) if i}
    crowds = frozenset(one for one in true_classes if rng.random() < 0.05)
    true, predicted = ids[true], ids[predicted]
    annotations = tuple(
        Annotation(str(one), f"class {of}", mask=to_rle(true == one), crowd=one in crowds)
        for one, of in true_classes.items()
    )
    names = {one: f"class {of}" for one, of in predicted_classes.items()}
    masks = [to_rle(predicted == one) for one in names]
    return Picture(
        true,
        true_classes,
        crowds,
        predicted,
        predicted_classes,
        Record(str(seed), Path(f"{seed}.png"), WIDTH, HEIGHT, annotations=annotations),
        Regions(list(names.values()), np.ones(len(names), np.float32), masks=masks),
        PanopticMap(predicted, names),
    )


def _noise(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """float32 ``(SEGMENTS, HEIGHT, WIDTH)``: large hills with a rough edge, of one height."""
    import cv2

    result = np.empty((SEGMENTS, HEIGHT, WIDTH), np.float32)
    for field in result:
        large = cv2.resize(rng.standard_normal((4, 5), np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        small = cv2.resize(rng.standard_normal((60, 80), np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        field[:] = large + 0.03 * small
    return result
