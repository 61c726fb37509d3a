from __future__ import annotations

import math

import numpy as np
import pytest

from manylens.training.selfsupervised.schedules import Schedule, cosine, ramp, usual_momentum


def published(base: float, final: float, steps: int) -> np.ndarray:
    """The cosine schedule of DINO's own code."""
    iters = np.arange(steps)
    return final + 0.5 * (base - final) * (1 + np.cos(np.pi * iters / len(iters)))


@pytest.mark.parametrize(("start", "end"), [(0.996, 1.0), (0.04, 0.4), (1.0, 0.0)])
def test_cosine_is_that_of_dino(start, end):
    assert [cosine(step, 37, start, end) for step in range(37)] == pytest.approx(published(start, end, 37), abs=1e-12)


@pytest.mark.parametrize(("step", "expected"), [(0, 0.04), (5, 0.055), (10, 0.07), (11, 0.07), (1000, 0.07)])
def test_ramp_ends_where_it_should(step, expected):
    assert ramp(step, 10, 0.04, 0.07) == pytest.approx(expected)


def test_nothing_moves_beyond_the_end_or_without_steps():
    assert cosine(80, 40, 0.1, 0.9) == 0.9
    assert cosine(0, 0, 0.1, 0.9) == 0.9
    assert ramp(0, 0, 0.1, 0.9) == 0.9


@pytest.mark.parametrize(("steps", "expected"), [(0, 0.9), (20, 0.9), (200, 0.95), (2500, 0.996), (10**6, 0.996)])
def test_a_short_training_has_a_teacher_of_short_memory(steps, expected):
    assert usual_momentum(steps) == pytest.approx(expected)


def test_a_training_moves_by_its_own_epochs():
    plan = Schedule(total=100, per_epoch=10, temperature=0.07, first_temperature=0.04, warmup_epochs=3)
    assert [plan.temperature_at(step) for step in (0, 15, 30, 99)] == pytest.approx([0.04, 0.055, 0.07, 0.07])
    assert [plan.freezes_last_at(step) for step in (0, 9, 10)] == [True, True, False]
    assert plan.momentum_at(0) == pytest.approx(0.996)
    assert plan.momentum_at(50) == pytest.approx(0.998)
    assert plan.weight_decay_at(25) == pytest.approx(0.4 - 0.18 * (1 + math.cos(math.pi / 4)))
