"""Claim: dense DINOv2-S features of a folder of JPEGs at 3x the images a second of the plain transformers loop or more.

Peer: what a user of transformers writes: for each file PIL opens it, the BitImageProcessor prepares it as the
checkpoint says, and `Dinov2Model` in float32 runs on a batch of one. Both load the model before the clock starts, with
the same threads.
Measured: crops of the examples, 640x480, in slices that ours and the peer take in turns, the median rate of a slice;
the embedding store is empty at the start. The weights are noise of DINOv2-S's true shape: the time does not depend on
what they are. Its processor is told to take the whole picture as 224x224, so that both see the same pixels. The mean
cosine between the patches of both says that the features are the same thing. How near the network is to what the
processor can do is told beside it: its matrix products a second, and the best rate of products of its sizes.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._claims import Options, Outcome, Part, say
from benchmarks._harness import fresh_home, matrix_rate, measure_engine, medians, timed
from benchmarks._pictures import crops

GOAL = "dense DINOv2-S features of a folder of JPEGs >= 3x the images a second of the plain transformers loop"
COUNT, SLICE = 96, 16
BATCH, TOKENS, SIZES = 8, 257, (384, 1536)

_TIMES = 3.0
_ALIKE = 0.99
_PROCESSOR = {
    "image_processor_type": "BitImageProcessor",
    "size": {"height": 224, "width": 224},
    "resample": 3,
    "do_center_crop": False,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def run(options: Options) -> Outcome:
    """Encode the folder with both, slice by slice."""
    from manylens.session import Session

    with fresh_home() as home, tempfile.TemporaryDirectory() as folder, Session(home=home) as session:
        checkpoint = _checkpoint(Path(folder) / "dinov2-small")
        warm, *files = crops(Path(folder), COUNT + 1, seed=3)
        engine = measure_engine(session, str(checkpoint))
        sides: dict[str, Callable[[Iterable[Path]], list[np.ndarray]]] = {
            "ours": partial(_ours, session, str(checkpoint)),
            "peer": _loop(checkpoint),
        }
        speeds: dict[str, list[float]] = {name: [] for name in sides}
        cosines = []
        for side in sides.values():
            side([warm])
        for start in range(0, COUNT, SLICE):
            found = {}
            for name, side in sides.items():
                took, found[name] = timed(partial(side, files[start : start + SLICE]))
                speeds[name].append(SLICE / took)
                say(f"dense-folder: {name} {start + SLICE} of {COUNT}: {speeds[name][-1]:.1f} images/s")
            cosines += [_cosine(a, b) for a, b in zip(found["ours"], found["peer"], strict=True)]
        peak = max(matrix_rate(engine, BATCH * TOKENS, inner, outer) for inner, outer in (SIZES, SIZES[::-1])) / 1e9
    rates = medians(speeds)
    return Outcome(
        [
            Part("dense features of JPEGs", rates["ours"], rates["peer"], "images/s", _TIMES, "ratio", "least"),
            Part("matrix products", rates["ours"] * _operations() / 1e9, peak, "GFLOP/s"),
        ],
        {f"mean cosine of patches >= {_ALIKE}": float(np.mean(cosines)) >= _ALIKE},
        {
            "engine": engine.label,
            "mean cosine": round(float(np.mean(cosines)), 5),
            "slices": {name: [round(speed, 2) for speed in found] for name, found in speeds.items()},
        },
    )


def _operations() -> float:
    """Of the encoder's matrix products for a picture, two for each multiplication."""
    (width, hidden), depth = SIZES, 12
    block = TOKENS * (4 * width**2 + 2 * width * hidden) + 2 * TOKENS**2 * width
    return 2.0 * (depth * block + (TOKENS - 1) * 3 * 14**2 * width)


def _ours(session: Any, checkpoint: str, paths: Iterable[Path]) -> list[np.ndarray]:
    requests = ({"image": path, "dense": True} for path in paths)
    return [result.dense for result in session.map("embed", requests, model=checkpoint)]


def _loop(checkpoint: Path) -> Callable[[Iterable[Path]], list[np.ndarray]]:
    """The plain loop: files to patch features ``(rows, columns, D)``."""
    import torch
    from PIL import Image
    from transformers import BitImageProcessorPil, Dinov2Model

    from manylens.runtime.cpu import threads

    torch.set_num_threads(threads())
    model: Any = Dinov2Model.from_pretrained(checkpoint, local_files_only=True).eval()
    processor = BitImageProcessorPil.from_pretrained(checkpoint, local_files_only=True)

    def encode(paths: Iterable[Path]) -> list[np.ndarray]:
        found = []
        for path in paths:
            pixels = processor(Image.open(path).convert("RGB"), return_tensors="pt")["pixel_values"]
            with torch.inference_mode():
                patches = model(pixels).last_hidden_state[0, 1:]
            found.append(patches.numpy().reshape(16, 16, -1))
        return found

    return encode


def _checkpoint(folder: Path) -> Path:
    """A folder in the hub's format: DINOv2-S's shape, every tensor noise by its fan-in."""
    from transformers import Dinov2Config, Dinov2Model

    from benchmarks._baselines.noise import noisy

    model = noisy(Dinov2Model(Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=518, patch_size=14)))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(_PROCESSOR))
    return folder


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    """The mean cosine between the patches at one place."""
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return float(((one * other).sum(axis=-1) / lengths).mean())
