"""Claim: all masks of a photo from a grid of points, at the size of SAM ViT-B, at least 6 times as fast as Meta's own
generator on the same cores, and the same masks.

Peer: `SamAutomaticMaskGenerator` of Meta's package with its defaults and the same weights, converted, in float32.
Measured: from the embedding of a photo to all masks as pixels; encoding is the claim `sam-encode`. A grid of 16x16
points, a quarter of the usual one (4 of the peer's 16 batches of 64), or with `--full` the usual one of 32x32.
The weights are noise, and so is the embedding, but the heads are shifted and scaled so that as many masks pass as of a
trained SAM on a photograph: 38 % of the candidates have a predicted IoU above 0.88, and half of those are stable. Both
sides have the same weights, embedding and thresholds. Masks of noise all reach across the photo, so that suppression by
boxes would leave one of them: its threshold is 1 on both sides, and all that pass are drawn and compared.
The claim is made in float32; half precision is beside it.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks._baselines.lively_sam import lively
from benchmarks._baselines.meta_sam import meta_sam
from benchmarks._claims import Options, Outcome, Part, say
from benchmarks._harness import fresh_home, timed
from benchmarks._pictures import EXAMPLES
from benchmarks._sam import vit_b

GOAL = "at least 6x Meta's automatic generator, the same masks (IoU >= 0.99)"
PHOTO = EXAMPLES / "coffee.jpg"

_GOAL = 6.0
_SAME = 0.99
_BOXES = 1.0
_MATCHED = 0.99
_POINTS, _ALL_POINTS = 16, 32


def run(options: Options) -> Outcome:
    """Find all masks of one photo, ours in both precisions and the peer's."""
    import torch

    from manylens.media import Image
    from manylens.models.promptable.everything import Everything, all_masks
    from manylens.models.promptable.prompts import Canvas

    rgb = Image.of(PHOTO).array
    side = _ALL_POINTS if options.full else _POINTS
    embedding = torch.randn((1, 256, 64, 64), generator=torch.Generator().manual_seed(0))
    say("sam-everything: shaping the weights")
    sam = lively(vit_b(), embedding, points=16)
    canvas = Canvas.padded((rgb.shape[1], rgb.shape[0]), 1024)
    asked = Everything(points_per_side=side, box_nms_thresh=_BOXES)
    seconds, found, share = {}, {}, 0.0
    with fresh_home():
        for precision in ("f32", "bf16"):
            say(f"sam-everything: ours, {precision}, {side}x{side} points")
            decoder = _decoder(sam, precision)
            scene = {"embedding": np.ascontiguousarray(np.moveaxis(embedding.numpy(), 1, -1))}
            all_masks(decoder, scene, canvas, Everything(points_per_side=3), _go_on)  # compiles
            decoder.forget()
            seconds[precision], found[precision] = timed(lambda d=decoder, s=scene: _ours(d, s, canvas, asked))
            if precision == "f32":
                share = _passing(decoder, scene, canvas, asked)
        say(f"sam-everything: Meta's, {side}x{side} points")
        peer, masks = _meta(meta_sam(sam), rgb, embedding, side)
    matched = {precision: _matched(found[precision].mask, masks) for precision in found}
    return Outcome(
        [
            Part("all masks, f32", peer / seconds["f32"], None, "x", _GOAL, best="least"),
            Part("seconds, f32", seconds["f32"], peer, "s"),
            Part("seconds, bf16", seconds["bf16"], peer, "s"),
            Part("faster, bf16", peer / seconds["bf16"], None, "x"),
            Part("matched, f32", matched["f32"], None, "of all", _MATCHED, best="least"),
            Part("matched, bf16", matched["bf16"], None, "of all"),
        ],
        {"masks were found": len(masks) >= 10},
        {
            "points": f"{side}x{side}",
            "photo": f"{rgb.shape[1]}x{rgb.shape[0]}",
            "candidates above the predicted IoU": round(share, 3),
            "masks": {"meta": len(masks)} | {precision: len(some) for precision, some in found.items()},
        },
    )


def _decoder(sam: Any, precision: str) -> Any:
    """Our decoder on OpenVINO, made of a module in memory."""
    from functools import cache

    from manylens.models import network
    from manylens.models.sam.decoder import whole
    from manylens.models.sam.grid_decoder import SamGridDecoder, blueprint
    from manylens.models.sam.module import prompt_tables
    from manylens.runtime.engines import EngineSettings

    settings = EngineSettings("openvino", precision)  # type: ignore[arg-type]

    @cache
    def built(name: str) -> Any:
        return network.build(blueprint(name, 64, 256, lambda: sam), settings, f"benchmark {time.time_ns()}")

    return SamGridDecoder(1024, 256, prompt_tables(sam), whole(built), built)


def _ours(decoder: Any, scene: Any, canvas: Any, asked: Any) -> Any:
    from manylens.models.promptable.everything import generate

    return generate(decoder, scene, canvas, asked, _go_on)


def _passing(decoder: Any, scene: Any, canvas: Any, asked: Any) -> float:
    """Share of the candidates on a coarse grid whose predicted IoU is above the threshold."""
    from manylens.models.promptable import grid

    points = canvas.points(grid.points(8) * canvas.size)[:, None]
    points = np.concatenate([points, np.zeros_like(points)], axis=1)
    found = decoder.promising(scene, points, np.tile([1, -1], (len(points), 1)), -np.inf)
    return float((found.iou > asked.pred_iou_thresh).mean())


def _meta(meta: Any, rgb: np.ndarray, embedding: Any, side: int) -> tuple[float, np.ndarray]:
    """Seconds of Meta's generator, and its masks bool ``(N, H, W)``."""
    import torch
    from segment_anything import SamAutomaticMaskGenerator

    from manylens.runtime.cpu import threads

    class Encoded(torch.nn.Module):
        img_size = 1024

        def forward(self, pixels: Any) -> Any:
            return embedding

    meta.image_encoder = Encoded()
    torch.set_num_threads(threads())
    seconds, found = timed(
        lambda: SamAutomaticMaskGenerator(meta, points_per_side=side, box_nms_thresh=_BOXES).generate(rgb)
    )
    masks = [one["segmentation"] for one in found]
    return seconds, np.array(masks, bool).reshape(len(masks), *rgb.shape[:2])


def _matched(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Share of the masks of both sides that have one of IoU >= 0.99 on the other."""
    if not len(ours) or not len(theirs):
        return 0.0
    a, b = (np.packbits(masks.reshape(len(masks), -1), axis=1) for masks in (ours, theirs))
    areas = [np.bitwise_count(part).sum(axis=1, dtype=np.int64) for part in (a, b)]
    common = np.array([np.bitwise_count(row & b).sum(axis=1, dtype=np.int64) for row in a])
    same = common >= _SAME * (areas[0][:, None] + areas[1][None] - common)
    return float((same.any(axis=1).sum() + same.any(axis=0).sum()) / (len(a) + len(b)))


def _go_on() -> None:
    """Nothing stops a measurement."""
