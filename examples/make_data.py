"""Makes the labelled pictures that docs/training-runs.md trains on, from packages of the registry.

``python examples/make_data.py digits DIR [--each N] [--rare CLASS=N,...] [--hold N]`` writes scikit-learn's digits
(UCI, public domain) as class folders below ``train`` and ``val``; the same seed gives the same pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def digits(folder: Path, each: int, rare: dict[int, int], hold: int, seed: int) -> None:
    """Write ``each`` pictures a class to learn from (fewer of the rare ones), and ``hold`` a class to judge by."""
    found = load_digits()
    random = np.random.default_rng(seed)
    for label in range(10):
        rows = random.permutation(np.flatnonzero(found.target == label))
        held, rest = rows[:hold], rows[hold:]
        for split, chosen in (("val", held), ("train", rest[: rare.get(label, each)])):
            for row in chosen:
                path = folder / split / str(label) / f"{row}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = (found.images[row] * 255 / 16).astype(np.uint8)
                Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).convert("RGB").save(path)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["digits"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--each", type=int, default=20)
    parser.add_argument("--rare", default="", help="such as 3=2,7=2")
    parser.add_argument("--hold", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rare = {int(one.split("=")[0]): int(one.split("=")[1]) for one in given.rare.split(",") if one}
    digits(given.folder, given.each, rare, given.hold, given.seed)


if __name__ == "__main__":
    main()
