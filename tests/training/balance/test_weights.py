"""What class counts give, against the formulas written out, and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from manylens.training.balance.weights import checked, effective, inverse, log_prior, margins, tally
from manylens.training.errors import TrainError

some = st.lists(st.integers(0, 5000), min_size=1, max_size=12).filter(any)


@given(st.lists(st.integers(1, 40), min_size=2, max_size=6))
def test_inverse_frequency_is_what_scikit_learn_calls_balanced(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    want = compute_class_weight("balanced", classes=np.arange(len(counts)), y=labels)
    np.testing.assert_allclose(inverse(counts), want)


@given(some, st.sampled_from([0.5, 1.0]))
def test_inverse_frequency_has_mean_one_over_the_data_and_rises_as_classes_get_rarer(counts, power):
    weights = inverse(counts, power=power)
    counts = np.array(counts)
    assert np.isfinite(weights).all()
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1)
    seen = counts > 0
    np.testing.assert_allclose(weights[seen] * counts[seen] ** power, (weights * counts**power)[seen][0])


@given(some, st.sampled_from([0.0, 0.5, 0.9, 0.999, 0.999999999]))
def test_effective_numbers_are_geometric_sums(counts, beta):
    seen = [n for n in counts if n]
    raw = np.array([1 / sum(beta**i for i in range(n)) for n in seen])
    weights = effective(counts, beta=beta)
    assert np.isfinite(weights).all()
    np.testing.assert_allclose(weights[np.array(counts) > 0], raw * len(seen) / raw.sum(), rtol=1e-6)
    of_data = effective(counts, beta=beta, over="data")
    assert (of_data * counts).sum() / sum(counts) == pytest.approx(1)


@given(some)
def test_a_class_without_examples_is_as_the_rarest_that_has_some(counts):
    held = np.array(counts)
    rarest = np.flatnonzero(held == held[held > 0].min())[0]
    for made in (inverse(held), effective(held), log_prior(held), margins(held)):
        assert np.isfinite(made).all()
        assert (made[held == 0] == made[rarest]).all()


def test_priors_and_margins():
    np.testing.assert_allclose(np.exp(log_prior([30, 10, 0])), [0.75, 0.25, 0.25])
    np.testing.assert_allclose(margins([16, 1, 81, 0], largest=0.5), [0.25, 0.5, 0.5 / 3, 0.5])


@pytest.mark.parametrize(
    ("labels", "want"),
    [
        ([0, 2, 2, -100, 7], [1, 0, 2]),
        (np.array([[0, 1], [255, 1]]), [1, 2, 0]),
        ([{0, 1}, set(), {1}], [1, 2, 0]),
        ([[1, 1], (1, 2), [9]], [0, 2, 1]),
        ([set(), set()], [0, 0, 0]),
        ([], [0, 0, 0]),
    ],
)
def test_tally(labels, want):
    assert tally(labels, 3).tolist() == want


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ([], "one count a class"),
        ([[1, 2]], "one count a class"),
        ([0, 0], "no class has an example"),
        ([3, -1], "class 1 has -1 examples"),
        ([float("nan"), 1], "class 0 has nan examples"),
    ],
)
def test_counts_that_are_none(counts, said):
    with pytest.raises(TrainError, match=said):
        checked(counts)


@pytest.mark.parametrize("beta", [1.0, -0.1, float("nan")])
def test_beta_out_of_range(beta):
    with pytest.raises(TrainError, match="beta"):
        effective([1, 2], beta=beta)
