"""A segmenter adapts to pictures without labels whose look is another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from manylens.training.domain.norms import norm_parameters
from tests.training.recipes.kit import data, draws, fit, judge, step

IGNORED = -100


@pytest.fixture
def darker(tmp_path):
    """The pictures to learn from, darker and reddish, without labels; called once they are there."""

    def made():
        root = tmp_path / "darker"
        root.mkdir()
        for path in sorted(tmp_path.glob("*.png")):
            pixels = np.asarray(Image.open(path)).astype(np.float32) * (0.7, 0.4, 0.3)
            Image.fromarray(pixels.astype(np.uint8)).save(root / path.name)
        return str(root)

    return made


KINDS = {
    "coral": {"head__kind": "upernet"},
    "dann": {"head__kind": "upernet"},
    "self-training": {"domain__confidence": 0.34},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_target_is_part_of_the_loss(kind, recipe, darker, tmp_path):
    found = data(tmp_path)
    with recipe("semantic", found, domain__kind=kind, data__target=darker(), **KINDS[kind]) as one:
        fit(one, steps=10)
        one.before_epoch(step(0.5, epoch=2))
        shown = one.train_source().__getitems__(draws(0, 1))
        losses = one.loss(shown, step(0.5, epoch=2))
        assert float(losses["loss"].detach()) == pytest.approx(
            float(losses["task"]) + float(losses["domain"].detach()), rel=1e-5
        )
        one.network.zero_grad()
        losses["domain"].backward()
        assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in one.head.parameters())


def test_pseudo_labels_are_what_the_model_is_surest_of(recipe, darker, tmp_path):
    found = data(tmp_path)
    changes = {"domain__kind": "self-training", "domain__confidence": 0.34}
    with recipe("semantic", found, data__target=darker(), **changes) as one:
        fit(one, steps=20)
        adapting = one._adapting
        one.before_epoch(step(0.0, epoch=0))
        assert adapting._labels is None
        one.network.train()  # as it is between epochs; labels are drawn as the model will answer
        one.before_epoch(step(0.5, epoch=2))
        labels = adapting._labels
        one.network.eval()
        with torch.no_grad():
            said = torch.cat([one.of_embedded(one.embedded(batch)) for batch in adapting.batches()]).softmax(dim=1)
        assert labels.shape == (len(said), *said.shape[2:])
        sure = labels != IGNORED
        assert 0.05 < sure.mean() < 0.6
        top = said.amax(dim=1).numpy()
        for number in np.unique(labels[sure]):
            mine = labels == number
            others = ~sure & (said.argmax(dim=1).numpy() == number)
            assert top[mine].min() >= top[others].max() - 1e-6


def test_norms_of_the_head_take_the_targets_statistics_where_the_encoder_is_frozen(recipe, darker, tmp_path):
    found = data(tmp_path)
    with recipe("semantic", found, domain__kind="adabn", data__target=darker()) as one:
        fit(one, steps=10)
        before = one.head.norm.running_mean.clone()
        one.finish()
        maps = torch.cat([batch["features"]["dense"] for batch in one._adapting.batches()]).float()
        wanted = maps.flatten(0, 2)
        torch.testing.assert_close(one.head.norm.running_mean, wanted.mean(dim=0), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(one.head.norm.running_var, wanted.var(dim=0), rtol=1e-3, atol=1e-4)
        assert not torch.allclose(before, one.head.norm.running_mean, atol=1e-3)
        assert any("adabn: 1 batch norms" in line for line in one.said)
        assert judge(one)["miou"] > 0


def test_entropy_is_stepped_down_by_the_norms_alone(recipe, darker, tmp_path):
    found = data(tmp_path)
    with recipe("semantic", found, domain__kind="tent", data__target=darker(), head__kind="upernet") as one:
        fit(one, steps=10)
        before = {name: weight.clone() for name, weight in one.head.state_dict().items()}
        one.finish()
        changed = {name for name, weight in one.head.state_dict().items() if not torch.equal(weight, before[name])}
        assert changed
        assert changed <= norm_parameters(one.head).keys()
        line = next(line for line in one.said if line.startswith("tent"))
        first, after = (float(word) for word in line.replace(",", "").split() if word.replace(".", "").isdigit())
        assert after < first
