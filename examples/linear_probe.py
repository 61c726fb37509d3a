"""scikit-learn's logistic regression on the pixels and on the embedded encoder's vectors: what trainings are held to.

``python examples/linear_probe.py DATA...``, folders with ``train`` and ``val`` as ``make_data.py`` writes them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import manylens


def pixels(paths: list[Path]) -> np.ndarray:
    """Pictures as grey squares of 8 x 8 pixels, ``(n, 64)``."""
    grey = (Image.open(path).convert("L").resize((8, 8), Image.Resampling.BOX) for path in paths)
    return np.stack([np.asarray(one, np.float32).ravel() / 255 for one in grey])


def vectors(paths: list[Path]) -> np.ndarray:
    """What the embedded encoder makes of pictures, ``(n, 384)``."""
    session = manylens.Session()
    return np.stack(
        [found.vector for found in session.map("embed", [str(path) for path in paths], model="manylens/vit-s")]
    )


def main() -> None:
    """Run the command line."""
    for name in sys.argv[1:]:
        paths = {split: sorted(Path(name, split).glob("*/*.png")) for split in ("train", "val")}
        labels = {split: [path.parent.name for path in found] for split, found in paths.items()}
        for what, made in (("pixels", pixels), ("vectors", vectors)):
            probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
            probe.fit(made(paths["train"]), labels["train"])
            said = probe.predict(made(paths["val"]))
            scores = accuracy_score(labels["val"], said), balanced_accuracy_score(labels["val"], said)
            print(f"{name}, {what}: accuracy {scores[0]:.3f}, balanced accuracy {scores[1]:.3f}")


if __name__ == "__main__":
    main()
