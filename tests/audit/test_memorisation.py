import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageOps
import pytest
from scipy.stats import mannwhitneyu, norm

from manylens import models
from manylens.audit import nearest
from manylens.audit.copies import Look, likeness
from manylens.audit.memorisation import CLOSER, NEAREST, MemorisationTally, Z
from manylens.audit.memorising import memorisation
from manylens.audit.nearest import Neighbours
from manylens.data import Dataset, Record
from manylens.data.problems import DataError
from manylens.errors import CostError, UserError
from manylens.evaluation.comparing import compare
from manylens.evaluation.intervals import estimates
from manylens.evaluation.slices import slice_by
from manylens.evaluation.tally import Units
from manylens.media import Image
from manylens.tasks.results import Embedding
from tests.evaluation.measures.checks import same, survives_a_file
from tests.session.fakes import Fake, row

SIDE = 96


class Layout(Fake):
    """Features that a mirror and brightness change little: the contrast of 6 x 6 cells, and of the mirrored ones."""

    def _answer(self, asked, ctx):
        ctx.spend(1.0)
        cells = np.asarray(asked.image.pil().convert("L").resize((6, 6), PIL.Image.Resampling.BOX), np.float32)
        cells = cells + 0.9 * cells[:, ::-1]
        cells = (cells - cells.mean()).ravel()
        return Embedding(vector=cells / max(float(np.linalg.norm(cells)), 1e-6), space="layout")


@pytest.fixture
def session(make_session, monkeypatch):
    made = make_session(row("a", tasks="embed = ['image']", uses="embed"))
    monkeypatch.setitem(models.FAMILIES, "fake", "tests.audit.test_memorisation:Layout")
    return made


def photo(seed: int) -> PIL.Image.Image:
    """A smooth picture of coloured patches."""
    rough = np.random.default_rng(seed).integers(20, 210, (9, 9, 3)).astype(np.uint8)
    return PIL.Image.fromarray(rough).resize((SIDE, SIDE), PIL.Image.Resampling.BICUBIC)


def save(folder: Path, **pictures: PIL.Image.Image) -> Path:
    folder.mkdir(exist_ok=True)
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.png")
    return folder


CHANGES = {
    "same": lambda one: one,
    "brighter": lambda one: PIL.ImageEnhance.Brightness(one).enhance(1.25),
    "paler": lambda one: PIL.ImageEnhance.Contrast(one).enhance(0.6),
    "mirrored": PIL.ImageOps.mirror,
    "smaller": lambda one: one.resize((50, 40)),
    "mirrored and brighter": lambda one: PIL.ImageEnhance.Brightness(PIL.ImageOps.mirror(one)).enhance(1.2),
    "noisy": lambda one: PIL.Image.fromarray(
        np.clip(np.asarray(one) + np.random.default_rng(0).normal(0, 12, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    ),
}


def look(picture: PIL.Image.Image) -> Look:
    return Look.of(Image.of(np.asarray(picture)))


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_pixels_tell_a_changed_copy(change) -> None:
    for seed in range(5):
        found = likeness(look(change(photo(seed))), look(photo(seed)))
        assert found.copy
        assert found.mirrored == (change in (CHANGES["mirrored"], CHANGES["mirrored and brighter"]))


def test_pixels_take_no_other_picture_for_a_copy() -> None:
    looks = [look(photo(seed)) for seed in range(40)]
    pairs = [likeness(a, b) for i, a in enumerate(looks) for b in looks[:i]]
    assert not any(one.copy for one in pairs)
    assert np.mean([one.distance for one in pairs]) == pytest.approx(1.35, abs=0.1)


def test_flat_pictures_are_told_apart_by_their_grey() -> None:
    grey, same_grey, white = (look(PIL.Image.new("RGB", (30, 30), (v, v, v))) for v in (100, 100, 240))
    assert likeness(grey, same_grey).copy
    assert not likeness(grey, white).copy
    assert not likeness(grey, look(photo(0))).copy


@pytest.mark.parametrize("block", [1, 7, 4096])
def test_neighbours_are_those_of_all_distances(block: int, monkeypatch) -> None:
    monkeypatch.setattr(nearest, "_SEARCHED", block)
    monkeypatch.setattr(nearest, "_QUERIES", max(1, block // 2))
    rng = np.random.default_rng(0)
    queries, searched = (rng.normal(size=(n, 16)).astype(np.float32) for n in (11, 40))
    queries, searched = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (queries, searched))
    searched[30] = searched[5]
    search = Neighbours(queries, 6)
    for vector in searched:
        search.add(vector)
    names = [f"{99 - i}" for i in range(40)]  # of equal distances the first name comes first: the last place
    distances, places = search.found(names)
    right = 1 - queries.astype(float) @ searched.T.astype(float)
    order = np.lexsort((np.broadcast_to(-np.arange(40), right.shape), right.round(6)), axis=1)[:, :6]
    assert places.tolist() == order.tolist()
    assert distances == pytest.approx(np.take_along_axis(right, order, axis=1), abs=2e-6)


def test_fewer_than_asked_for_are_all_of_them_and_lengths_must_fit() -> None:
    search = Neighbours(np.eye(3, dtype=np.float32), 10)
    search.add(np.array([1, 0, 0], np.float32))
    search.add(np.array([0, 1, 0], np.float32))
    distances, places = search.found(["a", "b"])
    assert distances.tolist() == [[0, 1], [0, 1], [1, 1]]
    assert places.tolist() == [[0, 1], [1, 0], [0, 1]]
    with pytest.raises(DataError, match="of 2 and of 3 numbers"):
        search.add(np.zeros(2, np.float32))


# ---------------------------------------------------------------------- the figures


def tally_of(distance, held, **rest) -> MemorisationTally:
    ids = [str(i) for i in range(len(distance))]
    rng = np.random.default_rng(9)
    usual = {
        "ratio": rng.uniform(0.3, 1, len(ids)),
        "copied": np.asarray(distance) < 0.1,
        "other": rng.uniform(0, 1, len(ids)),
        "threshold": float(np.quantile(held, 0.05)) if len(held) else float("nan"),
        "trained": 300,
    }
    columns = {"prompt": ["cat" if i % 2 else "dog" for i in range(len(ids))]}
    units = Units("made picture", ids, ids, columns)
    return MemorisationTally(units, distance=np.asarray(distance), held=np.asarray(held), **{**usual, **rest})


def drawn(count: int = 80, held: int = 60, seed: int = 0) -> MemorisationTally:
    rng = np.random.default_rng(seed)
    return tally_of(rng.uniform(0, 0.9, count).round(2), rng.uniform(0, 1, held).round(2))


def test_the_test_is_that_of_scipy_also_under_whole_weights() -> None:
    tally = drawn()
    counts = np.random.default_rng(1).integers(0, 4, (3, 80))
    found = tally.figures(counts.astype(float))
    for i, count in enumerate(counts):
        made = np.repeat(tally.distance, count)
        right = mannwhitneyu(made, tally.held, use_continuity=False, method="asymptotic")
        assert found[CLOSER][i] == pytest.approx(1 - right.statistic / (len(made) * len(tally.held)))
        assert 2 * norm.sf(abs(found[Z][i])) == pytest.approx(right.pvalue)
        assert (found[Z][i] < 0) == (found[CLOSER][i] > 0.5)


def test_shares_by_hand() -> None:
    tally = tally_of(
        [0.01, 0.2, 0.5, 0.6],
        [0.3, 0.4, 0.7],
        ratio=np.array([0.1, 0.4, 0.5, np.nan]),
        copied=np.array([True, False, False, False]),
        other=np.array([0.5, 0.1, 0.5, 0.9]),
        threshold=0.3,
        trained=9,
    )
    found = tally.figures(np.array([[1.0, 1, 1, 1], [0, 3, 0, 1]]))
    assert found["copies"].tolist() == [0.25, 0]
    assert found["too close"].tolist() == [0.5, 0.75]
    assert found["likenesses"].tolist() == [0.25, 0.75]
    assert found["stand out"].tolist() == [pytest.approx(2 / 3), 1]
    assert found[NEAREST].tolist() == [(1 + 0 + 0.5 + 1) / 4, 0.25]
    assert found[CLOSER].tolist() == [pytest.approx(8 / 12), pytest.approx(10 / 12)]
    assert found["distance"].tolist() == [pytest.approx(1.31 / 4), pytest.approx(0.3)]
    assert tally.chance == 0.75
    assert [tally.kind(i) for i in range(4)] == ["copy", "likeness", "", ""]


def test_a_whole_weight_repeats_a_picture_and_order_does_not_matter(monkeypatch) -> None:
    tally = drawn()
    counts = np.random.default_rng(2).integers(0, 3, 80)
    arrays = ("distance", "ratio", "copied", "other")

    def taken(order) -> MemorisationTally:
        ids = [str(i) for i in range(len(order))]
        return tally.like(
            units=Units("made picture", ids, ids), **{name: getattr(tally, name)[order] for name in arrays}
        )

    repeated = taken(np.repeat(np.arange(80), counts))
    same(tally.figures(counts[None].astype(float)), repeated.figures(np.ones((1, len(repeated.units)))))
    weights, order = np.random.default_rng(3).random((5, 80)), np.random.default_rng(4).permutation(80)
    same(tally.figures(weights), taken(order).figures(weights[:, order]))
    whole = tally.figures(weights)
    monkeypatch.setattr("manylens.audit.memorisation._AT_ONCE", 300)  # two rows at a time
    same(whole, tally.figures(weights))
    nothing = tally.figures(np.zeros((2, 80)))
    assert all(np.isnan(values).all() and values.shape == (2,) for values in nothing.values())


def test_slices_comparisons_intervals_and_files(tmp_path: Path) -> None:
    tally = drawn(200)
    assert [group.units for group in slice_by(tally, "prompt", resamples=50).groups] == [100, 100]
    other = tally.like(distance=tally.distance + 0.05, copied=np.zeros(200, bool))
    assert compare(tally, other, resamples=100).differences["copies"].better == "b"
    share = estimates(tally, resamples=500)["copies"]
    wald = np.sqrt(share.value * (1 - share.value) / 200)
    assert (share.high - share.low) / (2 * 1.96) == pytest.approx(wald, rel=0.2)
    survives_a_file(tally, tmp_path)


# ---------------------------------------------------------------------- the run


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """30 training, 25 held-out, and 24 made pictures of which four are changed copies."""
    train = save(tmp_path / "train", **{f"t{i:02d}": photo(i) for i in range(30)})
    held = save(tmp_path / "held", **{f"h{i:02d}": photo(100 + i) for i in range(25)})
    copies = {
        "copy_bright": CHANGES["brighter"](photo(3)),
        "copy_mirror": CHANGES["mirrored and brighter"](photo(7)),
        "copy_noisy": CHANGES["noisy"](photo(11)),
        "copy_same": photo(29),
    }
    made = save(tmp_path / "made", **copies, **{f"m{i:02d}": photo(200 + i) for i in range(20)})
    (made / "lineage.json").write_text("{}")
    return made, train, held


def test_planted_copies_are_found_and_nothing_else(session, folders) -> None:
    found = memorisation(*folders, session=session, resamples=100)
    copies = {pair.made: (pair.train, pair.mirrored) for pair in found.pairs if pair.kind == "copy"}
    assert copies == {
        "copy_bright.png": ("t03.png", False),
        "copy_mirror.png": ("t07.png", True),
        "copy_noisy.png": ("t11.png", False),
        "copy_same.png": ("t29.png", False),
    }
    assert found.level == "copies"
    assert found.figures["copies"].value == pytest.approx(4 / 24)
    assert found.figures["too close"].value >= 4 / 24
    assert [pair.kind for pair in found.pairs[:4]] == ["copy"] * 4
    assert found.tally.ratio[:4].max() < 0.3
    assert "4 of 24 made pictures are copies of training pictures" in found.verdict
    assert (found.made, found.train, found.model) == ("made", "train", "manylens/a")


def test_ratios_and_distances_are_those_of_the_vectors(session, folders) -> None:
    tally = memorisation(*folders, session=session, resamples=0, neighbours=10).tally
    made, train, held = (
        np.stack([one.vector for one in session.map("embed", sorted(folder.glob("*.png")))]).astype(float)
        for folder in folders
    )
    apart = np.sort(1 - made @ train.T, axis=1)
    assert tally.distance == pytest.approx(apart[:, 0], abs=2e-6)
    assert tally.ratio == pytest.approx(apart[:, 0] / apart[:, 1:11].mean(axis=1), abs=1e-4)
    assert tally.other == pytest.approx((1 - made @ held.T).min(axis=1), abs=2e-6)
    assert tally.held == pytest.approx((1 - held @ train.T).min(axis=1), abs=2e-6)
    assert tally.threshold == pytest.approx(np.quantile(tally.held, 0.05))


def test_unrelated_pictures_give_no_evidence(session, folders, tmp_path: Path) -> None:
    _, train, held = folders
    made = save(tmp_path / "new", **{f"m{i:02d}": photo(300 + i) for i in range(40)})
    found = memorisation(made, train, held, session=session, resamples=100)
    assert found.level == "none"
    assert not found.tally.copied.any()
    assert found.figures[CLOSER].low < 0.5 < found.figures[CLOSER].high
    assert abs(found.figures[Z].value) < 3
    assert found.figures[NEAREST].low < found.tally.chance < found.figures[NEAREST].high


def test_blends_of_training_pictures_are_closer_than_chance_though_no_copies(session, folders, tmp_path: Path) -> None:
    _, train, held = folders
    blends = {f"b{i:02d}": PIL.Image.blend(photo(i), photo(400 + i), 0.45) for i in range(30)}
    found = memorisation(save(tmp_path / "blends", **blends), train, held, session=session, resamples=100)
    assert found.level == "closer"
    assert found.figures[Z].value < -3
    assert "closer to the training pictures than held-out ones do" in found.verdict


def test_the_typical_is_not_taken_for_memorised(session, folders, tmp_path: Path) -> None:
    # Averages lie close to everything: to training and to held-out pictures alike.
    _, train, held = folders
    tally = memorisation(folders[0], train, held, session=session, resamples=10).tally
    central = tally.like(
        distance=np.full(24, 0.01), other=np.where(np.arange(24) % 2, 0.005, 0.02), copied=np.zeros(24, bool)
    )
    found = memorisation(folders[0], train, held, session=session, resamples=10)
    changed = replace(found, tally=central, figures=estimates(central, resamples=100))
    assert changed.figures[Z].value < -3
    assert changed.level == "none"


def test_the_order_of_the_files_changes_nothing(session, folders) -> None:
    made, train, held = folders
    sets = [Dataset.read(folder, format="folders") for folder in (made, train, held)]
    turned = [Dataset.of(list(one)[::-1], name=one.name) for one in sets]
    first, again = (memorisation(*one, session=session, resamples=0) for one in (sets, turned))
    assert first.pairs == again.pairs
    assert {k: v.value for k, v in first.figures.items()} == pytest.approx(
        {k: v.value for k, v in again.figures.items()}
    )


def test_held_out_pictures_that_were_trained_on_are_left_out(session, folders) -> None:
    made, train, held = folders
    save(held, leak=CHANGES["mirrored"](photo(5)))
    found = memorisation(made, train, held, session=session, resamples=0)
    assert found.problems.counts == {"held-out in training": 1}
    assert next(iter(found.problems)).message == (
        "held-out picture leak.png: is training picture t05.png; left out of the control"
    )
    assert len(found.tally.held) == 25


def test_without_a_control_copies_are_found_all_the_same(session, folders) -> None:
    found = memorisation(*folders[:2], session=session, resamples=20)
    assert found.figures["copies"].value == pytest.approx(4 / 24)
    assert CLOSER not in found.figures
    assert any("no held-out pictures were given" in note for note in found.notes)
    json.dumps(found.to_json(), allow_nan=False)


def sketch(seed: int) -> PIL.Image.Image:
    """One of a simple kind: any two agree in most of their pixels, as two drawings of one digit do."""
    return PIL.Image.blend(photo(777), photo(seed), 0.2)


@pytest.mark.parametrize("control", ["held-out", "training"])
def test_pictures_that_are_all_alike_are_no_copies(session, tmp_path: Path, control: str) -> None:
    train = save(tmp_path / "train", **{f"t{i:02d}": sketch(i) for i in range(30)})
    held = save(tmp_path / "held", **{f"h{i:02d}": sketch(100 + i) for i in range(25)})
    made = save(tmp_path / "made", **{f"m{i:02d}": sketch(200 + i) for i in range(25)})
    assert np.mean([likeness(look(sketch(0)), look(sketch(i))).copy for i in range(1, 9)]) > 0.5
    asked = (made, train, held) if control == "held-out" else (made, train)
    found = memorisation(*asked, session=session, resamples=50)
    assert (found.level, found.figures["copies"].value) == ("alike", 0)
    assert found.verdict.startswith("the pictures of this kind are too alike to tell copies (")
    assert f"{control} pictures would pass for one" in found.verdict
    assert not found.problems
    assert found.to_json()["control"]["tells"] is False
    found.save(tmp_path / "out")
    assert 'class="long">The pictures' in (tmp_path / "out" / "memorisation.html").read_text()  # not in red
    save(made, copy=CHANGES["brighter"](sketch(5)))
    again = memorisation(*asked, session=session, resamples=50)
    assert [(pair.made, pair.train) for pair in again.pairs if pair.kind == "copy"] == [("copy.png", "t05.png")]


def test_made_pictures_that_are_held_out_ones_are_said_to_be(session, folders) -> None:
    made, train, held = folders
    save(made, x1=photo(100), x2=photo(101))
    assert any(
        "2 of 26 made pictures are held-out pictures too" in n
        for n in memorisation(made, train, held, session=session, resamples=0).notes
    )
    save(made, x1=CHANGES["brighter"](photo(100)), x2=photo(600))
    assert not any(
        "held-out pictures too" in n for n in memorisation(made, train, held, session=session, resamples=0).notes
    )


def test_few_pictures_are_said_to_be(session, folders, tmp_path: Path) -> None:
    made = save(tmp_path / "few", a=photo(0), b=photo(999))
    found = memorisation(made, folders[1], save(tmp_path / "small", a=photo(998)), session=session, resamples=20)
    said = " ".join(found.notes)
    assert "2 made pictures are few" in said
    assert "1 held-out pictures are few" in said
    assert "30 training pictures are few" in said


def test_one_training_picture_has_no_ratio(session, folders, tmp_path: Path) -> None:
    found = memorisation(folders[0], save(tmp_path / "one", a=photo(3)), session=session, resamples=0)
    assert np.isnan(found.figures["stand out"].value)
    assert found.figures["copies"].value == pytest.approx(1 / 24)


def test_splits_of_one_data_set(session, folders) -> None:
    made, train, held = folders
    records = [
        Record(f"{split}/{one.id}", one.path, split=split)
        for split, folder in (("train", train), ("val", held))
        for one in Dataset.read(folder)
    ]
    data = Dataset.of(records, name="photos")
    parts = memorisation(made, data, train_split="train", held_out_split="val", session=session, resamples=0)
    apart = memorisation(made, train, held, session=session, resamples=0)
    assert parts.figures == apart.figures
    for split in (None, "val"):
        with pytest.raises(DataError, match="held-out split val: is a part of the training data"):
            memorisation(made, data, train_split=split, held_out_split="val", session=session)


def test_pictures_that_cannot_be_read_are_left_out_and_named(session, folders) -> None:
    made, train, held = folders
    (made / "broken.png").write_bytes(b"no picture")
    found = memorisation(made, train, held, session=session, resamples=0)
    assert [problem.id for problem in found.problems] == ["broken.png"]
    assert len(found.tally.units) == 24
    with pytest.raises(DataError, match=r"broken\.png"):
        memorisation(made, train, held, session=session, strict=True)


def test_mistakes(session, folders, tmp_path: Path) -> None:
    made, train, _ = folders
    (tmp_path / "empty").mkdir()
    for source in (("empty", train), (made, "empty")):
        with pytest.raises(DataError, match="empty: no picture is in it"):
            memorisation(*(tmp_path / one for one in source), session=session)
    (tmp_path / "empty" / "x.png").write_bytes(b"none")
    with pytest.raises(DataError, match="empty: no made picture can be read"):
        memorisation(tmp_path / "empty", train, session=session)
    for asked in ({"neighbours": 0}, {"percentile": 0}, {"percentile": 100}):
        with pytest.raises(UserError, match="out of range"):
            memorisation(made, train, session=session, **asked)
    with pytest.raises(CostError):
        memorisation(made, train, session=session, max_cost=5.0)


def test_the_report(session, folders, tmp_path: Path) -> None:
    found = memorisation(*folders, session=session, resamples=20)
    found.save(tmp_path / "out")
    body = json.loads((tmp_path / "out" / "memorisation.json").read_text())
    page = (tmp_path / "out" / "memorisation.html").read_text()
    assert body["figures"]["copies"]["value"] == pytest.approx(4 / 24)
    assert body["pairs"][0]["kind"] == "copy"
    assert page.count("data:image/jpeg") == 2 * len(found.pairs)
    assert page.count(">copy</span>") + page.count(">copy, mirrored</span>") == 4
    assert page.count('class="mark copy"') == 4
    assert "http://" not in page.replace("http://www.w3.org", "")
