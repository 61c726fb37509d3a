"""Makes ``imagenet-minilm.npz``: MiniLM's vectors of the labels of ImageNet. Run it when the text encoder changes."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np

from manylens.catalog import Catalog, WeightsStore
from manylens.models.minilm import MiniLm
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.runtime.paths import replacing
from manylens.tasks import EmbedRequest

HERE = Path(__file__).parent


def main() -> None:
    """Encode the labels and write the file beside this one."""
    row = Catalog.load()["manylens/minilm"]
    model = MiniLm(row, WeightsStore().ensure(row), EngineSettings(engine="openvino", precision="f32"))
    labels = tomllib.loads((HERE / "imagenet-names.toml").read_text(encoding="utf-8"))["names"]
    found = list(model.run([EmbedRequest.of(text=label) for label in labels], Context()))
    vectors = np.stack([embedding.vector for embedding in found]).astype(np.float16)
    with replacing(HERE / "imagenet-minilm.npz") as file:
        np.savez(file, space=found[0].space, vectors=vectors)


if __name__ == "__main__":
    main()
