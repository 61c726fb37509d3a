import pytest

from manylens.errors import CostError, UserError
from manylens.runtime.meter import Meter


def test_without_a_cap_everything_fits() -> None:
    meter = Meter()
    meter.charge(1e9)
    meter.learn(1e9)
    meter.check()
    meter.check_next()


def test_the_dearest_of_the_recent_calls_decides() -> None:
    meter = Meter(10)
    for cost in (1, 4, 1):
        meter.charge(cost)
        meter.learn(cost)
    assert (meter.spent, meter.expected) == (6, 4)
    meter.check_next()
    meter.charge(1)
    with pytest.raises(CostError, match="7 of 10 spent and the next call costs about 4"):
        meter.check_next()


def test_old_calls_are_forgotten() -> None:
    meter = Meter(1000)
    for cost in (50, *[1] * 20):
        meter.learn(cost)
    assert meter.expected == 1


def test_the_first_call_is_judged_by_what_was_said_of_it() -> None:
    meter = Meter(1)
    assert meter.fresh
    meter.expect(2)
    with pytest.raises(CostError, match="0 of 1 spent"):
        meter.check_next()
    meter.learn(0.5)
    meter.check_next()


def test_what_went_over_stops_the_call() -> None:
    meter = Meter(1)
    meter.charge(1)
    meter.check()
    meter.charge(0.1)
    with pytest.raises(CostError, match=r"1\.1 of 1"):
        meter.check()


@pytest.mark.parametrize("cap", [0, -1, float("nan"), float("inf")])
def test_a_cap_is_a_number_above_zero(cap: float) -> None:
    with pytest.raises(UserError, match="cost cap"):
        Meter(cap)
