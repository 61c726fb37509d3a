"""One training of masks in a process of its own, for :mod:`benchmarks.train_memory`: prints its losses."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._detections import HEIGHT, WIDTH
from benchmarks._masks_run import CLASSES, pictures

SIDE, BATCH, STEPS, SHOWN = 224, 4, 25, 8
_NAMES = [f"class {k}" for k in range(CLASSES)]

Sets = Callable[[Sequence[int]], list[Any]]
"""Objects of some pictures, as the loss takes them."""


def make(folder: Path, images: int) -> None:
    """Write a data set in our own form and as a COCO file; a few pictures stand behind many names."""
    import PIL.Image

    from manylens.data import Dataset
    from manylens.data.records import Annotation, Category, Record

    files = folder / "images"
    files.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(min(SHOWN, images)):
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        coarse.resize((WIDTH, HEIGHT)).save(files / f"{number}.jpg")
    for number in range(SHOWN, images):
        os.link(files / f"{number % SHOWN}.jpg", files / f"{number}.jpg")
    records, coco = [], []
    for number, rows in enumerate(pictures(images)):
        parts = []
        for i, row in enumerate(rows):
            parts.append(Annotation(f"{number}/{i}", _NAMES[row["class"]], mask=row["truth"]))
            of = {"id": len(coco) + 1, "image_id": number, "category_id": row["class"] + 1, "iscrowd": 0}
            coco.append({**of, "segmentation": row["truth"], "bbox": [0, 0, WIDTH, HEIGHT], "area": 1.0})
        records.append(Record(str(number), files / f"{number}.jpg", WIDTH, HEIGHT, annotations=tuple(parts)))
    Dataset.of(records, [Category(k, name) for k, name in enumerate(_NAMES)], name="made up").save(folder / "own")
    content = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": WIDTH, "height": HEIGHT} for n in range(images)],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(_NAMES)],
        "annotations": coco,
    }
    (folder / "coco.json").write_text(json.dumps(content))


def ours(folder: Path) -> tuple[list[Path], Sets]:
    """Run lengths, decoded on demand."""
    from manylens.data import Dataset
    from manylens.training.dense.scenes import Scenes
    from manylens.training.dense.store import ObjectStore
    from manylens.training.dense.targets import Classes, objects

    data = Dataset.open(folder / "own")
    classes = Classes.of(data.categories)
    store = ObjectStore.of(data, classes.names)
    scenes = Scenes(store, SIDE)
    return store.paths, lambda numbers: [objects(scenes.scene(number, 0), classes) for number in numbers]


def dense(folder: Path) -> tuple[list[Path], Sets]:
    """Dense masks of all, as supervision reads them."""
    import supervision as sv
    import torch

    from manylens.training.dense.geometry import around, squared
    from manylens.training.dense.sets import Objects

    data: Any = sv.DetectionDataset.from_coco(str(folder / "images"), str(folder / "coco.json"), force_masks=True)

    def sets(numbers: Sequence[int]) -> list[Any]:
        found = []
        for number in numbers:
            held = data.annotations[data.image_paths[number]]
            masks = np.stack([squared(np.asarray(one), SIDE) for one in held.mask])
            boxes, classes = torch.from_numpy(around(masks)), torch.from_numpy(held.class_id.astype(np.int64))
            found.append(Objects(classes, torch.from_numpy(masks), boxes, torch.zeros(0, 4)))
        return found

    return [Path(path) for path in data.image_paths], sets


def train(paths: list[Path], sets: Sets) -> tuple[list[float], float]:
    """Some steps on pictures drawn from all: losses, and seconds of a step."""
    import torch

    from manylens.models.adapted.heads.queries import MaskQueries
    from manylens.training.dense.sets import SetWeights, set_loss
    from manylens.training.inputs.pictures import Pictures

    torch.set_num_threads(1)
    torch.manual_seed(0)
    shown = Pictures(paths, SIDE, keep=0)
    encoder = torch.nn.Conv2d(3, 32, 14, 14).requires_grad_(False)
    head = MaskQueries({"dense": 32}, CLASSES, queries=20, width=32, layers=1, heads=4, doublings=1)
    optimiser = torch.optim.AdamW(head.parameters(), 1e-3)
    random = np.random.default_rng(0)
    losses, start = [], time.perf_counter()
    for step in range(STEPS):
        numbers = random.integers(0, len(paths), BATCH).tolist()
        torch.manual_seed(step)
        features = {"dense": encoder(shown.tensor(numbers)).permute(0, 2, 3, 1)}
        loss = set_loss(head(features, (SIDE, SIDE)), sets(numbers), SetWeights(points=512))["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
    return losses, (time.perf_counter() - start) / STEPS


def main() -> None:
    """Make the data, or train on them and print a JSON line."""
    told = json.loads(sys.argv[1])
    folder = Path(told["folder"])
    if told["who"] == "make":
        make(folder, told["images"])
        print("{}")
        return
    start = time.perf_counter()
    paths, sets = {"ours": ours, "dense": dense}[told["who"]](folder)
    read = time.perf_counter() - start
    losses, step = train(paths, sets)
    print(json.dumps({"losses": losses, "step": round(step, 4), "read": round(read, 2)}))


if __name__ == "__main__":
    main()
