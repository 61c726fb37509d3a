"""Claim: `embed` of 200 JPEGs gives at least 2x the images a second of the plain transformers loop, same weights.

Peer: what a user of transformers writes: for each file PIL opens it, the BitImageProcessor makes 224x224 of it, and
`Dinov2Model` in float32 runs on a batch of one. Both load the model before the clock starts, with the same threads.
Measured: 200 crops of the examples, 640x480, in slices of 25 that ours and the peer take in turns, the median rate of
a slice; the embedding store is empty at the start. Ours resizes as the processor of the peer is told to: whole
picture to a square. The mean cosine between both says that the vectors are the same thing. The peer runs all 12
blocks, as a plain loop does; ours stops after the last block that is read. So a second peer is cut there as well, for
information.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._claims import Options, Outcome, Part, say
from benchmarks._harness import fresh_home, measure_engine, medians, timed
from benchmarks._pictures import crops

GOAL = "embed of 200 JPEGs >= 2x the images a second of the plain transformers loop"
MODEL = "manylens/vit-s"
COUNT, SLICE = 200, 25

_TIMES = 2.0
_ALIKE = 0.99


def run(options: Options) -> Outcome:
    """Embed the folder with both, slice by slice."""
    from manylens.session import Session

    with fresh_home() as home, tempfile.TemporaryDirectory() as folder, Session(home=home) as session:
        engine = measure_engine(session, MODEL)
        warm, *files = crops(Path(folder), COUNT + 1, seed=2)
        sides: dict[str, Callable[[Iterable[Path]], list[np.ndarray]]] = {
            "ours": lambda paths: [result.vector for result in session.map("embed", paths)],
            "peer": _loop(session, cut=False),
            "peer cut": _loop(session, cut=True),
        }
        speeds: dict[str, list[float]] = {name: [] for name in sides}
        vectors: dict[str, list[np.ndarray]] = {name: [] for name in sides}
        for side in sides.values():
            side([warm])
        for start in range(0, COUNT, SLICE):
            for name, side in sides.items():
                took, found = timed(partial(side, files[start : start + SLICE]))
                speeds[name].append(SLICE / took)
                vectors[name] += found
                say(f"embed-folder: {name} {start + SLICE} of {COUNT}: {speeds[name][-1]:.1f} images/s")
    rates = medians(speeds)
    cosine = float(np.mean([a @ b for a, b in zip(vectors["ours"], vectors["peer"], strict=True)]))
    return Outcome(
        [
            Part("embed 200 JPEGs", rates["ours"], rates["peer"], "images/s", _TIMES, "ratio", "least"),
            Part("the same, peer cut", rates["ours"], rates["peer cut"], "images/s"),
        ],
        {f"mean cosine >= {_ALIKE}": cosine >= _ALIKE},
        {
            "engine": engine.label,
            "mean cosine": round(cosine, 5),
            "slices": {name: [round(speed, 2) for speed in found] for name, found in speeds.items()},
        },
    )


def _loop(session: Any, *, cut: bool) -> Callable[[Iterable[Path]], list[np.ndarray]]:
    """The plain loop: files to unit vectors in the space of ours (class token of the same block, same mean taken)."""
    import torch
    from PIL import Image
    from transformers import BitImageProcessorPil

    from manylens.models.dino.model import centre
    from manylens.models.dino.module import load
    from manylens.models.dino.weights import shape
    from manylens.runtime.cpu import threads

    torch.set_num_threads(threads())
    files = session.weights.ensure(session.catalog.resolve(MODEL))
    model, taps = load(files), shape(files, MODEL).taps
    if cut:
        del model.encoder.layer[taps.last + 1 :]
    processor = BitImageProcessorPil(size={"height": 224, "width": 224}, do_center_crop=False)

    def embed(paths: Iterable[Path]) -> list[np.ndarray]:
        found = []
        for path in paths:
            pixels = processor(Image.open(path).convert("RGB"), return_tensors="pt")["pixel_values"]
            with torch.inference_mode():
                states = model(pixels, output_hidden_states=True).hidden_states
            vector = states[taps.vector + 1][0, 0].numpy() - centre()
            found.append(vector / np.linalg.norm(vector))
        return found

    return embed
