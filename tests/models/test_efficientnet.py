import numpy as np
import pytest

from manylens.errors import UnsupportedError
from manylens.models import imagenet, names
from manylens.tasks import ClassifyRequest, EmbedRequest

LITE3 = "manylens/efficientnet-lite3"


@pytest.mark.weights
@pytest.mark.parametrize(
    ("photograph", "everyday"),
    [("cat.jpg", "cat"), ("coffee.jpg", "coffee cup"), ("photographer.jpg", "tripod"), ("sign.png", "street sign")],
)
def test_photographs_are_what_they_show(run, example, photograph, everyday):
    found = run(LITE3, ClassifyRequest.of(image=example(photograph), top=3))
    assert names.everyday(found.best.name) == everyday
    assert len(found.labels) == 3
    assert found.labels[0].score >= found.labels[1].score >= found.labels[2].score > 0
    assert sum(label.score for label in found.labels) <= 1


@pytest.mark.weights
@pytest.mark.parametrize(
    ("photograph", "choices", "best"),
    [
        ("cat.jpg", ["dog", "cat", "car"], "cat"),
        ("cat.jpg", ["canine", "feline"], "feline"),
        ("cat.jpg", ["a vehicle", "an animal"], "an animal"),
        ("coffee.jpg", ["tea", "coffee", "soup"], "coffee"),
        ("coffee.jpg", ["animal", "drink"], "drink"),
        ("rocket.jpg", ["animal", "spaceship", "food"], "spaceship"),  # hundreds of animals must not win by number
        ("sign.png", ["signpost", "dog", "guitar"], "signpost"),  # no label is called so: by likeness of words
    ],
)
def test_names_to_choose_from(run, example, photograph, choices, best):
    found = run(LITE3, ClassifyRequest.of(image=example(photograph), names=choices))
    assert found.best.name == best
    assert {label.name for label in found.labels} == set(choices)
    assert sum(label.score for label in found.labels) == pytest.approx(1)


@pytest.mark.weights
def test_what_the_names_cannot_say_is_said(run, example):
    notes = []
    found = run(LITE3, ClassifyRequest.of(image=example("cat.jpg"), names=["dog", "happiness", "drum"]), notes=notes)
    assert any("'happiness': no label of this model is like it" in note for note in notes)
    assert (found.labels[-1].name, found.labels[-1].score) == ("happiness", 0)  # last, though given before "drum"
    assert sum(label.score for label in found.labels) == pytest.approx(1)
    run(LITE3, ClassifyRequest.of(image=example("cat.jpg"), names=["spaceship"]), notes=notes)
    assert any("none of the given names fits" in note for note in notes)


@pytest.mark.weights
def test_names_of_which_none_is_known_are_refused(run, example):
    with pytest.raises(UnsupportedError, match="'happiness', 'sadness': the model knows none of them"):
        run(LITE3, ClassifyRequest.of(image=example("cat.jpg"), names=["happiness", "sadness"]))


@pytest.mark.weights
def test_the_kept_vectors_are_those_of_the_text_encoder(run):
    space, vectors = imagenet.label_vectors()
    labels = names._table("imagenet-names.toml")["names"]
    assert vectors.shape == (1000, 384)
    for number in (0, 281, 504, 999):
        fresh = run("manylens/minilm", EmbedRequest.of(text=labels[number]))
        assert fresh.space == space
        assert fresh.vector @ vectors[number] == pytest.approx(1, abs=1e-3)


@pytest.mark.weights
def test_the_kept_names_are_those_of_the_label_file(weights):
    lines = weights(LITE3)["efficientnet_labels.txt"].read_text().splitlines()
    assert [line.split(",")[0].strip() for line in lines] == names._table("imagenet-names.toml")["names"]


@pytest.mark.weights
@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1)])
def test_odd_pictures_work(run, shape):
    found = run(LITE3, ClassifyRequest.of(image=np.zeros((*shape, 3), np.uint8)))
    assert len(found.labels) == 5
