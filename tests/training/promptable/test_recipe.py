"""From pictures with masks to a model that is clicked on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from safetensors.torch import load_file

from manylens.catalog import Catalog, WeightsStore
from manylens.data import Dataset
from manylens.data.records import Category, Record
from manylens.errors import PromptError
from manylens.media import Image
from manylens.models.adapted.picture import square
from manylens.models.adapted.promptable import KEYS, PICTURE, AdaptedPromptable
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.tasks import SegmentRequest
from manylens.training.errors import TrainError
from manylens.training.promptable.asking import options_of, split_options
from manylens.training.recipes.promptable import Promptable
from manylens.training.run import train

SMALL = {
    "recipe": "promptable",
    "side": 56,
    "loop.epochs": 2,
    "loop.batch_size": 4,
    "head.options.width": 32,
    "head.options.heads": 4,
    "head.options.hidden": 48,
    "head.options.mixing": 1,
    "options.clicks": 1,
    "options.refinements": 1,
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def trained(things: Dataset, tiny_vit: Path, session: Any, out: Path, **changes: Any) -> Any:
    given = {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
    return train(things, task="segment", model=str(tiny_vit), out=out, set=given, session=session)


@pytest.fixture
def model(things, tiny_vit, session, tmp_path) -> Path:
    return trained(things, tiny_vit, session, tmp_path / "run").model


def truth(things: Dataset, picture: Path, name: str) -> np.ndarray:
    record = next(one for one in things if one.path == picture)
    return coco.decode(next(one.mask for one in record.annotations if one.category == name)).astype(bool)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def opened(folder: Path, **settings: Any) -> AdaptedPromptable:
    from manylens import models

    row = Catalog.load().resolve(folder)
    made = models.load(row, WeightsStore().ensure(row), EngineSettings(**{"engine": "torch", "threads": 1, **settings}))
    assert isinstance(made, AdaptedPromptable)
    return made


# ------------------------------------------------------------------ the run


def test_it_learns_to_be_clicked_and_the_run_is_a_model(things, tiny_vit, session, tmp_path, picture):
    made = trained(things, tiny_vit, session, tmp_path / "run", loop__epochs=40, optimiser__lr=0.004)
    assert made.figures["click"] > 0.7
    assert made.figures["box"] > 0.7
    assert set(made.figures) >= {"iou", "click", "click_2", "click_3", "best", "box"}
    assert made.history[0]["train/loss"] > made.history[-1]["train/loss"]
    bar = truth(things, picture, "bar")
    y, x = (int(one.mean()) for one in np.nonzero(bar))
    found = session.run(SegmentRequest.of(image=picture, points=[(x, y)]), model=str(tmp_path / "run"))
    assert overlap(found.mask[0], bar) > 0.7
    columns, rows = np.flatnonzero(bar.any(axis=0)), np.flatnonzero(bar.any(axis=1))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    found = session.run(SegmentRequest.of(image=picture, box=box), model=str(tmp_path / "run"))
    assert len(found) == 1
    assert overlap(found.mask[0], bar) > 0.7
    told = json.loads((tmp_path / "run" / "model" / "config.json").read_text())["details"]["everything"]
    assert set(told) == {"pred_iou_thresh", "stability_score_offset", "stability_score_thresh"}
    everything = session.run(SegmentRequest.of(image=picture, mode="everything"), model=str(tmp_path / "run"))
    assert min(everything.confidence) > told["pred_iou_thresh"]
    for name in ("bar", "disc"):
        assert max(overlap(mask, truth(things, picture, name)) for mask in everything.mask) > 0.5


@pytest.mark.parametrize("mode", ["frozen", "full"])
def test_what_learns_is_what_is_written(things, tiny_vit, session, tmp_path, mode, picture):
    made = trained(things, tiny_vit, session, tmp_path / "run", transfer__mode=mode)
    names = load_file(made.model / "model.safetensors")
    assert any(name.startswith("encoder.") for name in names) == (mode == "full")
    assert any(name.startswith("head.mask_decoder.") for name in names)
    found = session.run(SegmentRequest.of(image=picture, points=[(30, 20)]), model=str(made.model))
    assert found.mask.shape[1:] == (56, 72)


def test_views_of_pictures_are_kept_with_their_own_masks(things, tiny_vit, session, tmp_path):
    made = trained(things, tiny_vit, session, tmp_path / "run", augment__policy="flip", augment__views=2)
    assert any("2 view(s)" in note for note in made.notes)


def test_pictures_without_an_object_are_no_reason_to_stop(things, tiny_vit, session, tmp_path):
    records = [*things.select(split="train"), *things.select(split="val")]
    empty = [Record(f"empty{n}", records[n].path, 72, 56, split="train") for n in range(2)]
    data = Dataset.of([*empty, *records], [Category(1, "disc"), Category(2, "bar")], name="some empty")
    made = trained(data, tiny_vit, session, tmp_path / "run", loop__batch_size=1, loop__epochs=1, data__check=False)
    assert np.isfinite(made.history[-1]["train/loss"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"options.clicks": -1}, "options.clicks"),
        ({"options.boxes": 1.5}, "options.boxes"),
        ({"options.objects": 0}, "options.objects"),
        ({"options.focal": "much"}, "options.focal"),
        ({"options.clics": 3}, "clicks"),
    ],
)
def test_options_that_do_not_fit_are_named(things, tiny_vit, session, tmp_path, change, says):
    with pytest.raises(TrainError, match=says):
        train(
            things, task="segment", model=str(tiny_vit), out=tmp_path / "run", set={**SMALL, **change}, session=session
        )


def test_options_are_those_of_the_rounds_and_the_loss():
    most, schedule, weights = split_options({"clicks": 3, "dice": 2.0, "objects": 5, "other": 1})
    assert (most, schedule.clicks, weights.dice) == (5, 3, 2.0)
    assert set(options_of()) >= {"objects", "clicks", "refinements", "boxes", "forget", "focal", "others"}
    assert Promptable.options_of == options_of()


# ------------------------------------------------------------------ the model


def test_engines_agree_and_answer_as_the_head_does(model, picture):
    image = Image.of(picture)
    random = np.random.default_rng(0)
    torch_model, other = opened(model), opened(model, engine="openvino")
    network = torch_model.module()
    scenes = [one.scene(image, Context())[0] for one in (torch_model, other)]
    with torch.no_grad():
        pixels = torch.from_numpy(square(image.array, 56)[None].copy()).permute(0, 3, 1, 2).float() / 255
        embedding = network.head.embed(network.backbone(pixels))
    for scene in scenes:
        np.testing.assert_allclose(scene[PICTURE], embedding.picture.numpy(), atol=2e-4)
        np.testing.assert_allclose(scene[KEYS], embedding.keys.numpy(), atol=2e-4)
    for count, labels in ((1, [1, -1]), (3, [2, 3]), (2, [1, 0, 1, 2, 3]), (2, [])):
        points = random.uniform(0, 56, (count, len(labels), 2)).astype(np.float32)
        kinds = np.tile(np.array(labels, np.int64), (count, 1)).reshape(count, len(labels))
        for masks in (None, random.normal(0, 4, (count, 1, 32, 32)).astype(np.float32)):
            if masks is None and not labels:
                continue
            expected = by_the_head(network, embedding, points, kinds, masks)
            for one, scene in zip((torch_model, other), scenes, strict=True):
                found = one.decoder()(scene, points, kinds, masks)
                np.testing.assert_allclose(found.low_res, expected["masks"], atol=1e-3)
                np.testing.assert_allclose(found.iou, expected["iou"], atol=1e-3)


def by_the_head(network: Any, embedding: Any, points: np.ndarray, labels: np.ndarray, masks: Any) -> dict[str, Any]:
    from manylens.models.adapted.heads.promptable import Prompts

    given = [torch.from_numpy(one) for one in (points, labels)]
    picture = torch.zeros(len(labels), dtype=torch.long)
    prompts = Prompts(*given, picture, None if masks is None else torch.from_numpy(masks))
    with torch.no_grad():
        found = network.head.decode(embedding, (56, 56), prompts)
    return {name: one.numpy() for name, one in found.items()}


def test_a_picture_is_encoded_once_for_all_decoders_of_its_encoder(model, things, tiny_vit, session, tmp_path, picture):
    one, image = opened(model), Image.of(picture)
    ctx = Context()
    assert one.scene(image, ctx)[1] == "miss"
    assert one.scene(image, ctx)[1] == "memory"
    second = trained(things, tiny_vit, session, tmp_path / "second", seed=1).model
    assert opened(second).scene(image, ctx)[1] == "memory"  # another head, the same encoder
    tuned = trained(things, tiny_vit, session, tmp_path / "tuned", transfer__mode="full").model
    assert opened(tuned).scene(image, ctx)[1] == "miss"


def test_prompts_of_all_kinds_are_answered(model, picture, session):
    asked = lambda **prompt: session.run(SegmentRequest.of(image=picture, **prompt), model=str(model))  # noqa: E731
    one = asked(points=[(20, 25)])
    assert len(one) <= 3
    assert list(one.confidence) == sorted(one.confidence, reverse=True)
    several = asked(objects=[{"points": [(20, 25)]}, {"box": (40, 10, 60, 40)}, {"points": [(50, 20), (52, 30)]}])
    assert set(several.data["object"].tolist()) <= {0, 1, 2}
    mask = np.zeros((56, 72), bool)
    mask[10:40, 40:60] = True
    assert len(asked(mask=mask)) <= 1
    refined = asked(points=[(20, 25), (22, 28)], background_points=[(60, 10)], previous=one.metadata["low_res"][0])
    assert len(refined) <= 1
    with pytest.raises(PromptError, match="low_res logits"):
        asked(points=[(20, 25)], previous=np.zeros((5, 5), np.float32))


def test_it_opens_for_training_and_explanation(model, picture):
    found = opened(model).trainable()
    pixels = found.preprocess([Image.of(picture)])
    made = found.forward(pixels)
    assert made["dense"].shape == (1, 8, 8, 24)
    assert "head" in found.parts
    assert found.labels == ()
