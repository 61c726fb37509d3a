"""Claim: on a GPU, the image encoder of SAM ViT-B takes at least 8x the pictures a second of transformers in float32.

Peer: `SamModel.get_image_embeddings` of transformers, eager attention, float32 without TF32, in batches of the same
size, the pixels already prepared and on the GPU.
Measured: pictures a second over batches of eight, the time of the GPU between two events, the median of rounds that all
take in turns after some that do not count. Ours, as manylens serves it: the encoder's module in bfloat16 with fused
attention, pictures uint8 on the GPU, normalised there; and the same module under `torch.compile`. The claim is held to
the faster of the two; the part says which. What compiling took is told beside it. The mean difference of the
embeddings, in deviations, and the share of mask pixels that change for clicks on them (the decoder in float32 for both)
say what half precision costs. The weights are seeded noise of ViT-B's true shape.
Where torch sees no GPU, nothing is measured, and the run says so.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import _sam
from benchmarks._claims import Options, Outcome, Part, say
from benchmarks._harness import timed

if TYPE_CHECKING:
    import torch

GOAL = "SAM ViT-B on a GPU, batches of 8 in bf16: >= 8x the pictures a second of eager fp32"
BATCH, ROUNDS, WARM = 8, 10, 3

_TIMES = 8.0
_ALIKE = 0.15
_CHANGED = 0.05


def run(options: Options) -> Outcome:
    """Encode one batch of noise pictures again and again, with all in turns."""
    import torch

    if not torch.cuda.is_available():
        return Outcome([], unmeasured="torch sees no GPU here")
    device = torch.device("cuda")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    folder = _sam.checkpoint()
    pictures = torch.from_numpy(_pictures(_sam.opened(folder, _sam.settings()).vision.side)).to(device)
    say(f"gpu-encode: {torch.cuda.get_device_name(device)}")
    calls, compiling, failed = _calls(folder, pictures)
    with torch.inference_mode():
        seconds = _in_turns(calls)
        found = {name: call().float() for name, call in calls.items()}
        # Ours are channels last.
        found = {name: one if name == "peer" else one.movedim(-1, 1) for name, one in found.items()}
    rates = {name: BATCH / statistics.median(values) for name, values in seconds.items()}
    best = max((name for name in rates if name != "peer"), key=lambda name: rates[name])
    right = found["peer"]
    apart = float((found[best] - right).abs().mean() / right.std())
    changed = _masks_changed(folder, right, found[best])
    return Outcome(
        [
            Part(f"encode, {best}", rates[best], rates["peer"], "pictures/s", _TIMES, "ratio", "least"),
            *(Part(f"encode, {name}", rates[name], rates["peer"], "pictures/s") for name in rates if name != "peer"),
            Part("difference of the embeddings", apart, None, "deviations", _ALIKE),
            Part("mask pixels that change", changed, None, "share", _CHANGED),
        ],
        {},
        {
            "device": torch.cuda.get_device_name(device),
            "share of useful operations, TFLOP/s": round(rates[best] * _sam.encoder_flops() / 1e12, 1),
            "seconds to compile": None if compiling is None else round(compiling, 1),
            **({"compile": failed} if failed else {}),
        },
    )


def _pictures(side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (BATCH, side, side, 3), dtype=np.uint8)


def _calls(folder: Any, pictures: torch.Tensor) -> tuple[dict[str, Callable[[], Any]], float | None, str]:
    """What is measured, by name; how long compiling took, or why it failed."""
    import torch

    from manylens.models.sam import spec
    from manylens.models.sam.module import Encoder

    device, side = pictures.device, pictures.shape[1]
    vision = spec.read({path.name: path for path in folder.iterdir()}, folder.name)
    inner = torch.tensor([[side, side]] * len(pictures), device=device)
    # Fused attention for ours; the peer's is what transformers takes by itself where attention is eager.
    module = Encoder(_sam.loaded(folder, "sdpa"), vision.mean, vision.deviation).eval().to(device, torch.bfloat16)
    peer = _sam.loaded(folder, "eager").to(device)
    mean, deviation = torch.tensor(vision.mean, device=device), torch.tensor(vision.deviation, device=device)
    pixels = ((pictures.float() - mean) / deviation).permute(0, 3, 1, 2).contiguous()
    calls: dict[str, Callable[[], Any]] = {
        "peer": partial(peer.get_image_embeddings, pixels),
        "as served": partial(module, pictures, inner),
    }
    try:
        compiled = torch.compile(module, mode="max-autotune-no-cudagraphs", dynamic=False)
        with torch.inference_mode():
            seconds, _ = timed(partial(compiled, pictures, inner))
    except Exception as error:  # no compiler, no Triton: the other one stands
        return calls, None, (str(error).strip().splitlines() or ["failed"])[0][:200]
    return calls | {"compiled": partial(compiled, pictures, inner)}, seconds, ""


def _in_turns(calls: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Seconds of the GPU for each call in each round."""
    import torch

    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(WARM + ROUNDS):
        for name, call in calls.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            torch.cuda.synchronize()
            if turn >= WARM:
                times[name].append(begin.elapsed_time(end) / 1000)
    return times


def _masks_changed(folder: Any, right: torch.Tensor, found: torch.Tensor) -> float:
    """Share of pixels of low-resolution masks of a click in the middle that differ between two sets of embeddings."""
    import torch

    model = _sam.loaded(folder).to(right.device)
    points = torch.full((len(right), 1, 1, 2), 512.0, device=right.device)
    with torch.inference_mode():
        masks = [model(image_embeddings=one, input_points=points).pred_masks > 0 for one in (right, found)]
    return float((masks[0] ^ masks[1]).float().mean())
