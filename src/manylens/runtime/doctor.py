"""Which engine and precision run a network fastest on this machine, measured once and pinned in a file.

A candidate may be chosen only when its features stay as they are in f32: the mean cosine similarity to the reference
must reach the tolerance. What was measured holds for this machine: its processor, cores and versions of the libraries.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from manylens.errors import EngineError
from manylens.runtime import accelerators, memory
from manylens.runtime.cpu import cpu_flags, cpu_name, has_bf16, threads
from manylens.runtime.engines import EngineSettings
from manylens.runtime.machine import MachineReport, library_version, machine_report
from manylens.runtime.paths import engines_file, replacing

__all__ = [
    "Choice",
    "MachineReport",
    "Measurement",
    "Probe",
    "candidates",
    "choice_of",
    "choose",
    "fingerprint",
    "machine_report",
    "pinned",
]

_log = logging.getLogger(__name__)

TOLERANCE = 0.99
_FORMAT = 1
_ENGINE_LIBRARIES = ("openvino", "torch", "numpy")
_LOCK_SECONDS = 30.0
# A candidate this much faster than f32 OpenVINO or less is noise: the default stays.
_WORTH = 0.97


class Probe(Protocol):
    """A network to be measured.

    Attributes:
        name: Id of the model.
        weights: Hash of its weights.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def weights(self) -> str: ...  # noqa: D102

    def build(self, settings: EngineSettings) -> Callable[[], np.ndarray]:
        """Loads the network with ``settings`` and gives a call that runs it once on a fixed input.

        The call returns the features, (..., D) float, one vector along the last axis. When it has a ``close()``, that
        is called in the end. An engine that the network cannot run on is refused with any exception.
        """
        ...


@dataclass(frozen=True)
class Measurement:
    """One candidate as it ran here.

    Args:
        settings: The candidate.
        seconds: Median of one run; ``None`` when it did not run.
        similarity: Mean cosine similarity of its features to those of the reference; ``None`` when it did not run.
        error: Why it did not run, or empty.
    """

    settings: EngineSettings
    seconds: float | None = None
    similarity: float | None = None
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """The same as a plain dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class Choice:
    """What was measured for a network, and what was chosen.

    Args:
        name: Id of the model.
        weights: Hash of its weights.
        settings: The fastest candidate within the tolerance.
        tolerance: Least mean cosine similarity to the reference.
        measurements: All candidates; the reference is the first that ran.
    """

    name: str
    weights: str
    settings: EngineSettings
    tolerance: float
    measurements: tuple[Measurement, ...]

    def to_json(self) -> dict[str, Any]:
        """The same as a plain dictionary."""
        return asdict(self)


def candidates() -> list[EngineSettings]:
    """What can run on this machine, the reference (OpenVINO f32) first."""
    found = [EngineSettings("openvino", "f32")]
    engines = ["openvino", *(["torch"] if importlib.util.find_spec("torch") else [])]
    precisions = ["f32", *(["bf16"] if has_bf16() else [])]
    found += [EngineSettings(engine, precision) for engine in engines for precision in precisions]  # type: ignore[arg-type]
    if accelerators.cuda():
        found += [EngineSettings("torch", precision, device="cuda") for precision in ("f32", "bf16")]
    return list(dict.fromkeys(found))


def choose(
    probe: Probe,
    among: Sequence[EngineSettings] | None = None,
    *,
    tolerance: float = TOLERANCE,
    repeats: int = 5,
    clock: Callable[[], float] = time.perf_counter,
    check: Callable[[], None] = lambda: None,
) -> Choice:
    """Measures the candidates and pins the fastest that keeps the features.

    Each is run once to warm up; then they take turns, so that a busy moment of the machine slows all of them.

    Args:
        probe: The network.
        among: The candidates, :func:`candidates` when left out. The first f32 among them that runs is the reference.
        tolerance: Least mean cosine similarity to the features of the reference.
        repeats: Timed runs of each.
        clock: Seconds.
        check: Called between runs; may raise to stop.

    Raises:
        EngineError: No candidate in f32 runs.
    """
    among = list(among) if among is not None else candidates()
    with _built(probe, sorted(among, key=lambda settings: settings.precision != "f32"), check) as (running, failed):
        reference = next((features for settings, (_, features) in running.items() if settings.precision == "f32"), None)
        if reference is None:
            reasons = ", ".join(f"{settings.label}: {reason}" for settings, reason in failed.items())
            raise EngineError(f"{probe.name}: runs on no engine here ({reasons})")
        times = _timed({settings: run for settings, (run, _) in running.items()}, repeats, clock, check)
        measured = [
            Measurement(settings, times[settings], _similarity(features, reference))
            for settings, (_, features) in running.items()
        ]
    choice = Choice(
        name=probe.name,
        weights=probe.weights,
        settings=_fastest(measured, tolerance),
        tolerance=tolerance,
        measurements=(*measured, *(Measurement(settings, error=reason) for settings, reason in failed.items())),
    )
    _pin(choice)
    return choice


def pinned(name: str, weights: str) -> EngineSettings | None:
    """What was measured fastest on this machine for a model with these weights; ``None`` before it was measured."""
    choice = choice_of(name, weights)
    return choice.settings if choice else None


def choice_of(name: str, weights: str) -> Choice | None:
    """The measurement that stands for a model with these weights on this machine, or ``None``."""
    machines = _read().get("machines")
    if not machines:
        return None  # before the machine is looked at, which takes longer than all else here
    found = machines.get(fingerprint(), {}).get("choices", {}).get(_key(name, weights))
    try:
        return _choice_from_json(found) if found else None
    except (TypeError, KeyError):
        _log.warning("%s: not readable for %s; measure again", engines_file(), name)
        return None


def fingerprint() -> str:
    """A stable name of this machine as far as it changes which engine is fastest."""
    return hashlib.sha256(json.dumps(_machine(), sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def _built(
    probe: Probe, among: Sequence[EngineSettings], check: Callable[[], None]
) -> Iterator[tuple[dict[EngineSettings, tuple[Callable[[], np.ndarray], np.ndarray]], dict[EngineSettings, str]]]:
    """Each candidate that runs, with the features of its first run; and why the others do not. Closes all after."""
    running: dict[EngineSettings, tuple[Callable[[], np.ndarray], np.ndarray]] = {}
    failed: dict[EngineSettings, str] = {}
    opened: list[Any] = []
    try:
        for settings in among:
            check()
            try:
                run = probe.build(settings)
                opened.append(run)
                running[settings] = run, np.array(run(), dtype=np.float64)
            except Exception as error:  # an engine may refuse a network in any way
                failed[settings] = " ".join(str(error).split())[:200] or type(error).__name__
        yield running, failed
    finally:
        for run in opened:
            close = getattr(run, "close", None)
            if close is not None:
                close()
        running.clear()
        opened.clear()
        memory.give_back()


def _timed(
    runs: dict[EngineSettings, Callable[[], np.ndarray]],
    repeats: int,
    clock: Callable[[], float],
    check: Callable[[], None],
) -> dict[EngineSettings, float]:
    times: dict[EngineSettings, list[float]] = {settings: [] for settings in runs}
    for _ in range(repeats):
        for settings, run in runs.items():
            check()
            start = clock()
            run()
            times[settings].append(clock() - start)
    return {settings: statistics.median(taken) for settings, taken in times.items()}


def _similarity(features: np.ndarray, reference: np.ndarray) -> float:
    """Mean cosine similarity of the vectors along the last axis; 0 when they cannot be compared."""
    if features.shape != reference.shape:
        return 0.0
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(features, axis=-1) * np.linalg.norm(reference, axis=-1)
        cosines = np.sum(features * reference, axis=-1) / lengths
    cosines = np.where(lengths == 0, np.all(features == reference, axis=-1), cosines)
    mean = float(np.mean(cosines))
    return mean if np.isfinite(mean) else 0.0


def _fastest(measured: Sequence[Measurement], tolerance: float) -> EngineSettings:
    reference = measured[0]
    true_enough = [each for each in measured if each.similarity is not None and each.similarity >= tolerance]
    best = min(true_enough, key=lambda each: each.seconds or 0.0, default=reference)
    return best.settings if (best.seconds or 0.0) < _WORTH * (reference.seconds or 0.0) else reference.settings


def _machine() -> dict[str, Any]:
    return {
        "cpu": cpu_name(),
        "flags": sorted(cpu_flags()),
        "cores": threads(),
        "libraries": {name: library_version(name) for name in _ENGINE_LIBRARIES},
    }


def _key(name: str, weights: str) -> str:
    return f"{name}@{weights}"


def _read() -> dict[str, Any]:
    try:
        data = json.loads(engines_file().read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        _log.warning("%s: not readable (%s); engines are measured again by manylens doctor", engines_file(), error)
        return {}
    return data if isinstance(data, dict) and data.get("format") == _FORMAT else {}


def _pin(choice: Choice) -> None:
    """Writes a choice down beside the others. A file that cannot be written is no error: the choice holds for now."""
    from filelock import FileLock, Timeout

    path: Path = engines_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock"), timeout=_LOCK_SECONDS):
            data = _read() or {"format": _FORMAT, "machines": {}}
            here = data["machines"].setdefault(fingerprint(), {"machine": _machine(), "choices": {}})
            here["choices"][_key(choice.name, choice.weights)] = choice.to_json()
            with replacing(path) as file:
                file.write(json.dumps(data, indent=1).encode())
    except (OSError, Timeout) as error:
        _log.warning("%s: the choice of engine is not kept (%s)", path, error)


def _choice_from_json(data: dict[str, Any]) -> Choice:
    measurements = tuple(
        Measurement(**{**each, "settings": EngineSettings(**each["settings"])}) for each in data["measurements"]
    )
    return Choice(**{**data, "settings": EngineSettings(**data["settings"]), "measurements": measurements})
