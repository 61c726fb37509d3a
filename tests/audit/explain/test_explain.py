import json

import numpy as np
import pytest

from manylens.audit.explain import METHODS, Options, Target, blackbox, explain, methods_of, task_score
from manylens.audit.explain.explanation import scaled
from manylens.audit.explain.score import members
from manylens.cli import explain as command
from manylens.errors import EngineError, PromptError, UnsupportedError
from manylens.media import Image
from tests.audit.explain.fakes import LABELS, Corner, brightness, picture


@pytest.mark.parametrize(
    ("name", "expected"),
    [("tabby", [0]), ("TABBY ", [0]), ("Egyptian cat", [2]), ("cat", [0, 2]), ("dog", [1])],
)
def test_a_name_stands_for_labels(name, expected):
    assert members(name, LABELS) == expected


@pytest.mark.parametrize(("name", "near"), [("beegle", "beagle"), ("egyptian", "egyptian cat"), ("xyzzy", "leave it")])
def test_an_unknown_label_lists_near_names(name, near):
    with pytest.raises(PromptError, match=f"target '{name}': the model has no such label; .*{near}"):
        members(name, LABELS)


@pytest.mark.parametrize(
    ("task", "target", "expected", "said"),
    [
        ("classify", Target(), lambda b: b, "tabby"),
        ("classify", Target("dog"), lambda b: 0.75 * (1 - b), "dog"),
        ("classify", Target("cat"), lambda b: b + 0.25 * (1 - b), "cat"),
        ("embed", Target(), lambda b: 1.0, "itself"),
        ("embed", Target(other=Image.of(np.zeros((8, 8, 3), np.uint8))), lambda b: np.cos(b), "array"),
        ("detect", Target("lamp"), lambda b: b, "lamp"),
        ("detect", Target(), lambda b: b, "lamp"),
        ("detect", Target(box=(0, 0, 64, 24)), lambda b: b / 2, "lamp"),
        ("match", Target("a lamp"), lambda b: b, "a lamp"),
    ],
)
def test_scores_are_read_off_results(session, task, target, expected, said):
    image = picture()
    score = task_score(session, image, task, target)
    assert score.target == said
    assert score.value == pytest.approx(expected(brightness(image)), abs=1e-5)
    assert score([image]) == pytest.approx([score.value], abs=1e-5)


def test_the_score_of_a_black_picture_falls(session):
    black = Image.of(np.zeros((48, 64, 3), np.uint8))
    for task in ("classify", "detect", "match"):
        score = task_score(session, picture(), task, Target("lamp" if task == "match" else None))
        assert score([black]) == pytest.approx([0])


def test_what_cannot_be_scored_is_refused(session):
    with pytest.raises(UnsupportedError, match="caption: does not end in a score; name one of classify, embed"):
        explain(picture(), "caption", session=session)
    with pytest.raises(PromptError, match="target 'anything': not found in array"):
        explain(Image.of(np.zeros((8, 8, 3), np.uint8)), "detect", session=session)


def test_methods_of_a_model(session):
    assert methods_of(session, "manylens/corner", "classify") == ("occlusion", "rise")
    everything = ("grad-cam", "integrated-gradients", "occlusion", "rise")
    assert methods_of(session, "manylens/open", "classify") == everything
    with pytest.raises(UnsupportedError, match=r"manylens/corner: cannot do grad-cam for classify; .* occlusion, rise"):
        explain(picture(), session=session, method="grad-cam")
    with pytest.raises(UnsupportedError, match=r"manylens/open: cannot do rollout for classify"):
        explain(picture(), session=session, method="rollout", model="manylens/open")
    with pytest.raises(PromptError, match="method 'magic': is none; name one of attention"):
        explain(picture(), session=session, method="magic")


@pytest.mark.parametrize(
    ("model", "method", "signed"),
    [
        ("corner", "rise", False),
        ("corner", "occlusion", True),
        ("open", "grad-cam", False),
        ("open", "integrated-gradients", True),
        ("open", "occlusion", True),
        ("open", "rise", False),
    ],
)
def test_every_method_gives_a_map_of_the_picture_strong_where_it_counts(session, tmp_path, model, method, signed):
    image = picture()
    found = explain(
        image, target="tabby", model=f"manylens/{model}", method=method, session=session, options=Options(masks=300)
    )
    assert (found.map.shape, found.map.dtype, found.signed) == ((48, 64), np.float32, signed)
    assert found.map.max() <= 1
    assert found.map.min() >= (-1 if signed else 0)
    strength = np.abs(found.map)
    elsewhere = np.ones(strength.shape, bool)
    elsewhere[:28, :36] = False  # a little beyond the quarter: coarse maps spill over its edge
    if method != "grad-cam":  # which takes the mean of a gradient over all places, so it cannot tell these apart
        assert strength[:24, :32].mean() > 3 * strength[elsewhere].mean()
    assert found.score == pytest.approx(brightness(image), abs=1e-5)
    assert found.provenance.model == f"manylens/{model}"
    files = found.save(tmp_path / "new")
    stem = f"array-classify-{method}"
    assert [file.name for file in files] == [f"{stem}.png", f"{stem}-map.npy", f"{stem}.json"]
    assert (np.load(files[1], allow_pickle=False) == found.map).all()
    assert json.loads(files[2].read_text()) == json.loads(json.dumps(found.to_json()))
    assert np.asarray(Image.of(files[0]).array).std() > 5


def test_black_boxes_are_asked_in_batches_and_repeat_with_the_seed(session):
    Corner.most = 0
    options = Options(masks=40, batch=8)
    first, again, other = (
        explain(picture(), method="rise", session=session, options=options, seed=seed) for seed in (1, 1, 2)
    )
    assert Corner.most <= 8
    assert (first.map == again.map).all()
    assert (first.map != other.map).any()


@pytest.mark.parametrize("size", [(640, 480), (1920, 1080), (300, 600)])
def test_occlusion_asks_a_black_box_no_more_than_150_times_and_leaves_no_gap(size):
    shape = blackbox._map_shape(Image.of(np.zeros((size[1], size[0], 3), np.uint8)))
    side = round(min(shape) / 6)
    places = blackbox._places(shape, side, None)
    assert 50 < len(places) <= 150
    seen = np.zeros(shape, bool)
    for y, x in places:
        seen[y : y + side, x : x + side] = True
    assert seen.all()
    assert len(blackbox._places(shape, side, 0.25)) > 150  # as asked


def test_a_slow_black_box_says_before_it_starts_how_long_it_takes(monkeypatch):
    ticks = iter(range(0, 1000, 2))
    monkeypatch.setattr(blackbox, "perf_counter", lambda: next(ticks))
    said = []
    blackbox.rise(
        picture(), lambda images: np.ones(len(images)), Options(masks=60), progress=lambda done, line: said.append(line)
    )
    assert said[0] == "about 60 calls of 2.0 s: 2 min"


@pytest.mark.parametrize(
    ("values", "signed", "expected"),
    [
        ([[2, 2], [2, 2]], False, [[0, 0], [0, 0]]),
        ([[0, 0], [0, 0]], True, [[0, 0], [0, 0]]),
        ([[-3, 1], [0, 3]], True, [[-1, 1 / 3], [0, 1]]),
        ([[5, 6], [7, 9]], False, [[0, 0.25], [0.5, 1]]),
    ],
)
def test_scaled(values, signed, expected):
    assert scaled(np.array(values, np.float32), signed) == pytest.approx(np.array(expected), abs=0.02)


@pytest.mark.parametrize(
    "wrong",
    [{"masks": 0}, {"steps": 0}, {"batch": 0}, {"keep": 0}, {"window": 1.5}, {"discard": 1.0}, {"baseline": "pink"}],
)
def test_options_out_of_range_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(PromptError, match=f"^{name}: "):
        Options(**wrong)


def test_without_captum_the_remedy_is_one_line(session, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "captum", None)
    monkeypatch.setitem(__import__("sys").modules, "captum.attr", None)
    with pytest.raises(EngineError, match=r"captum is not installed.*; run pip install 'manylens\[audit\]'"):
        explain(picture(), model="manylens/open", method="integrated-gradients", session=session)
    assert explain(picture(), model="manylens/open", method="grad-cam", session=session).map.max() == 1


def test_the_command_offers_every_method_and_says_what_it_found(session, monkeypatch, tmp_path, capsys):
    from typing import get_args

    from PIL import Image as Pil

    from manylens.audit.explain import options
    from manylens.cli.app import main

    assert get_args(command.Method) == METHODS
    assert get_args(command.Baseline) == get_args(options.Baseline)
    file = tmp_path / "lamp.png"
    Pil.fromarray(picture().array).save(file)
    monkeypatch.setattr("manylens.session.default_session", lambda: session)
    words = ["explain", str(file), "--target", "cat", "--masks", "20", "--check", "--json", "-o", str(tmp_path)]
    with pytest.raises(SystemExit) as end:
        main(words)
    body = json.loads(capsys.readouterr().out)
    assert (end.value.code, body["method"], body["target"]) == (0, "rise", "cat")
    assert body["faithfulness"]["deletion"]["area"] > 0
    assert "random map" in body["faithfulness"]["verdict"]
    assert len(body["files"]) == 3
    with pytest.raises(SystemExit):
        main(["explain", str(file), "--target", "cat", "--masks", "20", "--check"])
    said = capsys.readouterr()
    assert "the map is " + body["faithfulness"]["verdict"] in said.out
    assert ",  ," not in said.out
    assert "explain: 0 %, check by deletion" in said.err
    with pytest.raises(SystemExit) as end:
        main(["explain", str(file), "--target", "catt"])
    assert end.value.code == 2
    assert "target 'catt': the model has no such label; did you mean cat" in capsys.readouterr().err
