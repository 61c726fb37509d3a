from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers

from manylens.errors import UnsupportedError
from manylens.media import Image
from manylens.session import Session
from manylens.tasks import EmbedRequest
from manylens.training.errors import TrainError
from manylens.training.selfsupervised import folders, opening, towers
from manylens.training.selfsupervised.folders import ScratchOptions
from tests.training.selfsupervised.made_up import KINDS, convolutions, network

TINY = {"size": "vit-tiny", "depth": 1, "side": 32, "patch": 8}
PICTURE = Image.of(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8))


@pytest.fixture
def session(tmp_path):
    with Session(home=tmp_path / "home", engine="torch") as made:
        yield made


@pytest.mark.parametrize("kind", ["dinov2", "vit"])
def test_a_new_network_is_a_model_like_any_other(session, tmp_path, kind):
    folder = folders.scratch(tmp_path / "new", ScratchOptions(kind=kind, **TINY))
    with session.module(str(folder)) as trainable:
        made = opening.tower(trainable)
        assert (made.width, made.depth, made.patch, trainable.side) == (192, 1, 8, 32)
        pixels = trainable.preprocess([PICTURE])
        assert pixels.shape == (1, 3, 32, 32)
        expected = made(pixels).vector[0].detach().numpy()
    found = session.run(EmbedRequest(image=PICTURE), model=str(folder))
    assert found.vector == pytest.approx(expected / np.linalg.norm(expected), abs=1e-4)


@pytest.mark.parametrize("kind", ["dinov2", "vit"])
def test_new_weights_depend_on_the_seed_alone(kind):
    torch.manual_seed(1)
    one = folders.fresh(ScratchOptions(kind=kind, **TINY), seed=3).state_dict()
    state = torch.get_rng_state()
    torch.manual_seed(2)
    other = folders.fresh(ScratchOptions(kind=kind, **TINY), seed=3).state_dict()
    third = folders.fresh(ScratchOptions(kind=kind, **TINY), seed=4).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not all(torch.equal(one[name], third[name]) for name in one)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_network_is_kept_as_it_is(session, tmp_path, kind):
    first = folders.save(network(kind), tmp_path / "first", 32, (0.4,) * 3, (0.3,) * 3)
    with session.module(str(first)) as trainable:
        with torch.no_grad():
            for parameter in trainable.module.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        second = folders.save(trainable, tmp_path / "second", trainable.side)
        changed = trainable.module.state_dict()
    prepared = json.loads((second / "preprocessor_config.json").read_text())
    assert prepared["image_mean"] == pytest.approx([0.4] * 3)
    assert prepared["image_std"] == pytest.approx([0.3] * 3)
    with session.module(str(second)) as trainable:
        assert trainable.mean == pytest.approx((0.4,) * 3)
        loaded = trainable.module.state_dict()
        assert loaded.keys() == changed.keys()
        assert all(torch.equal(loaded[name], changed[name]) for name in loaded)
        pixels = trainable.preprocess([PICTURE])
        expected = trainable.forward(pixels)["vector"][0].detach().numpy()
    cls = getattr(transformers, KINDS[kind][0])
    plain = cls.from_pretrained(second, local_files_only=True).eval()
    assert plain(pixels).last_hidden_state[0, 0].detach().numpy() == pytest.approx(expected, abs=1e-4)
    assert session.run(EmbedRequest(image=PICTURE), model=str(second)).vector == pytest.approx(
        expected / np.linalg.norm(expected), abs=1e-4
    )


def test_of_a_classifier_the_encoder_is_kept(session, tmp_path):
    base = network("dinov2")
    classifier = transformers.Dinov2ForImageClassification(base.config)
    folder = folders.save(classifier, tmp_path / "kept", 32)
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["Dinov2Model"]
    with session.module(str(folder)) as trainable:
        assert type(trainable.module).__name__ == "Dinov2Model"


def test_a_network_that_got_a_mask_token_is_kept_with_it(session, tmp_path):
    for kind in ("vit", "dinov2"):
        model = network(kind, **({"use_mask_token": False} if kind == "dinov2" else {}))
        made = towers.Vit(model)
        made.needs_mask_token()
        folder = folders.save(made, tmp_path / kind, 32)
        with session.module(str(folder)) as trainable:
            assert trainable.module.embeddings.mask_token is not None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": "vit-huge"}, "size 'vit-huge'.*vit-tiny"),
        ({"kind": "swin"}, "kind 'swin'"),
        ({"side": 30, "patch": 8}, "side 30.*give 24"),
    ],
)
def test_what_cannot_be_made_is_said(options, says):
    with pytest.raises(TrainError, match=says):
        folders.fresh(ScratchOptions(**options))


def test_other_networks_are_not_written(tmp_path):
    for what in (convolutions(), convolutions().module, opening.tower(convolutions())):
        with pytest.raises(UnsupportedError, match="is no vision transformer"):
            folders.save(what, tmp_path / "none", 32)
    assert not (tmp_path / "none").exists()


@pytest.mark.weights
def test_the_embedded_encoder_goes_on_as_a_folder(tmp_path):
    """It ends at the block that it is read at; vectors stay near those that it gives today."""
    with Session() as session:
        picture = Image.of(np.asarray(PICTURE.pil().resize((224, 224))))
        with session.module("manylens/vit-s") as trainable:
            before = trainable.forward(trainable.preprocess([picture]))["image"][0].detach().numpy()
            folder = folders.save(trainable, tmp_path / "on", trainable.side)
        with session.module(str(folder)) as trainable:
            assert len(trainable.blocks) == 10
            after = trainable.forward(trainable.preprocess([picture]))["image"][0].detach().numpy()
    assert float(before @ after) > 0.8
