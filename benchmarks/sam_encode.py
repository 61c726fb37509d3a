"""Claim: the image encoder of SAM ViT-B takes at most a 4.5th of the time of transformers' own, on a processor.

Peer: what a user of transformers runs: `SamImageProcessor` (its PIL form) and `SamModel.get_image_embeddings`, eager
attention, float32, with as many threads.
Measured: from a decoded 1024x683 photo to its embedding, resizing and normalising included, the median of rounds that
ours and the peer take in turns after one that does not count. Ours is OpenVINO, bf16 where the processor has it.
The weights are seeded noise of ViT-B's true shape: the time does not depend on what they are.
The limit of the processor is measured in the same run: the best rate of a chain of OpenVINO's own matrix products in
the same precision. The share is the rate of the encoder's matrix products as the paper's network has them (a
multiplication and an addition are two operations; padding and all other work count for nothing) of that best rate.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import _sam
from benchmarks._claims import Options, Outcome, Part, say
from benchmarks._harness import in_turns, matrix_rate, medians
from benchmarks._pictures import EXAMPLES

if TYPE_CHECKING:
    from manylens.runtime.engines import EngineSettings

GOAL = "SAM ViT-B encode >= 4.5x transformers eager fp32; the share of the matrix-product peak printed, aim 70 %"
ROUNDS = 2

_TIMES = 4.5
_ALIKE = 0.15


def run(options: Options) -> Outcome:
    """Encode one photo with both, and measure the limit before and after."""
    from manylens.media import Image

    settings = _sam.settings()
    folder = _sam.checkpoint()
    photo = Image.of(EXAMPLES / "cat.jpg")
    say(f"sam-encode: {photo.name}, {settings.label}")
    model, peer = _sam.opened(folder, settings), _Peer(folder, settings.threads)
    peaks = [peak(settings)]
    times = in_turns({"ours": lambda: model.embeddings([photo]), "peer": partial(peer, photo.array)}, ROUNDS)
    peaks.append(peak(settings))
    middle = medians(times)
    (found,), right = model.embeddings([photo]), peer(photo.array)
    apart = float(np.abs(found - right).mean() / right.std())
    rate = _sam.encoder_flops() / middle["ours"] / 1e9
    return Outcome(
        [
            Part("encode a photo", middle["ours"], middle["peer"], "s", 1 / _TIMES, "ratio"),
            Part("matrix products", rate, max(peaks) / 1e9, "GFLOP/s"),
            Part("difference of the embeddings", apart, None, "deviations", _ALIKE),
        ],
        {},
        {
            "engine": settings.label,
            "times faster": round(middle["peer"] / middle["ours"], 2),
            "share of the peak": round(rate * 1e9 / max(peaks), 3),
            "peaks": [round(one / 1e9, 1) for one in peaks],
            "rounds": {name: [round(one, 3) for one in seconds] for name, seconds in times.items()},
        },
    )


class _Peer:
    def __init__(self, folder: Any, threads: int) -> None:
        import torch
        from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

        torch.set_num_threads(threads)
        self._processor = SamImageProcessorPil.from_pretrained(folder)
        self._model = _sam.loaded(folder)

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        pixels = self._processor(rgb, return_tensors="pt")["pixel_values"]
        return np.moveaxis(self._model.get_image_embeddings(pixels).numpy(), 1, -1)


def peak(settings: EngineSettings) -> float:
    """The best rate of OpenVINO's matrix products of the encoder's own sizes, in operations a second."""
    sizes = ((4096, 768, 3072), (2048, 2048, 2048))
    return max(matrix_rate(settings, *size) for size in sizes)
