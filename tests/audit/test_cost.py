from pathlib import Path

import numpy as np
import pytest

from manylens import models
from manylens.audit import cost
from manylens.errors import UserError
from manylens.models.base import Trainable
from manylens.runtime import flops
from manylens.runtime.rates import Rates
from tests.session.fakes import Fake

RATES = Rates(hour=3600, watts=1000, kwh=1.0, co2=0.5, currency="EUR")


def test_an_estimate_grows_with_the_number_of_pictures(make_session) -> None:
    session = make_session()
    Fake.pause = 0.02
    made = cost.estimate("classify", images=1000, session=session, rates=RATES, samples=3)
    assert made.model == "manylens/a"
    assert made.seconds == pytest.approx(made.load_seconds + 1000 * made.each_seconds)
    assert 0.02 <= made.each_seconds < 0.2
    assert made.spread_seconds[0] <= made.each_seconds <= made.spread_seconds[1]
    assert made.energy == pytest.approx(made.seconds / 3600)
    assert made.money == pytest.approx(made.seconds + made.energy)
    assert made.co2 == pytest.approx(made.energy / 2)
    assert made.flops is None  # the fake computes nothing


def test_every_picture_that_is_measured_is_new_to_the_caches() -> None:
    stock = cost._pictures([], (32, 24), 0)
    pictures = [next(stock) for _ in range(20)]
    assert len({picture.id for picture in pictures}) == 20
    assert pictures[0].size == (32, 24)


def test_given_pictures_take_turns() -> None:
    given = [np.full((8, 8, 3), value, np.uint8) for value in (10, 200)]
    stock = cost._pictures(given, (32, 24), 0)
    assert [int(next(stock).array[4, 4, 0]) for _ in range(3)] == [10, 200, 10]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"images": 0}, "images 0: less than 1"),
        ({"images": 5, "epochs": 0}, "epochs 0: less than 1"),
        ({"images": 5, "task": "transcribe"}, "cannot be measured on pictures"),
        ({"images": 5, "fine_tune": "full"}, "which model shall be fine-tuned"),
    ],
)
def test_what_cannot_be_estimated(make_session, asked: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        cost.estimate(**({"task": "classify", "session": make_session()} | asked))


def test_the_ledger_is_set_beside_the_estimate(make_session, tmp_path: Path) -> None:
    session = make_session()
    made = cost.estimate("classify", images=3, session=session, rates=RATES, samples=1)
    with pytest.raises(UserError, match="no call since"):
        cost.compare(made, session)
    Fake.pause = 0.03
    list(session.map("classify", [np.full((8, 8, 3), value, np.uint8) for value in range(3)]))
    found = cost.compare(cost.CostEstimate.load(made.save(tmp_path / "e.json")), session)
    assert (found.calls, found.failed) == (3, 0)
    assert found.each_seconds >= 0.03
    assert found.ratio == pytest.approx(found.each_seconds / made.each_seconds)
    assert found.money == pytest.approx(RATES.money(found.seconds))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rates": {"hour": -1}}'])
def test_a_file_that_is_no_estimate(tmp_path: Path, text: str) -> None:
    (tmp_path / "e.json").write_text(text)
    with pytest.raises(UserError, match=r"rate hour|not an estimate"):
        cost.CostEstimate.load(tmp_path / "e.json")


class Small(Fake):
    """A fake with a torch form: one linear layer."""

    steps = 0

    def trainable(self):
        import torch

        layer = torch.nn.Linear(12, 4)

        def forward(pixels):
            Small.steps += 1
            return {"image": layer(pixels)}

        return Trainable(
            module=layer,
            parts={"encoder": layer},
            blocks=[layer],
            lora_targets=(),
            preprocess=lambda images: torch.ones(len(images), 12),
            forward=forward,
        )


@pytest.mark.parametrize(("how", "times"), [("full", 10), ("frozen", 1)])
def test_fine_tuning_costs_its_passes(make_session, monkeypatch, how: str, times: int) -> None:
    monkeypatch.setitem(models.FAMILIES, "fake", "tests.audit.test_cost:Small")
    made = cost.estimate(
        "classify", images=100, model="manylens/a", session=make_session(), fine_tune=how, epochs=10, batch=4, samples=2
    )
    assert made.epochs == times
    assert made.seconds == pytest.approx(made.load_seconds + made.each_seconds * 100 * times)
    forward = 2 * 12 * 4
    assert made.flops == (forward if how == "frozen" else 2 * forward)  # the input needs no gradient


def test_operations_of_a_network_are_those_of_the_textbook() -> None:
    import openvino as ov
    from openvino import opset13 as op

    image = op.parameter([1, 3, 16, 16], np.float32)
    rng = np.random.default_rng(0)
    wide = op.convolution(image, op.constant(rng.random((8, 3, 3, 3), np.float32)), [1, 1], [1, 1], [1, 1], [1, 1])
    deep = op.group_convolution(
        wide, op.constant(rng.random((8, 1, 1, 3, 3), np.float32)), [1, 1], [1, 1], [1, 1], [1, 1]
    )
    flat = op.reshape(deep, op.constant(np.array([1, 8 * 256])), special_zero=False)
    out = op.matmul(flat, op.constant(rng.random((8 * 256, 10), np.float32)), transpose_a=False, transpose_b=False)
    compiled = ov.Core().compile_model(ov.Model([out], [image]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = 2 * (8 * 256 * 27 + 8 * 256 * 9 + 8 * 256 * 10)
    assert flops.of_graph(compiled, 1) == expected


def test_counting_ends_with_its_block() -> None:
    with flops.counting() as outer:
        flops.ran(5)
        with flops.counting() as inner:
            flops.ran(None)
    assert not flops.active()
    assert (outer.total, outer.complete) == (5, False)
    assert (inner.total, inner.complete) == (0, False)
