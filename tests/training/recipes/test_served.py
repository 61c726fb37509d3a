"""What each recipe trains is a model: it answers through the session as its task says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from manylens.media import to_rle
from manylens.tasks import request
from manylens.training.run import train


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of a bright square and a dark disc on grey, as a COCO file."""
    root = tmp_path_factory.mktemp("shapes")
    random = np.random.default_rng(0)
    images, annotations = [], []
    y, x = np.mgrid[0:56, 0:56]
    for number in range(12):
        pixels = np.full((56, 56, 3), 120.0) + random.normal(0, 5, (56, 56, 3))
        masks = {}
        top, left = random.integers(2, 30, 2)
        masks[1] = (y >= top) & (y < top + 20) & (x >= left) & (x < left + 20)
        cy, cx = random.integers(14, 42, 2)
        masks[2] = ((y - cy) ** 2 + (x - cx) ** 2 < 100) & ~masks[1]
        pixels[masks[1]] = (250, 240, 200)
        pixels[masks[2]] = (10, 20, 60)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 56, "height": 56})
        for category, mask in masks.items():
            if mask.sum() < 20:
                continue
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category,
                    "bbox": [float(side) for side in box],
                    "area": float(mask.sum()),
                    "segmentation": to_rle(mask),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 1, "name": "square"}, {"id": 2, "name": "disc"}]
    (root / "labels.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return root / "labels.json"


CASES = {
    "semantic": ("segment", {}, {"mode": "semantic"}),
    "upernet": (
        "segment",
        {"recipe": "semantic", "head.kind": "upernet", "head.options": {"width": 16}},
        {"mode": "semantic"},
    ),
    "masks": ("segment", {"recipe": "masks"}, {"mode": "instance"}),
    "detect": ("detect", {}, {}),
    "promptable": ("segment", {"recipe": "promptable"}, {"points": [(28, 28)]}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_recipe_trains_and_its_model_answers(name, shapes, tiny_vit, session, tmp_path):
    task, changes, asked = CASES[name]
    given = {"loop.epochs": 2, "loop.batch_size": 4, "side": 56, "data.check": False, **changes}
    made = train(shapes, task=task, model=str(tiny_vit), out=tmp_path / "run", set=given, session=session)
    assert made.figures
    assert all(np.isfinite(value) for value in made.figures.values())
    picture = shapes.parent / "3.png"
    found = session.run(request(task, image=picture, **asked), model=str(tmp_path / "run"))
    if len(found):
        assert set(found.data.get("class_name", [])) <= {"square", "disc", "background", ""}
        assert found.mask is None or found.mask.shape[1:] == (56, 56)
        assert (found.confidence <= 1).all()


def test_a_semantic_head_learns_which_pixel_is_what(shapes, tiny_vit, session, tmp_path):
    given = {"loop.epochs": 25, "loop.batch_size": 4, "side": 56, "optimiser.lr": 0.02}
    made = train(shapes, task="segment", model=str(tiny_vit), out=tmp_path / "run", set=given, session=session)
    assert made.figures["miou"] > 0.4  # about 0.2 where all is background
    assert made.figures["pixel_accuracy"] > 0.75
