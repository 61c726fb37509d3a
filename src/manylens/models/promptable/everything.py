"""All masks of a photo: a grid of points is asked, and of the answers the good, stable and different ones stay.

The steps and their order are those of ``SamAutomaticMaskGenerator`` of segment-anything, and so are the masks; what
differs is when the work is done:

- a decoder that can (:class:`EarlyDecoder`) says how good its masks would be before it draws them, and draws only what
  passes;
- a mask whose stability is too low by safe bounds at low resolution is dropped there (:mod:`.stability`);
- what is left is drawn at the photo's size one mask at a time, only where it is, and kept as run lengths. So memory
  does not grow with masks times pixels until the very result, which is made compact where it would be large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from manylens.errors import PromptError
from manylens.models.nms import nms
from manylens.models.promptable import grid, rle
from manylens.models.promptable.answer import LEVELS
from manylens.models.promptable.decoder import Decoder, Scene
from manylens.models.promptable.grid import Crop
from manylens.models.promptable.prompts import OBJECT, PADDING, Canvas
from manylens.models.promptable.stability import Enlarger
from manylens.tasks.results import detections

if TYPE_CHECKING:
    from supervision import Detections

    from manylens.tasks import SegmentRequest

DENSE_BYTES = 1 << 30
"""Results whose masks would be larger than this as pixels are given as supervision's compact masks."""

Encode = Callable[[Crop], tuple[Scene, Canvas]]
"""A crop of the photo as the decoder wants it, and how the crop lies in the network's square."""


@dataclass(frozen=True)
class Everything:
    """How a full set of masks is looked for; names and defaults as in ``SamAutomaticMaskGenerator``.

    Attributes:
        points_per_side: Points of the grid along each side.
        points_per_batch: Points that the decoder is asked at a time; few, so that its tables stay in the cache.
        pred_iou_thresh: A mask whose predicted IoU is not above this goes; 0 keeps all.
        stability_score_thresh: A mask whose stability is below this goes; 0 keeps all.
        stability_score_offset: By how much the threshold of the logits is moved for the stability.
        box_nms_thresh: Of masks of one crop whose boxes overlap by more than this, the better one stays.
        crop_n_layers: Layers of crops that are looked at beside the photo; layer i has ``4 ** i``.
        crop_nms_thresh: As ``box_nms_thresh``, between crops; the mask of the smaller crop stays.
        crop_overlap_ratio: By how much the crops of the first layer overlap, of the shorter side.
        crop_n_points_downscale_factor: In layer i the points of a side are fewer by this to the power i.
        min_mask_region_area: Holes and islands of fewer pixels are taken away; 0 leaves them.
        padded: Whether each point is followed by a padding point, as SAM is trained.
    """

    points_per_side: int = 32
    points_per_batch: int = 8
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    min_mask_region_area: int = 0
    padded: bool = True

    @classmethod
    def of(cls, request: SegmentRequest, **family: Any) -> Everything:
        """What a request asks for, and where it says nothing the family's own values, else those of SAM."""
        said = {"points_per_side": request.points_per_side, "pred_iou_thresh": request.threshold}
        return cls(**family | {name: value for name, value in said.items() if value is not None})


class Promising(NamedTuple):
    """The masks of those of ``B`` clicks of which one passes.

    Attributes:
        rows: The clicks ``(K,)``, ascending.
        low_res: float32 ``(K, M - 1, h, w)`` logits of masks 1 and up, the answers to a prompt that is not clear; all
            ``(S, S)`` or the upper left part of them.
        iou: float32 ``(K, M - 1)``, their predicted IoU.
    """

    rows: np.ndarray
    low_res: np.ndarray
    iou: np.ndarray


@runtime_checkable
class EarlyDecoder(Protocol):
    """A decoder that knows how good its masks are before it draws them, which is a large part of its work."""

    def promising(
        self, scene: Scene, points: np.ndarray, labels: np.ndarray, least: float, used: tuple[int, int] | None = None
    ) -> Promising:
        """Draw the masks of those clicks of which one of masks 1 and up is better than ``least``.

        Args:
            scene: The encoded picture.
            points: float32 ``(B, N, 2)``, as :class:`~manylens.models.promptable.decoder.Decoder` takes them.
            labels: int64 ``(B, N)``.
            least: Predicted IoU that one mask must be above; a click that is slightly below may come too.
            used: Columns and rows of logits, from the top left, that are looked at; those beyond may be left out.
        """
        ...


@dataclass(frozen=True, eq=False)
class Mask:
    """One mask of a full set.

    Attributes:
        counts: Its run lengths in the photo; see :mod:`manylens.models.promptable.rle`.
        box: float32 ``(4,)`` xyxy in pixels of the photo, max *inclusive* as in segment-anything.
        iou: Its predicted IoU, float32.
        stability: Its stability score, float32.
        point: ``(x, y)`` in pixels of the photo that it was found by.
        number: Of that point, over all crops.
        level: ``whole``, ``part`` or ``subpart``: its size among the masks of its point; empty where that is unclear.
        crop: The crop that it was found in.
    """

    counts: np.ndarray
    box: np.ndarray
    iou: np.float32
    stability: np.float32
    point: tuple[float, float]
    number: int
    level: str
    crop: Crop


def generate(
    decoder: Decoder,
    scene: Scene,
    canvas: Canvas,
    options: Everything,
    check: Callable[[], None],
    encode: Encode | None = None,
) -> Detections:
    """All masks of a photo, ordered by predicted IoU.

    Args:
        decoder: Points to masks; an :class:`EarlyDecoder` is asked as such.
        scene: The encoded photo.
        canvas: How the photo lies in the network's square.
        options: The grid, the thresholds, the crops.
        check: Called between batches; raises to stop.
        encode: Encodes a crop; needed where ``options.crop_n_layers`` is not 0.

    Returns:
        Detections with masks; ``object`` is the number of the point that a mask was found by, ``level`` its size among
        the masks of that point. Masks of more than ``DENSE_BYTES`` altogether are a ``supervision.CompactMask`` where
        the library has it: one mask of it, ``found.mask[i]``, is bool ``(H, W)`` as ever.
    """
    found = sorted(all_masks(decoder, scene, canvas, options, check, encode), key=lambda mask: -mask.iou)
    width, height = canvas.size
    result = detections(
        np.array([(*mask.box[:2], *(mask.box[2:] + 1)) for mask in found], np.float32).reshape(-1, 4),
        np.clip([mask.iou for mask in found], 0, 1),
        objects=[mask.number for mask in found],
        levels=[mask.level for mask in found],
    )
    result.mask = _pixels(found, (width, height), result.xyxy)
    return result


def all_masks(
    decoder: Decoder,
    scene: Scene,
    canvas: Canvas,
    options: Everything,
    check: Callable[[], None],
    encode: Encode | None = None,
) -> list[Mask]:
    """As :func:`generate`, as run lengths and in the order of ``SamAutomaticMaskGenerator.generate``."""
    found: list[Mask] = []
    crops = grid.crops(canvas.size, options.crop_n_layers, options.crop_overlap_ratio)
    first = 0
    for crop, layer in crops:
        if layer and encode is None:
            raise PromptError("crop_n_layers: this model encodes no crops", "use 0 layers")
        if layer and encode is not None:
            scene, canvas = encode(crop)
        points = grid.points(int(options.points_per_side / options.crop_n_points_downscale_factor**layer))
        search = _Search(decoder, scene, canvas, options, crop, crops[0][0][2:])
        masks = list(search.masks(points * canvas.size, first, check))
        found += _different(masks, [mask.iou for mask in masks], options.box_nms_thresh)
        first += len(points)
    if len(crops) > 1:
        sizes = [np.float32((x1 - x0) * (y1 - y0)) for x0, y0, x1, y1 in (mask.crop for mask in found)]
        found = _different(found, [1 / size for size in sizes], options.crop_nms_thresh)
    if options.min_mask_region_area > 0:
        least = max(options.box_nms_thresh, options.crop_nms_thresh)
        found = _tidied(found, crops[0][0][2:], options.min_mask_region_area, least, check)
    return found


class _Search:
    """The search of one crop."""

    def __init__(
        self, decoder: Decoder, scene: Scene, canvas: Canvas, options: Everything, crop: Crop, photo: tuple[int, int]
    ) -> None:
        self._decoder, self._scene, self._canvas, self._options = decoder, scene, canvas, options
        self._crop, self._photo = crop, photo
        self._least = np.float32(options.pred_iou_thresh if options.pred_iou_thresh > 0 else -np.inf)
        self._enlarged = Enlarger(decoder.low_res, canvas, decoder.threshold, options.stability_score_offset)

    def masks(self, points: np.ndarray, first: int, check: Callable[[], None]) -> Iterator[Mask]:
        """The masks of points float64 ``(N, 2)`` in pixels of the crop that pass, in order."""
        step = self._options.points_per_batch
        batches = [points[start : start + step] for start in range(0, len(points), step)]
        # The next batch is drawn while the masks of one are brought to the photo's size.
        with ThreadPoolExecutor(1) as ahead:
            asked = ahead.submit(self._promising, batches[0]) if batches else None
            for place, batch in enumerate(batches):
                check()
                assert asked is not None
                found = asked.result()
                if place + 1 < len(batches):
                    asked = ahead.submit(self._promising, batches[place + 1])
                yield from self._masks(found, batch, first + place * step)

    def _masks(self, found: Promising, batch: np.ndarray, first: int) -> Iterator[Mask]:
        wide, high = self._enlarged.used
        for row, low_res, iou in zip(found.rows.tolist(), found.low_res[..., :high, :wide], found.iou, strict=True):
            levels = _levels(low_res > self._decoder.threshold)
            for number in np.flatnonzero(iou > self._least):
                mask = self._mask(low_res[number], iou[number], batch[row], first + row, levels[number])
                if mask is not None:
                    yield mask

    def _promising(self, points: np.ndarray) -> Promising:
        given = self._canvas.points(points)[:, None]
        labels = np.full((len(points), 1), OBJECT, np.int64)
        if self._options.padded:
            given = np.concatenate([given, np.zeros_like(given)], axis=1)
            labels = np.concatenate([labels, np.full_like(labels, PADDING)], axis=1)
        if isinstance(self._decoder, EarlyDecoder):
            return self._decoder.promising(self._scene, given, labels, float(self._least), self._enlarged.used)
        decoded = self._decoder(self._scene, given, labels)
        return Promising(np.arange(len(points)), decoded.low_res[:, 1:], decoded.iou[:, 1:])

    def _mask(self, logits: np.ndarray, iou: np.float32, point: np.ndarray, number: int, level: str) -> Mask | None:
        """The mask of logits at the photo's size; None where it is not stable or goes on outside the crop."""
        least = self._options.stability_score_thresh
        if least > 0 and self._enlarged.hopeless(logits, least):
            return None
        window = self._enlarged(logits)
        if least > 0 and not window.stability >= np.float32(least):
            return None
        left, top = self._crop[:2]
        box = np.array(window.box, np.float32) + np.array([left, top, left, top], np.float32)
        if grid.cut_off(box[None], self._crop, self._photo)[0]:
            return None
        corner = window.corner[0] + left, window.corner[1] + top
        counts = rle.encode(window.mask, corner, self._photo)
        place = (float(point[0]) + left, float(point[1]) + top)
        return Mask(counts, box, iou, window.stability, place, number, level, self._crop)


def _levels(masks: np.ndarray) -> list[str]:
    """The level of each of the masks ``(M, S, S)`` of a point, by area; empty where there are not three."""
    if len(masks) != len(LEVELS):
        return [""] * len(masks)
    order = np.argsort(-masks.sum(axis=(1, 2)), kind="stable")
    return [LEVELS[place] for place in np.argsort(order, kind="stable")]


def _different(masks: list[Mask], scores: list[np.float32], iou: float) -> list[Mask]:
    """The masks that stay when those whose boxes overlap much are taken away, the best first."""
    if not masks:
        return []
    kept = nms(np.stack([mask.box for mask in masks]), np.array(scores, np.float32), iou=iou, limit=None)
    return [masks[i] for i in kept]


def _tidied(masks: list[Mask], size: tuple[int, int], least: int, iou: float, check: Callable[[], None]) -> list[Mask]:
    """The masks without holes and islands of fewer than ``least`` pixels; masks that had none win over the others."""
    found, scores = [], []
    for mask in masks:
        check()
        pixels, filled = without_small(rle.decode(mask.counts, size), least, "holes")
        pixels, cleared = without_small(pixels, least, "islands")
        changed = filled or cleared
        if changed:
            box = _inclusive_box(pixels)
            mask = replace(mask, counts=rle.encode(pixels, (0, 0), size), box=box)
        found.append(mask)
        scores.append(np.float32(not changed))
    return _different(found, scores, iou)


def without_small(mask: np.ndarray, least: int, kind: str) -> tuple[np.ndarray, bool]:
    """A mask without its small holes or islands (pixels that touch at a corner are together).

    Args:
        mask: bool ``(H, W)``.
        least: Holes or islands of fewer pixels go; where all islands are small the largest stays.
        kind: ``holes`` or ``islands``.

    Returns:
        The mask and whether it changed.
    """
    import cv2

    holes = kind == "holes"
    _, parts, stats, _ = cv2.connectedComponentsWithStats((mask ^ holes).astype(np.uint8), connectivity=8)
    sizes = stats[:, cv2.CC_STAT_AREA]
    small = sizes < least
    small[0] = False  # the label of all the rest
    if not small.any():
        return mask, False
    if holes:
        return mask | small[parts], True
    small[0] = True
    if small.all():
        small[1 + int(np.argmax(sizes[1:]))] = False
    return ~small[parts], True


def _inclusive_box(mask: np.ndarray) -> np.ndarray:
    from manylens.media import bounds

    x0, y0, x1, y1 = bounds(mask) or (0, 0, 1, 1)
    return np.array([x0, y0, x1 - 1, y1 - 1], np.float32)


def _pixels(masks: list[Mask], size: tuple[int, int], boxes: np.ndarray) -> Any:
    """The masks as bool ``(N, H, W)``, or as supervision's compact ones where those would be too large."""
    import supervision as sv

    width, height = size
    if len(masks) * width * height > DENSE_BYTES and hasattr(sv, "CompactMask"):
        coco = [rle.to_coco(mask.counts, size) for mask in masks]
        return sv.CompactMask.from_coco_rle(coco, boxes - np.array([0, 0, 1, 1], np.float32), (height, width))
    pixels = np.empty((len(masks), height, width), bool)
    for place, mask in zip(pixels, masks, strict=True):
        place[:] = rle.decode(mask.counts, size)
    return pixels
