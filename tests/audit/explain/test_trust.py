"""Whether maps can be believed: randomised weights must change them, and the score must go where they point."""

import cv2
import numpy as np
import pytest

from manylens.audit.explain import Options, Target, explain, faithfulness, gradients, randomisation, task_score
from manylens.audit.explain.faithfulness import curve
from manylens.audit.explain.saliency import Opened, Saliency
from manylens.audit.explain.sanity import LIMIT, cascade, similarity, spearman, ssim
from manylens.errors import UnsupportedError
from manylens.media import Image
from tests.audit.explain.fakes import brightness, network, picture


def edges(inside, options):
    """No explanation: how strongly the picture's brightness changes. It looks like one and knows no model."""
    grey = cv2.cvtColor(inside.image.array, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return Saliency(np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)))


def opened(seed=0):
    trainable = network(seed)
    return Opened(picture(), trainable, lambda pixels: trainable.forward(pixels)["logits"][:, 0])


def test_gradients_change_with_the_weights_and_an_edge_detector_is_caught():
    changed = cascade(opened(), gradients.integrated_gradients, Options(steps=8))
    assert [stage.part for stage in changed.stages] == ["head", "block.1", "block.0", "the rest"]
    assert changed.passed
    assert abs(changed.stages[-1].spearman) < LIMIT
    caught = cascade(opened(), edges, Options())
    assert not caught.passed
    assert caught.stages[-1].spearman == pytest.approx(1)
    assert caught.to_json()["stages"][-1]["ssim"] == pytest.approx(1)


def test_at_the_end_every_weight_is_random():
    inside = opened()
    learnt = {name: value.clone() for name, value in inside.trainable.module.named_parameters() if value.ndim > 1}
    cascade(inside, edges, Options())
    for name, value in inside.trainable.module.named_parameters():
        if name in learnt:
            assert (value != learnt[name]).float().mean() > 0.99, name


def test_the_test_repeats_with_its_seed():
    first, again = (cascade(opened(), gradients.grad_cam, Options(), seed=4) for _ in range(2))
    assert first == again


def test_the_sessions_own_model_is_not_touched(session):
    before = explain(picture(), model="manylens/open", method="grad-cam", session=session).map
    randomisation(session, picture(), "classify", "grad-cam", model="manylens/open")
    assert (explain(picture(), model="manylens/open", method="grad-cam", session=session).map == before).all()


def test_a_black_box_cannot_be_randomised(session):
    with pytest.raises(UnsupportedError, match="rise: the parameters of manylens/open cannot be randomised for it"):
        randomisation(session, picture(), "classify", "rise", model="manylens/open")


def test_correlations_are_those_of_other_libraries():
    import torch
    from scipy.stats import spearmanr
    from torchmetrics.functional.image import structural_similarity_index_measure

    rng = np.random.default_rng(0)
    one, other = rng.random((2, 40, 40)).astype(np.float32)
    other = 0.5 * one + 0.5 * other
    other[:5] = 0  # ties
    assert spearman(one, other) == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic)
    tensors = [torch.from_numpy(values)[None, None] for values in (one, other)]
    _, whole = structural_similarity_index_measure(*tensors, data_range=1.0, return_full_image=True)
    assert whole.shape[-2:] == (40, 40)
    assert ssim(one, other) == pytest.approx(whole[..., 5:-5, 5:-5].mean().item(), abs=1e-4)
    assert spearman(one, np.zeros_like(one)) == 0
    assert similarity(one, one) == pytest.approx(1)


def scored(images):
    return np.array([brightness(image) for image in images])


def test_curves_by_hand():
    rgb = np.zeros((10, 10, 3), np.uint8)
    rgb[:5, :5] = 255
    image = Image.of(rgb)
    truth = (rgb[..., 0] > 0).astype(np.float32)
    deleted = curve(image, truth, scored, "deletion", baseline="black", steps=4)
    assert deleted.shares == (0, 0.25, 0.5, 0.75, 1)
    assert deleted.scores == (1, 0, 0, 0, 0)
    assert deleted.area == pytest.approx(0.125)
    shown = curve(image, truth, scored, "insertion", baseline="black", steps=4, batch=2)
    assert shown.scores == (0, 1, 1, 1, 1)
    assert curve(image, -truth, scored, "deletion", baseline="black", steps=4).scores == (1, 1, 1, 1, 0)


def test_the_true_map_beats_chance_and_its_opposite_does_not():
    image = picture()
    truth = np.zeros((48, 64), np.float32)
    truth[:24, :32] = 1
    good, bad = faithfulness(image, truth, scored), faithfulness(image, 1 - truth, scored)
    assert good.better_than_random
    assert good.to_json()["verdict"] == "better than a random map"
    assert not bad.better_than_random
    assert bad.to_json()["verdict"] == "no better than a random map: do not trust it"


@pytest.fixture(scope="module")
def real():
    from manylens.session import Session

    with Session() as made:
        yield made


LITE0, VIT = "manylens/efficientnet-lite0", "manylens/vit-s"


@pytest.mark.weights
def test_the_cup_lights_up_for_espresso_and_the_score_goes_with_it(real, examples):
    image = Image.of(examples / "coffee.jpg")
    found = explain(image, model=LITE0, method="grad-cam", session=real)
    assert found.target == "espresso"
    cup = np.zeros((image.height, image.width), bool)
    cup[20:260, 170:410] = True
    assert found.map[cup].mean() > 4 * found.map[~cup].mean()
    score = task_score(real, image, "classify", Target("espresso"), model=LITE0)
    measured = faithfulness(image, found.map, score, steps=10)
    assert measured.better_than_random
    assert measured.deletion.area < 0.7 * measured.random_deletion.area
    assert measured.insertion.area > 1.5 * measured.random_insertion.area


@pytest.mark.weights
def test_the_cats_face_lights_up(real, examples):
    image = Image.of(examples / "cat.jpg")
    found = explain(image, target="cat", model=LITE0, session=real)
    face = np.zeros((image.height, image.width), bool)
    face[50:260, 60:340] = True
    assert found.method == "grad-cam"
    assert found.map[face].mean() > 2 * found.map[~face].mean()


@pytest.mark.weights
def test_real_maps_change_with_the_weights(real, examples):
    image = Image.of(examples / "cat.jpg")
    changed = randomisation(real, image, "classify", "grad-cam", model=LITE0)
    assert changed.passed
    assert changed.stages[-1].spearman < 0.5
    assert changed.stages[-1].ssim < 0.5
    attended = randomisation(real, image, "embed", "attention", model=VIT)
    assert attended.passed
    assert not randomisation(real, image, "embed", edges, model=VIT).passed


@pytest.mark.weights
@pytest.mark.parametrize("method", ["attention", "rollout", "heads", "grad-cam"])
def test_a_transformer_is_explained(real, examples, tmp_path, method):
    found = explain(examples / "cat.jpg", "embed", model=VIT, method=method, session=real)
    assert found.map.shape == (found.image.height, found.image.width)
    assert found.map.max() == 1
    if method in ("attention", "heads"):
        assert found.heads.shape == (6, 16, 16)
        assert any(file.name.endswith("-heads.png") for file in found.save(tmp_path))
