import numpy as np
import pytest

from manylens.errors import UnsupportedError, WeightsError
from manylens.models import names, ssd, tfgraph
from manylens.models.nms import iou_matrix
from manylens.tasks import DetectRequest

SSD = "manylens/ssd-coco"
SHAPES = [(grid, 3 if level == 0 else 6) for level, grid in enumerate((19, 10, 5, 3, 2, 1))]


def raw(boxes=0.0, scores=-20.0):
    """Predictions of the network that say the same of every anchor."""
    for grid, count in SHAPES:
        yield np.full((1, grid, grid, 4 * count), boxes, np.float32)
        yield np.full((1, grid, grid, 91 * count), scores, np.float32)


def test_anchors_cover_the_picture():
    anchors = ssd.anchors()
    assert anchors.shape == (1917, 4)
    assert anchors[0] == pytest.approx([0.5 / 19, 0.5 / 19, 0.1, 0.1])
    assert anchors[1] == pytest.approx([0.5 / 19, 0.5 / 19, 0.2 / 2**0.5, 0.2 * 2**0.5])
    assert anchors[3] == pytest.approx([0.5 / 19, 1.5 / 19, 0.1, 0.1])  # x runs first
    assert anchors[-6] == pytest.approx([0.5, 0.5, 0.95, 0.95])
    assert anchors[-1] == pytest.approx([0.5, 0.5, 0.95**0.5, 0.95**0.5])


def test_without_offsets_boxes_are_the_anchors():
    boxes, scores = ssd.decode(list(raw()))
    anchors = ssd.anchors()
    assert np.allclose((boxes[:, :2] + boxes[:, 2:]) / 2, anchors[:, [1, 0]], atol=1e-6)
    assert np.allclose(boxes[:, 2:] - boxes[:, :2], anchors[:, [3, 2]], atol=1e-6)
    assert scores.max() < 1e-8


def test_offsets_move_and_stretch():
    outputs = list(raw())
    # The last level has one cell; its first anchor is 0.95 wide and high, around the middle.
    outputs[10][0, 0, 0, :4] = [1.0, -2.0, 5 * np.log(0.5), 5 * np.log(2.0)]
    box = ssd.decode(outputs)[0][1911]
    middle, half = np.array([0.5 - 0.2 * 0.95, 0.5 + 0.1 * 0.95]), np.array([0.95, 0.2375])
    assert box == pytest.approx([*(middle - half), *(middle + half)], abs=1e-6)


@pytest.mark.parametrize(
    ("words", "threshold", "expected"),
    [
        ({17: "cat", 18: "dog"}, 0.5, [("cat", 0.9), ("dog", 0.7)]),
        ({17: "kitty"}, 0.5, [("kitty", 0.9)]),
        ({18: "dog"}, 0.2, [("dog", 0.7), ("dog", 0.3)]),
        ({17: "cat"}, 0.95, []),
        ({1: "person"}, 0.1, []),
    ],
)
def test_selection(words, threshold, expected):
    boxes = np.array([[0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.51], [-0.2, 0.6, 1.3, 0.9]])
    scores = np.zeros((3, 91))
    scores[0, 17], scores[1, 17], scores[1, 18], scores[2, 18] = 0.9, 0.8, 0.7, 0.3
    found = ssd.select(boxes, scores, words, threshold, (200, 100))
    assert [
        (str(n), round(float(s), 3)) for n, s in zip(found.data["class_name"], found.confidence, strict=True)
    ] == expected
    assert found.data["is_thing"].all()
    if len(found) and found.confidence[-1] < 0.5:
        assert found.xyxy[-1].tolist() == [0, 60, 200, 90]  # clipped to the picture


def test_a_name_that_is_no_thing_is_refused_with_a_way_out():
    with pytest.raises(UnsupportedError, match=r"'wombat': the embedded detector knows 80 things"):
        ssd._wanted(["cat", "wombat"])


@pytest.mark.parametrize(("word", "near"), [("kat", "such as cat, "), ("qqqxyzzy", "such as person, cat, car;")])
def test_the_way_out_of_an_unknown_word_is_one_that_works(word, near):
    with pytest.raises(UnsupportedError) as caught:
        ssd._wanted([word])
    assert near in caught.value.remedy
    assert "CIDAS/clipseg-rd64-refined" in caught.value.remedy


def test_names_that_mean_one_thing_are_shown_once_and_said():
    wanted = ssd._wanted(["glass", "cup", "kitten", "cat"])
    by_name = {thing.name: number for number, thing in names.coco_classes().items()}
    assert wanted.words == {by_name["cup"]: "cup", by_name["wine glass"]: "glass", by_name["cat"]: "cat"}
    assert any("only 'cat' is known" in note for note in wanted.notes)
    assert any("'cat' and 'kitten' are both 'cat'" in note for note in wanted.notes)


@pytest.mark.parametrize("content", [b"", b"not a graph at all", b"\x0a\xff\xff\xff\xff\x0fcut", bytes(64)])
def test_a_broken_graph_is_an_error_of_the_weights(tmp_path, content):
    path = tmp_path / "frozen_inference_graph.pb"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"frozen_inference_graph\.pb"):
        tfgraph.build(path, "in", ["out"], 300)


@pytest.mark.weights
@pytest.mark.parametrize(
    ("photograph", "thing", "box"),
    [
        ("cat.jpg", "cat", (8, 0, 410, 297)),
        ("coffee.jpg", "cup", (173, 13, 413, 240)),
        ("astronaut.jpg", "person", (11, 10, 371, 510)),
        ("photographer.jpg", "person", (0, 63, 301, 509)),
    ],
)
def test_photographs_hold_what_they_hold(run, example, photograph, thing, box):
    found = run(SSD, DetectRequest.of(image=example(photograph)))
    assert found.data["class_name"][0] == thing
    assert found.confidence[0] > 0.7
    assert list(found.confidence) == sorted(found.confidence, reverse=True)
    # The boxes of the whole graph, run with its own anchors and suppression.
    assert iou_matrix(found.xyxy[:1].astype(float), np.array([box], float))[0, 0] > 0.97


@pytest.mark.weights
def test_names_choose_and_name_the_detections(run, example):
    notes = []
    found = run(SSD, DetectRequest.of(image=example("cat.jpg"), names=["the kitten", "dog"]), notes=notes)
    assert found.data["class_name"].tolist() == ["the kitten"]
    assert notes == ["'the kitten': only 'cat' is known, so every one counts"]
    assert len(run(SSD, DetectRequest.of(image=example("cat.jpg"), names=["bus"]))) == 0


@pytest.mark.weights
def test_the_threshold_is_the_least_score(run, example):
    low = run(SSD, DetectRequest.of(image=example("coffee.jpg"), threshold=0.1))
    high = run(SSD, DetectRequest.of(image=example("coffee.jpg"), threshold=0.9))
    assert len(low) > len(high) >= 1
    assert low.confidence.min() >= 0.1
    assert high.confidence.min() >= 0.9


@pytest.mark.weights
def test_agrees_with_the_whole_graph(weights, example):
    """The peer is the whole graph as OpenVINO converts it, with its own anchors, decoding and suppression."""
    from manylens.media import Image
    from manylens.runtime.engines import EngineSettings, compile

    path = weights(SSD)["frozen_inference_graph.pb"]
    square = ssd._square(Image.of(example("coffee.jpg")).array)
    boxes, scores = ssd.decode(
        compile(tfgraph.build(path, ssd._SOURCE, ssd._HEADS, ssd.SIDE), EngineSettings())(square)
    )
    corners, classes, chances, count = (output[0] for output in compile(path, EngineSettings())(square))
    assert count >= 3
    found = ssd.select(
        boxes, scores, {number: thing.name for number, thing in names.coco_classes().items()}, 0.3, (1, 1)
    )
    assert found.class_id.tolist() == classes[: len(found)].astype(int).tolist()
    assert found.confidence == pytest.approx(chances[: len(found)], abs=1e-4)
    assert found.xyxy == pytest.approx(corners[: len(found)][:, [1, 0, 3, 2]].clip(0, 1), abs=1e-4)
