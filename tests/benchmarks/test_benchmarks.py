import json

import numpy as np
import pytest
from benchmarks.__main__ import main
from benchmarks._claims import Claim, Options, Outcome, Part, claims
from benchmarks._harness import fresh_home, in_turns, run_module
from benchmarks._pictures import EXAMPLES, crops, iou, regions
from benchmarks.click_quality import anywhere, cuts_counted, interval

KEYS = {"name", "ours", "peer", "unit", "ratio", "goal", "met"}
NAMES = {
    "ap",
    "bootstrap",
    "budget",
    "click",
    "click-quality",
    "cold-start",
    "doctor",
    "embed-folder",
    "frozen-finetune",
    "dino-step",
    "train-memory",
} | {
    "dense-folder",
    "families",
    "gpu-encode",
    "mask-memory",
    "pq",
    "sam-click",
    "sam-encode",
    "sam-everything",
    "second-visit",
}


def outcome(ours=1.0, *, held=True):
    return Outcome([Part("speed", ours, 0.5, "images/s", 2.0, "ratio", "least")], {"the same thing": held})


def fake(found):
    asked = []

    def run(options):
        asked.append(options)
        return found

    return Claim("fake", "fast enough", "What it claims.", run), asked


def test_every_claim_is_found_and_says_what_it_is():
    found = claims()
    assert set(found) == NAMES
    for claim in found.values():
        assert claim.goal
        assert "\n" not in claim.goal
        assert "Peer: " in claim.about
        assert "Measured: " in claim.about


def test_what_cannot_be_measured_here_is_neither_met_nor_missed(capsys):
    claim, _ = fake(Outcome([], unmeasured="no GPU here"))
    assert main(["fake"], {"fake": claim}) == 0
    *_, told, line = capsys.readouterr().out.splitlines()
    assert told == "not measured: no GPU here"
    assert json.loads(line)["met"] is None


def test_no_name_lists_the_claims(capsys):
    claim, asked = fake(outcome())
    assert main([], {"fake": claim, "other": claim}) == 0
    assert capsys.readouterr().out.splitlines() == ["fake   fast enough", "other  fast enough"]
    assert not asked


@pytest.mark.parametrize(("found", "met"), [(outcome(), True), (outcome(0.9), False), (outcome(held=False), False)])
def test_a_run_ends_with_one_json_line(capsys, found, met):
    claim, asked = fake(found)
    assert main(["fake"], {"fake": claim}) == (0 if met else 1)
    out = capsys.readouterr().out
    line = json.loads(out.splitlines()[-1])
    assert line.keys() >= KEYS
    assert (line["name"], line["ours"], line["peer"], line["unit"]) == ("fake", found.parts[0].ours, 0.5, "images/s")
    assert line["ratio"] == pytest.approx(found.parts[0].ours / 0.5)
    assert line["goal"] == "fast enough"
    assert line["met"] is met
    assert out.startswith("What it claims.")
    assert asked == [Options()]


@pytest.mark.parametrize(
    ("words", "named"), [(["nope"], "nope: no such claim"), (["fake", "--data", "nowhere"], "nowhere: ")]
)
def test_what_is_not_there_ends_in_one_line_and_exit_code_2(capsys, words, named):
    claim, asked = fake(outcome())
    assert main(words, {"fake": claim}) == 2
    streams = capsys.readouterr()
    assert not streams.out
    assert streams.err.startswith(named)
    assert streams.err.count("\n") == 1
    assert not asked


def test_the_folder_of_regions_reaches_the_claim():
    claim, asked = fake(outcome())
    main(["fake", "--data", str(EXAMPLES)], {"fake": claim})
    assert asked == [Options(data=EXAMPLES)]


@pytest.mark.parametrize(
    ("part", "met"),
    [
        (Part("a", 0.2, 1.0, "s", 0.2), True),
        (Part("a", 0.21, 1.0, "s", 0.2), False),
        (Part("a", 0.06, None, "IoU", 0.05, best="least"), True),
        (Part("a", 0.04, None, "IoU", 0.05, best="least"), False),
        (Part("a", 10.0, 4.0, "images/s", 2.0, "ratio", "least"), True),
        (Part("a", 10.0, 6.0, "images/s", 2.0, "ratio", "least"), False),
        (Part("a", 10.0, None, "images/s", 2.0, "ratio", "least"), False),
        (Part("a", 9.9, None, "s"), True),
    ],
)
def test_a_goal_is_met(part, met):
    assert part.met is met
    assert part.to_json()["met"] is met


def test_turns_alternate_and_the_first_does_not_count():
    order = []
    times = in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b"] * 4
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}


def test_a_watched_process_says_its_last_line_and_its_memory(tmp_path, monkeypatch):
    (tmp_path / "child.py").write_text(
        "import json, sys, time\n"
        "big = bytearray(200 << 20)\n"
        "big[::4096] = b'x' * len(big[::4096])\n"
        "time.sleep(0.3)\n"
        "print('first')\n"
        "print(json.dumps({'told': json.loads(sys.argv[1])}))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    watched = run_module("child", {"a": 1})
    assert watched.said == {"told": {"a": 1}}
    assert 200 << 20 < watched.peak_rss < 400 << 20


def test_a_watched_process_that_fails_is_not_taken_for_a_result(tmp_path, monkeypatch):
    (tmp_path / "child.py").write_text("raise SystemExit('no weights')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="no weights"):
        run_module("child", {})


def test_a_fresh_home_has_the_weights_but_no_embeddings(tmp_path, monkeypatch):
    from manylens.runtime import paths

    for name in ("weights", "embeddings", "compiled"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kept").touch()
    (tmp_path / "engines.json").write_text("{}")
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path))
    with fresh_home() as home:
        assert paths.home() == home != tmp_path
        assert sorted(path.name for path in home.iterdir()) == ["engines.json", "weights"]
        assert (home / "weights" / "kept").is_file()
    assert paths.home() == tmp_path
    assert (tmp_path / "weights" / "kept").is_file()


def test_crops_differ_from_one_another_and_stay_the_same_by_seed(tmp_path):
    from PIL import Image

    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first, again = crops(tmp_path / "one", 12, seed=3), crops(tmp_path / "two", 12, seed=3)
    contents = [path.read_bytes() for path in first]
    assert len(set(contents)) == 12
    assert contents == [path.read_bytes() for path in again]
    assert {Image.open(path).size for path in first} == {(640, 480)}


def test_own_regions_are_masks_of_their_pictures():
    from PIL import Image

    found = list(regions(None))
    assert len(found) == 8
    for region in found:
        height, width = region.mask.shape
        assert Image.open(region.image).size == (width, height)
        x, y = region.click
        assert region.mask[y - 3 : y + 4, x - 3 : x + 4].all(), "the click is well inside"
        rows, columns = np.nonzero(region.mask)
        assert region.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_regions_of_a_folder_may_be_run_lengths(tmp_path):
    from manylens.media import to_rle

    mask = np.zeros((6, 8), bool)
    mask[2:5, 3:7] = True
    row = {
        "id": 1,
        "image_id": 7,
        "category_id": 1,
        "segmentation": to_rle(mask),
        "bbox": [3, 2, 4, 3],
        "click": [4, 3],
    }
    body = {"images": [{"id": 7, "file_name": "a/b.jpg", "height": 6, "width": 8}], "annotations": [row]}
    (tmp_path / "regions.json").write_text(json.dumps(body))
    (found,) = regions(tmp_path)
    assert found.image == tmp_path / "a" / "b.jpg"
    assert np.array_equal(found.mask, mask)
    assert (found.click, found.box) == ((4, 3), (3, 2, 7, 5))


def test_iou():
    one, other = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert iou(one, other) == 1
    one[:2], other[1:3] = True, True
    assert iou(one, other) == pytest.approx(4 / 12)


def test_an_interval_holds_the_mean_and_narrows_with_more_regions():
    rng = np.random.default_rng(0)
    few, many = rng.normal(0.1, 0.2, 20), rng.normal(0.1, 0.2, 2000)
    for differences in (few, many):
        low, high = interval(differences)
        assert low < differences.mean() < high
    assert np.ptp(interval(many)) < np.ptp(interval(few)) / 4
    assert interval(np.full(9, 0.3)) == pytest.approx((0.3, 0.3))


def test_cuts_of_the_peer_that_fail_are_counted_and_still_fail():
    import cv2

    picture = np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    before = cv2.grabCut
    with cuts_counted() as cuts:
        for whole in (False, True):  # GrabCut refuses a picture without background
            trimap = np.full((20, 20), cv2.GC_PR_FGD, np.uint8)
            trimap[:, : 0 if whole else 10] = cv2.GC_BGD
            models = np.zeros((2, 1, 65))
            arguments = (picture, trimap, None, models[0], models[1], 1, cv2.GC_INIT_WITH_MASK)
            if whole:
                with pytest.raises(cv2.error):
                    cv2.grabCut(*arguments)
            else:
                cv2.grabCut(*arguments)
    assert cuts == {"ran": 1, "failed": 1}
    assert cv2.grabCut is before


def test_a_point_anywhere_lies_inside_and_off_the_boundary_where_there_is_room():
    wide, thin = np.zeros((40, 60), bool), np.zeros((40, 60), bool)
    wide[10:30, 20:50], thin[5, 3:9] = True, True
    rng = np.random.default_rng(0)
    points = {anywhere(wide, rng) for _ in range(50)}
    assert len(points) > 20
    assert all(24 <= x < 46 and 14 <= y < 26 for x, y in points)
    x, y = anywhere(thin, rng)
    assert thin[int(y), int(x)]
