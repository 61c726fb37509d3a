"""Makes the labelled pictures that docs/training-runs.md trains on, from packages of the registry.

``python examples/make_data.py digits DIR [--each N] [--rare CLASS=N,...] [--hold N]`` writes scikit-learn's digits
(UCI, public domain) as class folders below ``train`` and ``val``; the same seed gives the same pictures.

``python examples/make_data.py stamps DIR --stamps STAMPS [--each N]`` does so with the seven largest kinds of stamps
of Debian's package tuxpaint-stamps-default (GPL-2; STAMPS is its folder ``usr/share/tuxpaint/stamps``): cut-outs, many
of photographs, here on white. What is not learnt from is judged by.
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


KINDS = ("animals/mammals", "animals/birds", "food/fruit", "plants", "symbols/money", "town/houses", "vehicles")


def stamps(folder: Path, source: Path, each: int, seed: int) -> None:
    """Write ``each`` stamps of each kind to learn from, and all others of it (12 or more) to judge by."""
    random = np.random.default_rng(seed)
    for kind in KINDS:
        found = sorted(path for path in (source / kind).rglob("*.png") if not path.stem.endswith("_mirror"))
        # The same ones judge, however many are learnt from.
        mixed = [found[place] for place in random.permutation(len(found))]
        for split, chosen in (("train", mixed[:each]), ("val", mixed[20:])):
            for path in chosen:
                name = "-".join(path.relative_to(source / kind).parts)
                target = folder / split / kind.split("/")[-1] / name
                target.parent.mkdir(parents=True, exist_ok=True)
                picture = Image.open(path).convert("RGBA")
                picture.thumbnail((448, 448))
                white = Image.new("RGBA", picture.size, "white")
                Image.alpha_composite(white, picture).convert("RGB").save(target)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["digits", "stamps"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--each", type=int, default=20)
    parser.add_argument("--rare", default="", help="such as 3=2,7=2")
    parser.add_argument("--hold", type=int, default=60)
    parser.add_argument("--stamps", type=Path, default=Path("/usr/share/tuxpaint/stamps"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.kind == "stamps":
        stamps(given.folder, given.stamps, given.each, given.seed)
        return
    rare = {int(one.split("=")[0]): int(one.split("=")[1]) for one in given.rare.split(",") if one}
    digits(given.folder, given.each, rare, given.hold, given.seed)


if __name__ == "__main__":
    main()
