"""How things are measured: in turns, as whole processes, with the memory of a whole tree of processes watched."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from manylens.runtime.engines import EngineSettings

ROOT = Path(__file__).parents[1]
_SAMPLE_SECONDS = 0.02


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a call took, and what it gave."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def in_turns(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call in each round, after one round that does not count.

    The calls take turns (A B A B), so that a busy moment of the machine slows all of them alike.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            seconds, _ = timed(call)
            if turn:
                times[name].append(seconds)
    return times


def medians(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each."""
    return {name: statistics.median(values) for name, values in times.items()}


@contextmanager
def fresh_home() -> Iterator[Path]:
    """A home of caches with nothing in it but the weights and what ``manylens doctor`` pinned, for this block.

    The weights are linked, so nothing is fetched twice; embeddings and compiled networks begin empty.
    """
    from manylens.runtime import paths

    real = paths.home()
    before = os.environ.get("MANYLENS_HOME")
    with tempfile.TemporaryDirectory(prefix="manylens-bench-") as name:
        home = Path(name)
        (real / "weights").mkdir(parents=True, exist_ok=True)
        (home / "weights").symlink_to(real / "weights", target_is_directory=True)
        if paths.engines_file().is_file():
            shutil.copy2(paths.engines_file(), home / paths.engines_file().name)
        os.environ["MANYLENS_HOME"] = name
        try:
            yield home
        finally:
            if before is None:
                del os.environ["MANYLENS_HOME"]
            else:
                os.environ["MANYLENS_HOME"] = before


def measure_engine(session: Any, model: str) -> EngineSettings:
    """Pin the fastest engine of a model in the session's home, as ``manylens doctor`` does, unless it is pinned."""
    from manylens.models import FamilyProbe
    from manylens.runtime.doctor import choice_of, choose

    row = session.catalog.resolve(model)
    choice = choice_of(row.id, row.weights_hash) or choose(FamilyProbe(row, session.weights.ensure(row)))
    return choice.settings


def cache_of(result: Any) -> str:
    """Where the session found the encoding that a result rests on: ``memory``, ``disk`` or ``miss``."""
    from manylens.tasks import provenance_of

    provenance = provenance_of(result)
    return provenance.cache if provenance else ""


def run_process(command: Sequence[str]) -> None:
    """Run a command to its end, its output thrown away.

    Raises:
        RuntimeError: It failed; with what it said.
    """
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()[-500:]}")


@dataclass(frozen=True)
class Watched:
    """A process that ran to its end: the last line that it printed, read as JSON, and the memory of its whole tree."""

    said: dict[str, Any]
    seconds: float
    peak_rss: int


def run_module(module: str, told: Mapping[str, Any]) -> Watched:
    """Run ``python -m MODULE JSON`` and watch the resident memory of its tree of processes.

    Shared pages of several processes are counted in each, so the peak is never too small.

    Raises:
        RuntimeError: It failed; with what it said.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", module, json.dumps(told)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak, ended = [0], threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, peak, ended), daemon=True)
    watcher.start()
    try:
        out, errors = process.communicate()
    finally:
        ended.set()
        watcher.join()
    if process.returncode:
        raise RuntimeError(f"{module}: exit code {process.returncode}: {errors.strip()[-2000:]}")
    return Watched(json.loads(out.strip().splitlines()[-1]), time.perf_counter() - start, peak[0])


def _watch(pid: int, peak: list[int], ended: threading.Event) -> None:
    import psutil

    try:
        root = psutil.Process(pid)
    except psutil.Error:
        return
    while not ended.wait(_SAMPLE_SECONDS):
        total = 0
        for process in _tree(root):
            try:
                total += process.memory_info().rss
            except psutil.Error:
                continue  # it ended meanwhile
        peak[0] = max(peak[0], total)


def _tree(root: Any) -> list[Any]:
    import psutil

    try:
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def matrix_rate(settings: EngineSettings, rows: int, inner: int, outer: int) -> float:
    """The rate of OpenVINO's matrix products of some sizes, in operations a second: two for each multiplication."""
    import openvino as ov
    from openvino import opset13 as op

    from manylens.runtime import engines

    rng = np.random.default_rng(0)
    there, back = (
        op.constant(rng.standard_normal(shape, np.float32) / shape[1] ** 0.5)
        for shape in ((outer, inner), (inner, outer))
    )
    given = op.parameter([rows, inner], np.float32, name="given")
    x: Any = given
    for _ in range(3):
        x = op.matmul(op.matmul(x, there, False, True), back, False, True)
    # One number comes out, so that copying does not count.
    graph = ov.Model([op.reduce_max(x, np.array([0, 1]))], [given], "products")
    network = engines.compile(graph, settings)
    values = rng.standard_normal((rows, inner), np.float32)
    network(values)
    seconds = statistics.median(timed(partial(network, values))[0] for _ in range(5))
    network.close()
    return 6 * 2.0 * rows * inner * outer / seconds
