"""Whether a written network answers as torch does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from manylens.errors import EngineError
from manylens.models import network
from manylens.runtime import engines
from manylens.runtime.engines import EngineSettings

if TYPE_CHECKING:
    import openvino

    from manylens.models.network import Blueprint
    from manylens.training.portable import Part


@dataclass(frozen=True)
class Parity:
    """How a written network answers beside torch.

    Attributes:
        pictures: On how many.
        source: Which: those of a data set, or noise.
        difference: Largest absolute difference by output.
        share: The same as a share of the largest number of that output in torch (at least 1): what is judged.
        agreement: Share of equal answers by output, where its numbers are an answer: the best label, inside or outside
            of a mask, the nearest other picture.
        batches: How many at a time.
    """

    pictures: int
    source: str
    difference: Mapping[str, float]
    share: Mapping[str, float]
    agreement: Mapping[str, float]
    batches: Sequence[int]

    @property
    def line(self) -> str:
        """In words."""
        worst = max(self.difference.values())
        agree = f"; {100 * min(self.agreement.values()):.4g} % of the answers agree" if self.agreement else ""
        sizes = " and ".join(map(str, self.batches))
        return f"differs from torch by {worst:.2g} at most, on {self.source}, in batches of {sizes}{agree}"


def compared(part: Part, path: Path, squares: np.ndarray, source: str) -> Parity:
    """The answers of a written network beside those of torch.

    Args:
        part: The network in torch.
        path: What was written of it.
        squares: Pictures, uint8 ``(n, side, side, 3)``.
        source: Which these are.

    Raises:
        EngineError: The file does not run, or gives other outputs.
    """
    drawn = part.blueprint
    reference = network.TorchNetwork(drawn.module(), EngineSettings("torch"))
    graph = _opened(path)
    _check_ports(path, graph, drawn)
    other = engines.compile(graph)
    difference, share, agreement = ({} for _ in range(3))  # type: dict[str, float], dict[str, float], dict[str, float]
    batches = []
    try:
        for given in part.samples(squares):
            expected, answers = reference(*given), other(*given)
            batches.append(len(expected[0]))
            for name, one, answer in zip(drawn.outputs, expected, answers, strict=True):
                if one.shape != answer.shape:
                    raise EngineError(f"{path.name}: gives {name} {answer.shape} where torch gives {one.shape}")
                apart, scale = np.abs(one - answer), max(1.0, float(np.abs(one).max(initial=0)))
                # What is no number is as far away as can be.
                largest = float(apart.max(initial=0)) if np.isfinite(apart).all() else float("inf")
                difference[name] = max(difference.get(name, 0.0), largest)
                share[name] = max(share.get(name, 0.0), largest / scale)
                same = _agreement(name, one, answer)
                if same is not None:
                    agreement[name] = min(agreement.get(name, 1.0), same)
    finally:
        other.close()
    return Parity(len(squares), source, difference, share, agreement, batches)


def _opened(path: Path) -> openvino.Model:
    try:
        return engines.core().read_model(str(path))
    except RuntimeError as error:
        why = str(error).strip().splitlines()[-1]
        raise EngineError(f"{path.name}: OpenVINO does not read it ({why[:200]})", "try the other format") from error


def _check_ports(path: Path, graph: openvino.Model, drawn: Blueprint) -> None:
    """Inputs and outputs are found by their names, in their order."""
    for ports, names in ((graph.inputs, drawn.inputs), (graph.outputs, drawn.outputs)):
        if len(ports) != len(names) or any(
            name not in port.get_names() for port, name in zip(ports, names, strict=True)
        ):
            there = ", ".join(str(sorted(port.get_names())) for port in ports)
            raise EngineError(f"{path.name}: has {there} where {', '.join(names)} belong", "try the other format")


def judge(path: Path, parity: Parity, tolerance: float) -> None:
    """Refuse a network that answers otherwise.

    Args:
        path: Of its file.
        parity: How it answers.
        tolerance: The largest share that is let pass.

    Raises:
        EngineError: Names the output that lies farthest off.
    """
    name = max(parity.share, key=lambda one: parity.share[one])
    if not parity.share[name] <= tolerance:
        raise EngineError(
            f"{path.name}: answers otherwise than torch: {name} by {parity.difference[name]:.3g}, "
            f"{parity.share[name]:.2g} of its scale where {tolerance:g} is allowed, on {parity.source}",
            "nothing was kept; try the other format",
        )


def _agreement(name: str, one: np.ndarray, other: np.ndarray) -> float | None:
    """Share of equal answers, where the numbers of an output are an answer."""
    best: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
        "logits": lambda x: x.argmax(axis=1),
        "classes": lambda x: x.argmax(axis=-1),
        "scores": lambda x: x.reshape(len(x), -1).argmax(axis=1),
        "masks": lambda x: x > 0,
        "low_res": lambda x: x > 0,
        "iou": lambda x: x[:, 1:].argmax(axis=1),
        "vector": _nearest,
    }
    if name not in best or (name == "vector" and len(one) < 3):
        return None
    return float((best[name](one) == best[name](other)).mean())


def _nearest(vectors: np.ndarray) -> np.ndarray:
    """The number of the other vector that is most like each."""
    alike = vectors @ vectors.T
    np.fill_diagonal(alike, -np.inf)
    return np.asarray(alike.argmax(axis=1))
