from pathlib import Path

import pytest

from manylens.errors import UserError
from manylens.runtime.rates import Rates


@pytest.mark.parametrize(
    ("rates", "seconds", "money", "energy"),
    [
        (Rates(), 3600, 0, 0),
        (Rates(hour=2), 1800, 1, 0),
        (Rates(watts=100, kwh=0.3), 36_000, 0.3, 1),
        (Rates(hour=1, watts=100, kwh=0.3), 36_000, 10.3, 1),
        (Rates(kwh=0.3), 36_000, 0, 0),
    ],
)
def test_what_time_costs(rates: Rates, seconds: float, money: float, energy: float) -> None:
    assert rates.money(seconds) == pytest.approx(money)
    assert rates.energy(seconds) == pytest.approx(energy)
    assert rates.cost_money == (money > 0)


@pytest.mark.parametrize("wrong", [{"hour": -1}, {"watts": float("nan")}, {"kwh": float("inf")}, {"co2": "much"}])
def test_a_rate_is_a_number_of_zero_or_more(wrong: dict) -> None:
    with pytest.raises(UserError, match=f"rate {next(iter(wrong))}"):
        Rates(**wrong)


def test_rates_are_kept(tmp_path: Path) -> None:
    assert Rates.load(tmp_path) == Rates()
    rates = Rates(hour=0.5, watts=65, kwh=0.3, co2=0.4, currency="EUR")
    rates.save(tmp_path)
    assert Rates.load(tmp_path) == rates


@pytest.mark.parametrize("text", ["", "[]", '{"hour": -1}', '{"year": 1}'])
def test_a_file_that_is_no_rates(tmp_path: Path, text: str) -> None:
    (tmp_path / "rates.json").write_text(text)
    with pytest.raises(UserError, match="rate"):
        Rates.load(tmp_path)


@pytest.mark.parametrize(("money", "text"), [(12.345, "12.35 EUR"), (0.01234, "0.01234 EUR"), (0.0, "0 EUR")])
def test_amounts_for_people(money: float, text: str) -> None:
    assert Rates(currency="EUR").said(money) == text
