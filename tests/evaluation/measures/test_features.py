"""Features through a session: which pictures count, and figures against scikit-learn and by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from manylens import models
from manylens.data.problems import DataError, Problems
from manylens.errors import UnsupportedError
from manylens.evaluation.measures.features import FeaturesTally, run
from manylens.evaluation.tally import Tally, Units
from manylens.tasks import Embedding
from tests.evaluation import scripted
from tests.evaluation.scripted import Scripted, record

EMBED = "embed = ['image']"
NAMES = ("cat", "dog", "owl")


@pytest.fixture
def dataset(tmp_path):
    """48 pictures: two of three are for training; owls are rare."""
    made = []
    for i in range(48):
        name = "owl" if i % 8 == 7 else NAMES[i % 2]
        split = "val" if i % 3 == 0 else "train"
        made.append(record(tmp_path, f"p{i:02d}", size=(6, 5), split=split, label=name, columns={"site": i % 2}))
    return made


@pytest.fixture
def vectors(dataset):
    """A noisy vector for each picture, by its id of pixels."""
    rng = np.random.default_rng(0)
    centres = dict(zip(NAMES, rng.normal(size=(3, 8)), strict=True))
    made = {one.image().id: centres[one.label] + 1.2 * rng.normal(size=8) for one in dataset}
    return {key: (value / np.linalg.norm(value)).astype(np.float32) for key, value in made.items()}


@pytest.fixture
def session(make_session, monkeypatch, vectors):
    monkeypatch.setitem(models.FAMILIES, "scripted", scripted.FAMILY)
    Scripted.answer = staticmethod(lambda request: Embedding(vector=vectors[request.image.id], space="test"))
    Scripted.asked = []
    return make_session(scripted.row(tasks=EMBED))


def test_figures_are_those_of_scikit_learn(session, dataset, vectors):
    tally = run(dataset, session, problems=Problems(), columns=["site"])
    parts = {split: [one for one in dataset if one.split == split] for split in ("train", "val")}
    table = {split: np.stack([vectors[one.image().id] for one in part]) for split, part in parts.items()}
    truth = [one.label for one in parts["val"]]
    for k, name in ((20, "k-NN accuracy"), (10, "k-NN accuracy (k=10)")):
        oracle = KNeighborsClassifier(k, metric="cosine", weights=lambda distance: np.exp(-distance / 0.07))
        said = oracle.fit(table["train"], [one.label for one in parts["train"]]).predict(table["val"])
        assert tally.all()[name] == pytest.approx(np.mean(said == truth))
        assert tally.all()[f"balanced {name}"] == pytest.approx(balanced_accuracy_score(truth, said))
    assert 0.4 < tally.all()["linear accuracy"] <= 1
    assert tally.main_figure == "k-NN accuracy"
    assert tally.units.ids == [one.id for one in parts["val"]] == tally.units.clusters
    assert tally.units.columns["class"] == truth
    assert tally.units.columns["site"] == [one.columns["site"] for one in parts["val"]]
    assert ((tally.scores() > 0) & (tally.scores() < 1)).all()


def test_the_order_of_the_rows_is_nothing(session, dataset):
    one = run(dataset, session, problems=Problems()).all()
    other = run([dataset[i] for i in np.random.default_rng(2).permutation(48)], session, problems=Problems()).all()
    assert one == other


def test_perfect_features_are_always_right(session, dataset):
    where = {one.image().id: NAMES.index(one.label) for one in dataset}
    Scripted.answer = staticmethod(
        lambda request: Embedding(vector=np.eye(3, dtype=np.float32)[where[request.image.id]], space="test")
    )
    assert set(run(dataset, session, problems=Problems()).all().values()) == {1.0}


def test_what_cannot_be_judged_is_told(session, dataset, tmp_path):
    mixed = list(dataset)
    mixed[0] = replace(mixed[0], label="")
    mixed[3] = replace(mixed[3], label="emu")
    mixed[6] = replace(mixed[6], path=tmp_path / "gone.png")
    mixed[9] = replace(mixed[9], split="test")
    (tmp_path / "p12.png").write_text("no picture")
    plain, nan = Scripted.answer, mixed[15].image().id

    def answer(request):
        if request.image.id == nan:
            return Embedding(vector=np.full(8, np.nan, np.float32), space="test")
        if request.image.id == mixed[18].image().id:
            raise ValueError("it broke")
        return plain(request)

    Scripted.answer = staticmethod(answer)
    problems, progress = Problems(), []
    tally = run(mixed, session, problems=problems, progress=lambda share, line: progress.append(share))
    assert {(p.kind, p.id) for p in problems} == {
        ("no label", "p00"),
        ("unknown category", "p03"),
        ("missing image", "p06"),
        ("bad image", "p12"),
        ("NaN features", "p15"),
        ("model failed", "p18"),
    }
    assert tally.units.ids == [f"p{i}" for i in range(21, 48, 3)]
    assert progress[-1] == 1
    with pytest.raises(DataError, match="image p00: has no label"):
        run(mixed, session, problems=Problems(strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val": "test"}, "split test: no labelled picture"),
        ({"train": "fit"}, "split fit: no labelled picture"),
    ],
)
def test_a_split_that_is_not_there(session, dataset, change, message):
    with pytest.raises(DataError, match=message):
        run(dataset, session, problems=Problems(), **change)


def test_one_class_is_nothing_to_tell_apart(session, dataset):
    with pytest.raises(DataError, match="split train: all its pictures are cat"):
        run([replace(one, label="cat") for one in dataset], session, problems=Problems())


def test_a_model_without_vectors_ends_the_run_in_one_line(make_session, session, dataset):
    with pytest.raises(UnsupportedError, match="embed"):
        run(dataset, make_session(scripted.row()), problems=Problems())


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(0, 2**16))
def test_a_weight_is_a_repetition(n, seed):
    rng = np.random.default_rng(seed)
    correct, category = rng.integers(0, 2, (n, 2)).astype(float), rng.integers(0, 3, n)
    weights = rng.integers(0, 4, n)

    def tally(rows):
        ids = [str(i) for i in range(len(rows))]
        return FeaturesTally(Units("image", ids, ids), correct[rows], category[rows], correct[rows, 0], ["a", "b"])

    weighted = tally(np.arange(n)).figures(np.stack([weights, np.ones(n)]).astype(float))
    for name, value in tally(rng.permutation(np.repeat(np.arange(n), weights))).all().items():
        assert weighted[name][0] == pytest.approx(value, nan_ok=True)


def test_a_tally_comes_back_from_its_file(session, dataset, tmp_path):
    tally = run(dataset, session, problems=Problems())
    loaded = Tally.load(tally.save(tmp_path / "tally.npz"))
    assert loaded.all() == tally.all()
