"""Networks made of torch modules."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch

from manylens.models import network
from manylens.models.network import Blueprint, Pieces
from manylens.runtime.engines import EngineSettings


def test_one_module_is_traced_at_a_time() -> None:
    # The tracer's state is the process's.
    inside, most = [0], [0]

    class Slow(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.05)
            inside[0] -= 1
            return x * 2

    made = Blueprint("slow", Slow, lambda: [torch.ones(2)], ("x",), ("y",))
    threads = [threading.Thread(target=network.traced, args=(made,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_pieces_are_built_once_and_with_one_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path))  # nothing is kept of an earlier run
    read: list[int] = []

    class Scaled(torch.nn.Module):
        def __init__(self, factor: int) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.factor

    def blueprint(name: str) -> Blueprint:
        return Blueprint(name, lambda: Scaled(pieces.module() * int(name)), lambda: [torch.ones(2)], ("x",), ("y",))

    def load() -> int:
        read.append(1)
        return 5

    for engine in ("torch", "openvino"):
        pieces = Pieces(blueprint, load, EngineSettings(engine), f"pieces {engine}")  # type: ignore[arg-type]
        pieces.prepare("2", "3")
        given = torch.tensor([1.0, 4.0]).numpy()
        assert [pieces.of(name)(given)[0].tolist() for name in ("2", "3")] == [[10, 40], [15, 60]]
        assert pieces.of("2") is pieces.of("2")
        pieces.close()
    assert len(read) == 2
