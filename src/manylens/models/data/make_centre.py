"""Makes ``vit-s-centre.npy``: the embedded ViT's mean class token over photographs that scikit-image ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from manylens.catalog import Catalog, WeightsStore
from manylens.models.dino import weights
from manylens.models.dino.graph import build
from manylens.models.dino.model import SIDE, _square
from manylens.runtime.engines import EngineSettings, compile
from manylens.runtime.paths import replacing

HERE = Path(__file__).parent
_NAMES = (
    "astronaut", "brick", "camera", "chelsea", "clock", "coffee", "coins", "grass", "gravel", "hubble_deep_field",
    "immunohistochemistry", "moon", "page", "retina", "rocket", "text",
)  # fmt: skip


def main() -> None:
    """Encode halves of the photographs and write the mean beside this file."""
    from skimage import data

    row = Catalog.load()["manylens/vit-s"]
    net = compile(build(weights.read(WeightsStore().ensure(row)), SIDE), EngineSettings())
    tokens = []
    for name in _NAMES:
        picture = getattr(data, name)()
        rgb = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
        middle = rgb.shape[1] // 2
        tokens += [net(_square(half)[None])[0][0] for half in (rgb, rgb[:, :middle], rgb[:, middle:])]
    with replacing(HERE / "vit-s-centre.npy") as file:
        np.save(file, np.mean(tokens, axis=0).astype(np.float32))


if __name__ == "__main__":
    main()
