"""Claim: masks by a click and by a box beat patch features + GrabCut by at least 0.05 mean IoU.

The 95 % interval of the paired differences lies above zero.

Peer: features + GrabCut with patch features of the same ViT.
Measured: on every region that people drew in `--data DIR` (COCO instances in regions.json, with a `click` each): IoU of
the mask of highest score for one click, of the best of the three masks, and of the mask for the region's box. The
intervals come from 10,000 paired bootstrap resamples of the regions. Without --data it runs on the few regions of the
example photographs that the tests keep: too few for the claim, enough to see that it runs.

How to read it: two things flatter ours, so the numbers are an upper bound where they apply.
The edge network inside ours (HED) was trained on the outlines of BSDS500's train and validation pictures; regions of
those pictures are not new to it. And a `click` that is the point farthest inside its region is the very point that ours
favours: "click anywhere inside" repeats the click at a random point of the region, for both sides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks._baselines import features_grabcut
from benchmarks._claims import Options, Outcome, Part, say
from benchmarks._harness import fresh_home, measure_engine
from benchmarks._pictures import Region, iou, regions

GOAL = "mean IoU of a click and of a box >= 0.05 above features + GrabCut, 95 % interval above zero"
MODEL = "manylens/regions-s"

_MARGIN = 0.05
_ENOUGH = 100
_MOSTLY = 0.9
_OFF = 5.0
_RESAMPLES = 10_000


def run(options: Options) -> Outcome:
    """Score every region."""
    from manylens.session import Session

    with fresh_home() as home, Session(home=home) as session, cuts_counted() as cuts:
        engine = measure_engine(session, MODEL)
        rows = _scores(session, engine, list(regions(options.data)))
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    click, box = columns["click"] - columns["peer click"], columns["box"] - columns["peer box"]
    intervals = {"click": interval(click), "box": interval(box)}
    means = {name: float(values.mean()) for name, values in columns.items()}
    if len(rows) < _ENOUGH:
        say(f"only {len(rows)} regions: too few for the claim; name a folder with more by --data")
    return Outcome(
        [
            Part("click, ahead of the peer", float(click.mean()), None, "IoU", _MARGIN, best="least"),
            Part("box, ahead of the peer", float(box.mean()), None, "IoU", _MARGIN, best="least"),
            Part("click", means["click"], means["peer click"], "IoU"),
            Part("click anywhere inside", means["anywhere"], means["peer anywhere"], "IoU"),
            Part("best of three", means["best of three"], means["peer click"], "IoU"),
            Part("box", means["box"], means["peer box"], "IoU"),
        ],
        {
            **{f"{name}: interval above zero": low > 0 for name, (low, _) in intervals.items()},
            "GrabCut ran in the peer": cuts["ran"] >= _MOSTLY * sum(cuts.values()) > 0,
        },
        {
            "regions": len(rows),
            "few": len(rows) < _ENOUGH,
            "cuts of the peer": dict(cuts),
            "engine": engine.label,
            "intervals": {name: [round(end, 4) for end in ends] for name, ends in intervals.items()},
        },
    )


def _scores(session: Any, engine: Any, found: Sequence[Region]) -> list[dict[str, float]]:
    from manylens.media import Image
    from manylens.models.regions.features import PatchEncoder

    path = session.weights.ensure(session.catalog.resolve(MODEL))["vit_s_focus.onnx"]
    encode = PatchEncoder(path, precision=engine.precision, threads=engine.threads)
    rows: list[dict[str, float]] = []
    rng = np.random.default_rng(0)
    seen, image, patches = None, None, None
    for region in found:
        if region.image != seen:
            say(f"click-quality: {region.image.name} ({len(rows)} of {len(found)})")
            seen, image = region.image, Image.of(region.image)
            patches = encode(image.array)
        rows.append(_score(session, region, image, patches, anywhere(region.mask, rng)))
    return rows


def _score(session: Any, region: Region, image: Any, patches: Any, point: tuple[float, float]) -> dict[str, float]:
    from manylens.tasks import request

    by_click = session.run(request("segment", image=image, points=[region.click]))
    by_point = session.run(request("segment", image=image, points=[point]))
    by_box = session.run(request("segment", image=image, box=region.box))
    ious = [iou(mask, region.mask) for mask in by_click.mask]
    return {
        "click": ious[0],
        "anywhere": iou(by_point.mask[0], region.mask),
        "best of three": max(ious[:3]),
        "box": iou(by_box.mask[0], region.mask),
        "peer click": iou(features_grabcut.segment(image.array, patches, point=region.click), region.mask),
        "peer anywhere": iou(features_grabcut.segment(image.array, patches, point=point), region.mask),
        "peer box": iou(features_grabcut.segment(image.array, patches, box=region.box), region.mask),
    }


def anywhere(mask: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """A random point ``(x, y)`` of a mask bool ``(H, W)``, some pixels off its boundary where there is room."""
    import cv2

    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    rows, columns = np.nonzero(depth >= min(_OFF, float(depth.max())))
    pick = int(rng.integers(len(rows)))
    return float(columns[pick]), float(rows[pick])


@contextmanager
def cuts_counted() -> Iterator[Counter[str]]:
    """Count, within this block, the GrabCut calls that ran and those that failed.

    The peer takes what it has where GrabCut refuses a picture. If it nearly always did, there would be no peer.
    """
    import cv2

    cuts: Counter[str] = Counter()
    grab_cut = cv2.grabCut

    def counted(*arguments: Any) -> Any:
        try:
            found = grab_cut(*arguments)
        except cv2.error:
            cuts["failed"] += 1
            raise
        cuts["ran"] += 1
        return found

    with patch.object(cv2, "grabCut", counted):
        yield cuts


def interval(differences: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean of paired differences ``(N,)``, by bootstrap."""
    picks = np.random.default_rng(seed).integers(0, len(differences), (_RESAMPLES, len(differences)))
    low, high = np.percentile(differences[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
