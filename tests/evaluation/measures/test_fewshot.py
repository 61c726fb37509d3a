"""The few-shot protocols: folds as published, episodes by seed, figures against sums written out here."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens import models
from manylens.data.problems import DataError, Problems
from manylens.data.records import Record
from manylens.errors import UnsupportedError
from manylens.evaluation.measures.fewshot import FewShotTally, Protocol, episodes, run
from manylens.evaluation.tally import Tally, Units
from manylens.media import from_rle
from tests.evaluation import scripted
from tests.evaluation.scripted import Scripted, annotation, answered, record, rectangle

SIZE = (40, 30)
LIKE = "segment = ['like']"
TWO = Protocol("two", (("cat", "dog"), ("cow",)), "pictures")


class TestProtocols:
    @pytest.mark.parametrize(
        ("name", "fold", "first", "last"),
        [
            ("PASCAL-5i", 0, ["aeroplane", "bicycle", "bird", "boat", "bottle"], "bottle"),
            ("pascal-5I", 3, ["pottedplant", "sheep", "sofa"], "tvmonitor"),
            ("COCO-20i", 0, ["person", "airplane", "boat", "parking meter", "dog"], "scissors"),
            ("COCO-20i", 3, ["motorcycle", "truck", "stop sign", "cat", "cow"], "toothbrush"),
        ],
    )
    def test_folds_are_those_of_the_papers(self, name, fold, first, last):
        protocol = Protocol.of(name)
        assert list(protocol.folds[fold][: len(first)]) == first
        assert protocol.folds[fold][-1] == last
        assert len(protocol.folds) == 4
        everything = [name for classes in protocol.folds for name in classes]
        assert len(everything) == len(set(everything)) == {"p": 20, "c": 80}[name[0].lower()]

    def test_the_classes_of_fss_are_given_or_those_of_the_data(self):
        assert Protocol.of("FSS-1000").folds == ((),)
        assert Protocol.of("FSS-1000", ["ab_wheel", "yorkie"]).folds == (("ab_wheel", "yorkie"),)

    @pytest.mark.parametrize(("name", "classes"), [("PASCAL-6i", None), ("COCO-20i", ["a", "b"])])
    def test_others_are_one_line(self, name, classes):
        with pytest.raises(DataError, match=r"no such few-shot protocol; name one of|do not fill 4 folds"):
            Protocol.of(name, classes)


@pytest.fixture
def dataset(tmp_path):
    """Six cats (one in two pieces), three dogs, two cows; one picture holds a cat and a dog."""
    rng = np.random.default_rng(5)
    made = []
    for i in range(10):
        x, y = (int(v) for v in rng.integers(0, 15, 2))
        mask = rectangle(SIZE, (x, y, x + 6 + i, y + 12))
        name = "cat" if i < 6 else "dog" if i < 8 else "cow"
        shown = [annotation(f"a{i}", mask, name)]
        if i == 0:
            shown += [annotation("a0b", rectangle(SIZE, (30, 0, 38, 5)), "cat"), annotation("a0c", mask, "dog")]
        made.append(record(tmp_path, f"p{i}", *shown, columns={"site": i % 2}))
    return made


class TestEpisodes:
    @pytest.mark.parametrize("draw", ["pictures", "classes"])
    @pytest.mark.parametrize("shots", [1, 2])
    def test_support_shows_the_class_and_never_the_query(self, dataset, draw, shots):
        drawn = episodes(dataset, replace(TWO, draw=draw), fold=0, shots=shots, count=40)
        assert len(drawn) == len({episode.id for episode in drawn}) == 40
        assert {episode.category for episode in drawn} == {"cat", "dog"}
        for episode in drawn:
            pictures = [episode.query.id, *(record.id for record in episode.support)]
            assert len(set(pictures)) == shots + 1
            for shown in (episode.query, *episode.support):
                assert episode.category in {one.category for one in shown.annotations}

    def test_every_picture_of_every_class_is_the_query_once(self, dataset):
        drawn = episodes(dataset, TWO, fold=0, count=9)
        assert len({(episode.category, episode.query.id) for episode in drawn}) == 9  # 6 cats and 3 dogs

    def test_the_seed_decides_and_nothing_else(self, dataset):
        ids = [[e.id, *(s.id for s in e.support)] for e in episodes(dataset, TWO, count=20, seed=3)]
        again = [[e.id, *(s.id for s in e.support)] for e in episodes(iter(dataset[::-1]), TWO, count=20, seed=3)]
        other = [[e.id, *(s.id for s in e.support)] for e in episodes(dataset, TWO, count=20, seed=4)]
        assert ids == again
        assert ids != other
        assert [e.id for e in episodes(dataset, TWO, fold=1, count=5, seed=3)] == [row[0] for row in ids[20:25]]

    def test_a_class_with_too_few_pictures_is_told_and_a_fold_without_any_is_an_error(self, dataset):
        problems = Problems()
        drawn = episodes(dataset, TWO, fold=0, shots=3, count=5, problems=problems)
        assert {episode.category for episode in drawn} == {"cat"}
        assert [(p.kind, p.id) for p in problems] == [("too few pictures", "dog")]
        with pytest.raises(DataError, match="no class of fold 1 has 4 pictures"):
            episodes(dataset, TWO, fold=1, shots=3)
        with pytest.raises(DataError, match="fold 2: two has folds 0 to 1"):
            episodes(dataset, TWO, fold=2)

    def test_a_label_of_the_picture_names_its_mask(self, tmp_path):
        made = [
            record(tmp_path, f"p{i}", annotation(f"a{i}", rectangle(SIZE, (0, 0, 5, 5))), label="wheel")
            for i in range(2)
        ]
        (episode,) = episodes(made, Protocol.of("FSS-1000"), count=1)
        assert episode.category == "wheel"


def halves(request):
    """The left half of the picture, and a part of it that must not count."""
    full = rectangle(SIZE, (0, 0, 20, 30))
    found = answered([[full, rectangle(SIZE, (0, 0, 40, 30))]], SIZE)
    found.data["level"] = np.array(["whole", "part"])
    return found


@pytest.fixture
def session(make_session, monkeypatch):
    monkeypatch.setitem(models.FAMILIES, "scripted", scripted.FAMILY)
    Scripted.answer, Scripted.asked = staticmethod(halves), []
    return make_session(scripted.row(tasks=LIKE))


def truth_of(record: Record, name: str) -> np.ndarray:
    return np.any([from_rle(one.mask) for one in record.annotations if one.category == name], axis=0)


def test_figures_are_sums_over_classes_and_folds(session, dataset):
    tally = run(dataset, session, problems=Problems(), protocol=TWO, count=7, seed=1, columns=["site"])
    drawn = episodes(dataset, TWO, count=7, seed=1)
    found = rectangle(SIZE, (0, 0, 20, 30))
    by_class, by_fold = {}, {}
    for episode in drawn:
        truth = truth_of(episode.query, episode.category)
        fore = ((found & truth).sum(), (found | truth).sum())
        back = ((~found & ~truth).sum(), (~found | ~truth).sum())
        by_class.setdefault(episode.category, []).append(fore)
        by_fold.setdefault(episode.fold, []).append((*fore, *back))
    ious = {name: np.sum(rows, 0)[0] / np.sum(rows, 0)[1] for name, rows in by_class.items()}
    both = [(s[0] / s[1] + s[2] / s[3]) / 2 for s in (np.sum(rows, 0) for rows in by_fold.values())]
    expected = {"mIoU": np.mean(list(ious.values())), "FB-IoU": np.mean(both)}
    assert tally.all() == pytest.approx(expected | {f"IoU/{name}": value for name, value in ious.items()})
    assert tally.units.clusters == [episode.query.id for episode in drawn]
    assert set(tally.units.columns) == {"site", "class", "fold", "size"}
    assert tally.units.columns["fold"] == [0] * 7 + [1] * 7


def test_classes_may_be_listed(session, dataset):
    tally = run(dataset, session, problems=Problems(), protocol="FSS-1000", classes=["cow", "dog"], count=5)
    assert set(tally.units.columns["class"]) == {"cow", "dog"}


def test_the_model_sees_pictures_masks_and_names(session, dataset):
    run(dataset, session, problems=Problems(), protocol=TWO, fold=0, shots=2, count=3)
    for asked, episode in zip(Scripted.asked, episodes(dataset, TWO, fold=0, shots=2, count=3), strict=True):
        assert asked.image.id == episode.query.image().id
        assert [example.name for example in asked.like] == [episode.category] * 2
        for example, shown in zip(asked.like, episode.support, strict=True):
            assert example.image.id == shown.image().id
            assert (example.mask == truth_of(shown, episode.category)).all()


@pytest.mark.parametrize("perfect", [True, False])
def test_a_perfect_model_scores_1_and_an_empty_one_0(session, dataset, perfect):
    truths = iter([truth_of(e.query, e.category) for e in episodes(dataset, TWO, count=5)])
    Scripted.answer = staticmethod(lambda request: answered([[next(truths)] if perfect else []], SIZE))
    figures = run(dataset, session, problems=Problems(), protocol=TWO, count=5).all()
    assert figures["mIoU"] == figures["IoU/cat"] == perfect
    assert (figures["FB-IoU"] == 1) == perfect


def test_pixels_that_are_not_judged_do_not_count(session, tmp_path):
    edge = annotation("e", rectangle(SIZE, (10, 0, 20, 30)), ignore=True)
    made = [
        record(tmp_path, f"p{i}", annotation(f"a{i}", rectangle(SIZE, (0, 0, 10, 30)), "cat"), edge) for i in range(2)
    ]
    figures = run(made, session, problems=Problems(), protocol=Protocol.of("FSS-1000"), count=2).all()
    assert figures == {"mIoU": 1, "FB-IoU": 1, "IoU/cat": 1}


def test_no_model_for_examples_is_said_once_and_ends_the_run(make_session, session, dataset):
    problems = Problems()
    with pytest.raises(UnsupportedError, match="segment with like: no embedded model does this yet"):
        run(dataset, make_session(scripted.row()), problems=problems, protocol=TWO, count=5)
    assert not len(problems)


def test_what_fails_is_told_and_what_is_done_stays(session, dataset, tmp_path):
    kept, problems = {}, Problems()

    def fragile(request):
        if any((example.mask == truth_of(dataset[6], "dog")).all() for example in request.like):
            raise ValueError("it broke")
        return halves(request)

    Scripted.answer = staticmethod(fragile)
    broken = [replace(dataset[1], path=tmp_path / "gone.png") if one is dataset[1] else one for one in dataset]
    tally = run(broken, session, problems=problems, protocol=TWO, count=9, on_unit=kept.__setitem__)
    kinds = [p.kind for p in problems]
    assert kinds.count("bad episode") + kinds.count("model failed") == 18 - len(tally.units)
    assert {"bad episode", "model failed"} <= set(kinds)
    assert list(kept) == list(tally.units.ids)
    Scripted.asked.clear()
    again = run(broken, None, problems=Problems(), protocol=TWO, count=9, done=kept)
    assert again.all() == tally.all()
    assert not Scripted.asked


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 8), st.integers(0, 2**16))
def test_a_weight_is_a_repetition(tmp_path_factory, n, seed):
    rng = np.random.default_rng(seed)
    inner = rng.integers(0, 50, (n, 2))
    areas = np.stack([inner[:, 0], inner[:, 0] + 3, inner[:, 1], inner[:, 1] + 9], axis=1).astype(float)
    category, fold, weights = rng.integers(0, 3, n), rng.integers(0, 2, n), rng.integers(0, 4, n)

    def tally(rows):
        ids = [str(i) for i in range(len(rows))]
        units = Units("episode", ids, ids)
        return FewShotTally(units, areas[rows], category[rows], fold[rows], ["a", "b", "c"])

    weighted = tally(np.arange(n)).figures(np.stack([weights, np.ones(n)]).astype(float))
    plain = tally(rng.permutation(np.repeat(np.arange(n), weights))).all()
    for name, value in plain.items():
        assert weighted[name][0] == pytest.approx(value, nan_ok=True)


def test_a_tally_comes_back_from_its_file(session, dataset, tmp_path):
    tally = run(dataset, session, problems=Problems(), protocol=TWO, count=4)
    loaded = Tally.load(tally.save(tmp_path / "tally.npz"))
    assert loaded.all() == tally.all()
    assert loaded.scores().tolist() == tally.scores().tolist()
