import json
import logging
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from manylens.errors import EngineError
from manylens.runtime import doctor
from manylens.runtime.engines import EngineSettings
from manylens.runtime.paths import engines_file

OV32, OV16 = EngineSettings("openvino", "f32"), EngineSettings("openvino", "bf16")
T32, T16 = EngineSettings("torch", "f32"), EngineSettings("torch", "bf16")
ALL = [OV32, OV16, T32, T16]


class Toy:
    """A network whose time on each engine is set, on a clock of its own."""

    def __init__(self, seconds: dict[EngineSettings, float], drift: dict[EngineSettings, float] | None = None) -> None:
        self.name, self.weights = "manylens/toy", "w1"
        self.seconds = seconds
        self.drift = drift or {}
        self.now = 0.0
        self.order: list[EngineSettings] = []
        self.closed: list[EngineSettings] = []

    def clock(self) -> float:
        return self.now

    def build(self, settings: EngineSettings) -> Callable[[], np.ndarray]:
        if settings not in self.seconds:
            raise RuntimeError(f"no {settings.label}\nhere")
        return Run(self, settings)


class Run:
    def __init__(self, toy: Toy, settings: EngineSettings) -> None:
        self.toy, self.settings = toy, settings

    def __call__(self) -> np.ndarray:
        self.toy.now += self.toy.seconds[self.settings]
        self.toy.order.append(self.settings)
        angle = self.toy.drift.get(self.settings, 0.0)
        vector = [np.cos(angle), np.sin(angle)] if np.isfinite(angle) else [angle, 0]
        return np.array([[vector] * 4], np.float32)

    def close(self) -> None:
        self.toy.closed.append(self.settings)


@pytest.mark.parametrize(
    ("seconds", "drift", "expected"),
    [
        ({OV32: 4, OV16: 2, T32: 8, T16: 3}, {}, OV16),
        ({OV32: 4, OV16: 2, T32: 8, T16: 3}, {OV16: 0.2}, T16),  # cos 0.2 = 0.980, under 0.99
        ({OV32: 4, OV16: 2, T32: 8, T16: 3}, {OV16: 0.1}, OV16),  # cos 0.1 = 0.995
        ({OV32: 4, OV16: 2, T32: 8, T16: 3}, {OV16: np.nan, T16: np.inf}, OV32),
        ({OV32: 4, OV16: 5, T32: 3, T16: 9}, {}, T32),
        ({OV32: 4, OV16: 3.95, T32: 8}, {}, OV32),  # within the noise: the default stays
        ({T32: 4, T16: 2}, {}, T16),  # OpenVINO does not run: torch f32 is the reference
        ({OV32: 4}, {}, OV32),
    ],
)
def test_the_fastest_within_the_tolerance_is_pinned(seconds: dict, drift: dict, expected: EngineSettings) -> None:
    toy = Toy(seconds, drift)
    assert doctor.pinned(toy.name, toy.weights) is None
    choice = doctor.choose(toy, ALL, clock=toy.clock)
    assert choice.settings == expected
    assert choice.tolerance == 0.99
    assert {each.settings: each.seconds for each in choice.measurements} == {
        settings: pytest.approx(seconds[settings]) if settings in seconds else None for settings in ALL
    }
    assert sorted(toy.closed, key=ALL.index) == [settings for settings in ALL if settings in seconds]
    assert doctor.pinned(toy.name, toy.weights) == expected
    assert doctor.choice_of(toy.name, toy.weights) == choice
    assert doctor.pinned(toy.name, "other weights") is None
    assert doctor.pinned("other", toy.weights) is None


def test_candidates_take_turns_after_a_warm_up() -> None:
    toy = Toy({OV32: 1, OV16: 1})
    doctor.choose(toy, [OV32, OV16], repeats=3, clock=toy.clock)
    assert toy.order == [OV32, OV16] * 4


def test_the_median_forgives_a_busy_moment() -> None:
    toy = Toy({OV32: 4, OV16: 2})
    slow = iter([0, 0, 100, 0, 0, 100])

    build = toy.build

    def sometimes_slow(settings: EngineSettings) -> Callable[[], np.ndarray]:
        run = build(settings)

        def call() -> np.ndarray:
            if settings == OV16:
                toy.now += next(slow)
            return run()

        return call

    toy.build = sometimes_slow  # type: ignore[method-assign]
    assert doctor.choose(toy, [OV32, OV16], repeats=5, clock=toy.clock).settings == OV16


def test_a_candidate_that_fails_is_told_of_and_nothing_runs_without_f32() -> None:
    choice = doctor.choose(Toy({OV32: 1}), [OV32, T16])
    assert [each.error for each in choice.measurements] == ["", "no torch bf16 here"]
    toy = Toy({OV16: 1, T16: 1})
    with pytest.raises(
        EngineError, match=r"manylens/toy: runs on no engine here \(openvino f32: no openvino f32 here\)"
    ):
        doctor.choose(toy, [OV32, OV16])
    assert toy.closed == [OV16]
    assert doctor.pinned("manylens/toy", "w1") == OV32  # what stood before stands


@pytest.mark.parametrize(
    ("features", "reference", "expected"),
    [
        ([[1.0, 0]], [[2.0, 0]], 1.0),
        ([[1.0, 0], [0, 1]], [[1.0, 0], [1, 0]], 0.5),
        ([[0.0, 0]], [[0.0, 0]], 1.0),
        ([[0.0, 0]], [[1.0, 0]], 0.0),
        ([[1.0, 0, 0]], [[1.0, 0]], 0.0),
        ([[np.nan, 0]], [[1.0, 0]], 0.0),
    ],
)
def test_similarity(features: list, reference: list, expected: float) -> None:
    assert doctor._similarity(np.array(features), np.array(reference)) == pytest.approx(expected)


def test_measuring_can_be_stopped_and_closes_what_it_opened() -> None:
    toy = Toy({OV32: 1, OV16: 1})
    left = iter(range(4))

    def stop() -> None:
        if next(left, None) is None:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        doctor.choose(toy, [OV32, OV16], clock=toy.clock, check=stop)
    assert toy.closed == [OV32, OV16]
    assert not engines_file().exists()


@pytest.mark.parametrize("what", ["cpu_name", "threads", "library_version", "cpu_flags"])
def test_another_machine_measures_again(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    doctor.choose(Toy({OV32: 2, OV16: 1}), [OV32, OV16])
    values = {"cpu_name": "other", "threads": 99, "library_version": "0", "cpu_flags": frozenset({"x"})}
    with monkeypatch.context() as patch:
        patch.setattr(doctor, what, lambda *_: values[what])
        assert doctor.pinned("manylens/toy", "w1") is None
        doctor.choose(Toy({OV32: 1, OV16: 2}), [OV32, OV16])
    assert doctor.pinned("manylens/toy", "w1") is not None
    assert len(json.loads(engines_file().read_text())["machines"]) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 99}', '{"format": 1, "machines": {}}'])
def test_a_damaged_file_is_measured_anew(content: str) -> None:
    engines_file().parent.mkdir(parents=True)
    engines_file().write_text(content)
    assert doctor.pinned("manylens/toy", "w1") is None
    doctor.choose(Toy({OV32: 1}), [OV32])
    assert doctor.pinned("manylens/toy", "w1") == OV32


def test_a_damaged_entry_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    doctor.choose(Toy({OV32: 1}), [OV32])
    data = json.loads(engines_file().read_text())
    for choice in data["machines"][doctor.fingerprint()]["choices"].values():
        choice["settings"] = {"motor": "steam"}
    engines_file().write_text(json.dumps(data))
    assert doctor.pinned("manylens/toy", "w1") is None
    assert "measure again" in caplog.text


def test_a_home_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path / "file" / "home"))
    with caplog.at_level(logging.WARNING):
        assert doctor.choose(Toy({OV32: 1}), [OV32]).settings == OV32
    assert "not kept" in caplog.text


def test_candidates_follow_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "has_bf16", lambda: True)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: object())
    assert doctor.candidates() == [OV32, OV16, T32, T16]
    monkeypatch.setattr(doctor, "has_bf16", lambda: False)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert doctor.candidates() == [OV32]


def _choose(home: str, name: str) -> None:
    os.environ["MANYLENS_HOME"] = home
    for number in range(10):
        toy = Toy({OV32: 1})
        toy.name = f"{name}{number}"
        doctor.choose(toy, [OV32])


def test_two_processes_lose_no_choice(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_choose, args=(str(tmp_path / "home"), name)) for name in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert all(doctor.pinned(f"{name}{number}", "w1") == OV32 for name in "ab" for number in range(10))


def test_settings_with_another_number_of_threads_are_another_candidate() -> None:
    one = replace(OV32, threads=1)
    if one == OV32:
        pytest.skip("one core")
    assert doctor.choose(Toy({OV32: 4, one: 1}), [OV32, one]).measurements[1].settings == one
