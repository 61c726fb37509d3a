from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from torchmetrics.functional.retrieval import retrieval_hit_rate

from manylens.data.records import Record
from manylens.evaluation.measures.retrieval import Found, Retrieval, ranks, weighted_median
from tests.evaluation.measures import checks

RNG = np.random.default_rng(0)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def record(name: str, label: str = "") -> Record:
    return Record(name, Path("x.jpg"), label=label, columns={"site": name[0]})


def captioned(count: int = 40, texts: int = 3, noise: float = 2.5) -> list:
    images = RNG.normal(size=(count, 16))
    return [(record(f"p{i}"), Found(v, v + noise * RNG.normal(size=(texts, 16)))) for i, v in enumerate(images)]


def test_both_ways_against_other_implementations() -> None:
    pairs = captioned()
    found = checks.tally_of(Retrieval(), pairs).all()
    images = unit(np.array([made.image for _, made in pairs]))
    texts = unit(np.concatenate([made.texts for _, made in pairs]))
    owner = np.repeat(np.arange(40), 3)
    for way, cosines, right in (
        ("image to text", images @ texts.T, np.arange(40)[:, None] == owner),
        ("text to image", texts @ images.T, owner[:, None] == np.arange(40)),
    ):
        for at in (1, 5, 10):
            hits = [
                float(retrieval_hit_rate(torch.tensor(c), torch.tensor(r), top_k=at))
                for c, r in zip(cosines, right, strict=True)
            ]
            assert found[f"R@{at} {way}"] == pytest.approx(np.mean(hits))
            assert 0.1 < np.mean(hits) < 1
        precisions = [average_precision_score(r, c) for c, r in zip(cosines, right, strict=True)]
        assert found[f"mAP {way}"] == pytest.approx(np.mean(precisions))
        first = [1 + np.flatnonzero(r[np.argsort(-c)])[0] for c, r in zip(cosines, right, strict=True)]
        assert found[f"median rank {way}"] == np.median(first)


def test_pictures_by_label_leave_themselves_out() -> None:
    labels = RNG.integers(0, 4, 50)
    centres = RNG.normal(size=(4, 8))
    vectors = centres[labels] + RNG.normal(size=(50, 8))
    pairs = [(record(f"p{i}", str(k)), Found(v)) for i, (k, v) in enumerate(zip(labels, vectors, strict=True))]
    found = checks.tally_of(Retrieval(), pairs).all()
    cosines = unit(vectors) @ unit(vectors).T
    others = ~np.eye(50, dtype=bool)
    precisions = [average_precision_score((labels == labels[i])[others[i]], cosines[i][others[i]]) for i in range(50)]
    assert found["mAP image to image"] == pytest.approx(np.mean(precisions))
    nearest = np.where(others, cosines, -2).argmax(axis=1)
    assert found["R@1 image to image"] == pytest.approx(np.mean(labels[nearest] == labels))


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, names = unit(RNG.normal(size=(30, 6))), [str(i % 5) for i in range(30)]
    whole = ranks(vectors, vectors, names, names, itself=True)
    monkeypatch.setattr("manylens.evaluation.measures.retrieval._CHUNK_VALUES", 70)
    np.testing.assert_array_equal(whole, ranks(vectors, vectors, names, names, itself=True))


@pytest.mark.parametrize("texts", [1, 3])
def test_perfect_finds_all_and_a_constant_finds_none(texts: int) -> None:
    eye = np.eye(30)
    perfect = [(record(f"p{i}"), Found(v, np.tile(v, (texts, 1)))) for i, v in enumerate(eye)]
    found = checks.tally_of(Retrieval(), perfect).all()
    assert all(value == 1 for value in found.values())
    constant = [(record(f"p{i}"), Found(np.ones(30), np.ones((texts, 30)))) for i in range(30)]
    found = checks.tally_of(Retrieval(), constant).all()
    assert all(value == 0 for name, value in found.items() if name.startswith("R@"))
    assert found["median rank text to image"] == 30


def test_what_holds_of_every_tally(tmp_path: Path) -> None:
    pairs = captioned(12)
    checks.order_and_batches_do_not_matter(Retrieval, pairs)
    tally = checks.tally_of(Retrieval(columns=["site"]), pairs)
    checks.survives_a_file(tally, tmp_path)
    assert len(set(tally.units.ids)) == len(tally.units) == 12 + 36
    assert set(tally.units.clusters) == {f"p{i}" for i in range(12)}
    assert tally.lower("median rank text to image")
    assert not tally.lower("R@1 text to image")


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4)), min_size=1, max_size=12).filter(
        lambda rows: any(weight for _, weight in rows)
    )
)
def test_a_weighted_median_is_that_of_repeated_values(rows: list[tuple[int, int]]) -> None:
    values, weights = np.array(rows, float).T
    expected = np.median(np.repeat(values, weights.astype(int)))
    assert weighted_median(values, weights[None])[0] == expected


def test_a_picture_without_a_label_is_like_no_other() -> None:
    pairs = [(record("a"), Found(np.array([1.0, 0.0]))), (record("b", "only 0"), Found(np.array([1.0, 0.1])))]
    assert np.isnan(checks.tally_of(Retrieval(), pairs).rank).all()


def test_a_label_of_one_picture_is_no_query() -> None:
    pairs = [
        (record(n, label), Found(RNG.normal(size=4))) for n, label in (("a", "x"), ("b", "x"), ("c", "y"), ("d", ""))
    ]
    tally = checks.tally_of(Retrieval(), pairs)
    assert np.isnan(tally.rank).tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (None, "missing prediction"),
        (Found(np.array([np.nan, 1])), "NaN vector"),
        (Found(np.ones(3)), "another space"),
        (Found(np.ones(2), np.ones((2, 2))), "wrong number of texts"),
    ],
)
def test_what_is_wrong_is_said(found: Found | None, kind: str) -> None:
    measure = Retrieval()
    measure.add(record("a", "x"), Found(np.ones(2)))
    measure.add(Record("b", Path("x"), columns={"captions": ["one"]}), found)
    assert measure.problems.counts == {kind: 1}
    assert len(measure.tally().units) == 1
