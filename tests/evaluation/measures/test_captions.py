from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from manylens.data.records import Record
from manylens.evaluation.measures.captions import Captions, texts_of
from manylens.evaluation.measures.cider import cider_d, words
from manylens.tasks.results import Caption
from tests.evaluation.measures import checks

PAIRS = [
    ("A cat sits on the mat.", ["a cat is on the mat", "the cat sits on a small mat"]),
    ("two dogs run over green grass", ["Two dogs run over green grass"]),
    ("a man", ["a man in a red coat waits for the bus", "someone waits"]),
    ("", ["a red bus in the street"]),
    ("the the the the the", ["the street at night with the lights of the cars"]),
]


def record(name: str, captions: object, **columns: object) -> Record:
    return Record(name, Path("x.jpg"), columns={"captions": captions, **columns})


def pairs() -> list:
    return [(record(f"p{i}", refs), Caption(text=text)) for i, (text, refs) in enumerate(PAIRS)]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A cat, sitting.", ["a", "cat", "sitting"]),
        ("It's a dog's dinner", ["it", "'s", "a", "dog", "'s", "dinner"]),
        ("don’t; CAN'T", ["do", "n't", "ca", "n't"]),
        ("a T-shirt - black", ["a", "t-shirt", "black"]),
        ("", []),
    ],
)
def test_words(text: str, tokens: list[str]) -> None:
    assert words(text) == tokens


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a cat", 10 * 2 / 4),  # "a" is in every picture and says nothing; of four orders, two have any n-gram
        ("a dog", 0.0),
        ("cat cat", 10 * 0.5 / 4),  # clipped to the one "cat" there is: min(2, 1) * 1 / (2 * 1)
        ("a cat a a", 10 * (1 + 1 / np.sqrt(3)) / 4 * np.exp(-4 / 72)),  # 2 words longer; 2-grams a cat, cat a, a a
        ("", 0.0),
    ],
)
def test_cider_d_by_hand(caption: str, expected: float) -> None:
    """Two pictures, one reference each: ln 2 for what one has, 0 for what both have."""
    scores = cider_d([caption, "a dog"], [["a cat"], ["a dog"]])
    np.testing.assert_allclose(scores[0], expected)


def test_cider_d_of_the_reference_itself_is_ten() -> None:
    references = [["a cat sleeps on the mat"], ["two dogs run over the grass"], ["one red bus in town"]]
    np.testing.assert_allclose(cider_d([r[0] for r in references], references), 10)


def test_cider_d_is_the_mean_over_references() -> None:
    both = cider_d(["a cat", "a dog"], [["a cat", "a zebra"], ["a dog"]])
    np.testing.assert_allclose(both[0], (5 + 0) / 2)


def test_bleu_and_chrf_are_those_of_sacrebleu() -> None:
    tally = checks.tally_of(Captions(), pairs())
    figures = tally.all()
    streams = [[refs[i] if i < len(refs) else None for _, refs in PAIRS] for i in range(2)]
    texts = [text for text, _ in PAIRS]
    assert figures["BLEU-4"] == pytest.approx(BLEU(lowercase=True).corpus_score(texts, streams).score)
    assert figures["chrF"] == pytest.approx(np.mean([CHRF().sentence_score(t, refs).score for t, refs in PAIRS]))
    some = np.array([0, 0, 1, 0, 1], float)  # no 2-gram of order 3 or 4 in common: the smoothing counts
    found = tally.figures(some[None])["BLEU-4"][0]
    at = np.flatnonzero(some)
    expected = BLEU(lowercase=True).corpus_score([texts[i] for i in at], [[s[i] for i in at] for s in streams])
    assert found == pytest.approx(expected.score)
    assert found > 0


def test_what_holds_of_every_tally(tmp_path: Path) -> None:
    checks.order_and_batches_do_not_matter(Captions, pairs())
    checks.survives_a_file(checks.tally_of(Captions(), pairs()), tmp_path)
    tally = checks.tally_of(Captions(), pairs())
    assert tally.scores()[1] == max(tally.scores())


def test_bleu_of_a_weight_is_bleu_of_the_repeated_caption() -> None:
    counts = [2, 0, 1, 3, 1]
    tally = checks.tally_of(Captions(), pairs())
    texts = [PAIRS[i][0] for i, k in enumerate(counts) for _ in range(k)]
    refs = [PAIRS[i][1] for i, k in enumerate(counts) for _ in range(k)]
    streams = [[r[i] if i < len(r) else None for r in refs] for i in range(2)]
    found = tally.figures(np.array([counts], float))
    assert found["BLEU-4"][0] == pytest.approx(BLEU(lowercase=True).corpus_score(texts, streams).score)
    assert found["CIDEr-D"][0] == pytest.approx(np.average(tally.cider, weights=counts))


def test_no_prediction_is_an_empty_caption_and_no_truth_is_left_out() -> None:
    measure = Captions(columns=["site"])
    tally = checks.tally_of(measure, [(record("a", ["a cat"], site="x"), None), (record("b", []), Caption(text="a"))])
    assert tally.all() == {"CIDEr-D": 0, "BLEU-4": 0, "chrF": 0}
    assert tally.units.columns == {"site": ["x"]}
    assert measure.problems.counts == {"no captions": 1}


@pytest.mark.parametrize(
    ("value", "texts"), [(None, []), ("a  cat", ["a cat"]), (["a", " ", "b"], ["a", "b"]), (np.array(["a"]), ["a"])]
)
def test_texts(value: object, texts: list[str]) -> None:
    assert texts_of(value) == texts
