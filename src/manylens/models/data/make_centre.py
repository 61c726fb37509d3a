"""Makes ``vit-s-centre.npy``: the embedded ViT's mean class token over photographs that scikit-image ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from manylens.catalog import Catalog, WeightsStore
from manylens.models.dino import views, weights
from manylens.models.dino.encoder import Encoder
from manylens.runtime.engines import EngineSettings
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
    files = WeightsStore().ensure(row)
    plan = weights.shape(files, row.id)
    seen = views.embedded(plan)
    encode = Encoder(files, row.id, plan, seen, row.weights_hash, EngineSettings())
    tokens = []
    for name in _NAMES:
        picture = getattr(data, name)()
        rgb = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
        middle = rgb.shape[1] // 2
        for half in (rgb, rgb[:, :middle], rgb[:, middle:]):
            tokens.append(encode(seen.whole.prepare(half)[None])[0]["vector"])
    with replacing(HERE / "vit-s-centre.npy") as file:
        np.save(file, np.mean(tokens, axis=0).astype(np.float32))


if __name__ == "__main__":
    main()
