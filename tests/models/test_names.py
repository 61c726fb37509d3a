from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.models import names


def label_lines() -> list[str]:
    return names._table("imagenet-names.toml")["names"]


@pytest.fixture(scope="module")
def imagenet() -> names.ImageNet:
    return names.imagenet(label_lines())


@pytest.mark.parametrize(
    ("phrase", "classes", "kind", "ignored"),
    [
        ("cat", ["cat"], "same", []),
        ("Cats", ["cat"], "same", []),
        ("the cat", ["cat"], "same", []),
        ("two dogs", ["dog"], "same", []),
        ("3 dogs", ["dog"], "same", []),
        ("kitten", ["cat"], "narrower", []),
        ("tabby", ["cat"], "narrower", []),
        ("men", ["person"], "narrower", []),
        ("people", ["person"], "same", []),
        ("astronaut", ["person"], "narrower", []),
        ("telly", ["tv"], "same", []),
        ("mug", ["cup"], "narrower", []),
        ("sofas", ["couch"], "same", []),
        ("bikes", ["bicycle"], "same", []),
        ("knives", ["knife"], "same", []),
        ("mice", ["mouse"], "same", []),
        ("buses", ["bus"], "same", []),
        ("puppies", ["dog"], "narrower", []),
        ("hot dog", ["hot dog"], "same", []),
        ("skis", ["skis"], "same", []),
        ("scissors", ["scissors"], "same", []),
        ("wine glasses", ["wine glass"], "same", []),
        ("the black cat", ["cat"], "same", ["black"]),
        ("red sports cars", ["car"], "narrower", ["red"]),
        ("man with a hat", ["person"], "narrower", ["with", "hat"]),
        ("the cat on the sofa", ["cat"], "same", ["on", "sofa"]),
        ("slice of pizza", ["pizza"], "narrower", []),
        ("a large slice of pizza", ["pizza"], "narrower", ["large"]),
        ("fruit", ["banana", "apple", "orange"], "broader", []),
    ],
)
def test_phrases_lead_to_coco(phrase, classes, kind, ignored):
    found = names.coco().find(phrase)
    assert found == names.Meaning(phrase, tuple(classes), kind, tuple(ignored))


@pytest.mark.parametrize(
    "phrase", ["wombat", "rocket", "koala bear", "glasses", "", "the", "?", "cat food dispenser", "moon over a boat"]
)
def test_what_is_no_thing_of_coco_is_not_guessed(phrase):
    assert names.coco().find(phrase) is None


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("elefant", "elephant"), ("kat", "cat"), ("dgo", "dog"), ("buss", "bus"), ("bannana", "banana")],
)
def test_a_misspelt_word_has_its_neighbours(typed, meant):
    assert names.coco().nearest(typed)[0] == meant


def test_what_is_like_no_word_has_no_neighbours():
    assert names.coco().nearest("qqqxyzzy") == []


@pytest.mark.parametrize(
    ("phrase", "words"),
    [
        ("kitten", "only 'cat' is known"),
        ("black cat", "'black' was ignored"),
        ("black kitten", "only 'cat' is known"),
        ("black kitten", "'black' was ignored"),
        ("cat", None),
        ("animal", None),
    ],
)
def test_the_note_says_what_the_detector_cannot_tell(phrase, words):
    note = names.coco().find(phrase).note
    assert note is None if words is None else words in note


def test_coco_has_its_80_things_under_their_90_numbers():
    classes = names.coco_classes()
    assert len(classes) == 80
    assert set(range(1, 91)) - set(classes) == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    assert (classes[1].name, classes[17].name, classes[62].name, classes[90].name) == (
        "person", "cat", "chair", "toothbrush",
    )  # fmt: skip
    assert {thing.supercategory for thing in classes.values()} == {
        "person", "vehicle", "outdoor", "animal", "accessory", "sports", "kitchen", "food", "furniture", "electronic",
        "appliance", "indoor",
    }  # fmt: skip


def test_every_word_of_the_coco_table_leads_to_its_own_class():
    table = names._table("coco.toml")
    known = {row["name"] for row in table["class"]}
    for row in table["class"]:
        for word in (row["name"], *row.get("same", ())):
            assert names.coco().find(word).classes == (row["name"],), word
    for word in names.coco().words:
        found = names.coco().find(word)
        assert set(found.classes) <= known, word
        assert not found.ignored, word


@pytest.mark.parametrize("name", ["coco.toml", "imagenet.toml", "words.toml", "imagenet-names.toml"])
def test_tables_are_inside_the_package(name):
    assert resources.files("manylens.models.data").joinpath(name).is_file()


@pytest.mark.parametrize(
    ("group", "inside", "outside"),
    [
        ("cat", ["tabby", "tiger cat", "Persian cat", "Egyptian cat"], ["cougar", "lynx", "Mexican hairless"]),
        ("dog", ["Chihuahua", "golden retriever", "Mexican hairless"], ["timber wolf", "dingo", "sea lion"]),
        ("bird", ["cock", "robin", "macaw", "drake", "king penguin", "albatross"], ["tusker", "jellyfish", "axolotl"]),
        ("snake", ["thunder snake", "sidewinder"], ["trilobite", "triceratops"]),
        ("fish", ["tench", "stingray", "puffer"], ["cock", "jellyfish"]),
        ("monkey", ["guenon", "squirrel monkey"], ["gibbon", "indri"]),
        ("insect", ["tiger beetle", "lycaenid"], ["cheetah", "starfish", "centipede"]),
        ("boat", ["canoe", "yawl", "speedboat"], ["submarine", "bobsled"]),
        ("car", ["convertible", "minivan", "sports car", "cab"], ["car wheel", "freight car", "school bus"]),
        ("fruit", ["Granny Smith", "banana", "pomegranate"], ["hay", "bell pepper", "acorn"]),
        ("musical instrument", ["accordion", "violin", "trombone", "harp"], ["drumstick", "guillotine"]),
        ("food", ["guacamole", "pizza", "corn"], ["menu", "alp"]),
        ("clothing", ["abaya", "jersey", "Windsor tie"], ["window screen", "shield"]),
    ],
)  # fmt: skip
def test_groups_of_imagenet_hold_the_right_labels(imagenet, group, inside, outside):
    numbers, _ = imagenet.members(group)
    held = {imagenet.labels[number] for number in numbers}
    everything = set(imagenet.labels)
    assert set(inside) <= held
    assert set(outside) <= everything, "these are no labels"
    assert not set(outside) & held


def test_dogs_are_all_118_breeds(imagenet):
    assert len(imagenet.members("dogs")[0]) == 118


def test_labels_are_told_apart(imagenet):
    twice = {label for label in imagenet.labels if imagenet.labels.count(label) > 1}
    assert not twice


def test_a_word_of_two_labels_means_both(imagenet):
    numbers, _ = imagenet.members("crane")
    assert [imagenet.labels[number] for number in numbers] == ["crane (bird)", "crane (machine)"]


@pytest.mark.parametrize(
    ("label", "word"),
    [
        ("tiger cat", "cat"),
        ("tabby, tabby cat", "cat"),
        ("golden retriever", "dog"),
        ("hen", "chicken"),
        ("great grey owl", "owl"),
        ("crane (bird)", "bird"),
        ("sports car", "car"),
        ("espresso", "coffee cup"),
        ("zebra", "zebra"),
        ("sundial", "sundial"),
    ],
)
def test_everyday_names(label, word):
    assert names.everyday(label) == word


@given(st.text())
def test_any_text_is_either_understood_or_not(text):
    found = names.coco().find(text)
    assert found is None or found.classes


@given(st.sampled_from(names.coco().words), st.sampled_from(["the ", "a ", "my ", "those two ", "12 "]))
def test_determiners_change_nothing(word, determiner):
    assert names.coco().find(determiner + word).classes == names.coco().find(word).classes
