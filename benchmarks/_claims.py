"""What a claim is, and the one JSON line that each run of one ends with."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import benchmarks

_LIBRARIES = ("manylens", "numpy", "openvino", "torch", "transformers")


@dataclass(frozen=True)
class Options:
    """What the command line passes to a claim.

    Attributes:
        data: The folder of regions to judge by, if one was named.
        full: Whether a claim that measures a part, because its peer takes minutes, is to measure the whole.
    """

    data: Path | None = None
    full: bool = False


@dataclass(frozen=True)
class Part:
    """One measured number with its goal.

    Attributes:
        name: What is measured.
        ours: As measured.
        peer: The same of the peer; None where there is nothing to compare.
        unit: Of both.
        goal: The number that ``ours`` is held to, or ``ratio`` where ``of`` says so; None for information only.
        of: What the goal is of.
        best: Whether the goal is the most or the least that will do.
    """

    name: str
    ours: float
    peer: float | None
    unit: str
    goal: float | None = None
    of: Literal["ours", "ratio"] = "ours"
    best: Literal["most", "least"] = "most"

    @property
    def ratio(self) -> float | None:
        """Ours by the peer's."""
        return self.ours / self.peer if self.peer else None

    @property
    def met(self) -> bool:
        """Whether the goal is reached; True where there is none."""
        if self.goal is None:
            return True
        value = self.ours if self.of == "ours" else self.ratio
        return value is not None and (value <= self.goal if self.best == "most" else value >= self.goal)

    def to_json(self) -> dict[str, Any]:
        """The part as a plain dictionary, numbers shortened."""
        body = asdict(self) | {"ratio": self.ratio, "met": self.met}
        return {key: _short(value) for key, value in body.items()}


@dataclass(frozen=True)
class Outcome:
    """What a run of a claim found.

    Attributes:
        parts: The measured numbers; the first one stands for the claim.
        checks: What had to hold beside the numbers, such as that a cache was used.
        notes: Anything else worth keeping, JSON-ready.
        unmeasured: Why nothing could be measured here, such as that there is no GPU; there are no parts then, and the
            claim is neither met nor missed.
    """

    parts: Sequence[Part]
    checks: dict[str, bool] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    unmeasured: str = ""

    @property
    def met(self) -> bool:
        """Whether every goal is reached and every check holds; True where nothing could be measured."""
        return all(part.met for part in self.parts) and all(self.checks.values())


@dataclass(frozen=True)
class Claim:
    """A claim of this project: a module with ``GOAL`` (one line) and ``run``; its docstring says how it is measured."""

    name: str
    goal: str
    about: str
    run: Callable[[Options], Outcome]

    def line(self, outcome: Outcome) -> str:
        """The JSON line that a run ends with."""
        first = outcome.parts[0].to_json() if outcome.parts else {}
        body = {
            "name": self.name,
            **{key: first.get(key) for key in ("ours", "peer", "unit", "ratio")},
            "goal": self.goal,
            "met": None if outcome.unmeasured else outcome.met,
            **({"unmeasured": outcome.unmeasured} if outcome.unmeasured else {}),
            "parts": [part.to_json() for part in outcome.parts],
            "checks": outcome.checks,
            "notes": outcome.notes,
            "machine": _machine(),
            "load": round(os.getloadavg()[0], 1),
            "versions": _versions(),
        }
        return json.dumps(body)


def claims() -> dict[str, Claim]:
    """Every claim by name: the modules of this package whose name has no underscore in front, in order."""
    names = sorted(info.name for info in pkgutil.iter_modules(benchmarks.__path__) if not info.name.startswith("_"))
    return {name.replace("_", "-"): _claim(name) for name in names}


def _claim(module_name: str) -> Claim:
    module = importlib.import_module(f"benchmarks.{module_name}")
    return Claim(module_name.replace("_", "-"), module.GOAL, (module.__doc__ or "").strip(), module.run)


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _machine() -> str:
    from manylens.runtime.cpu import cpu_name, threads

    return f"{cpu_name()}, {threads()} cores, {platform.system()}"


def _versions() -> dict[str, str]:
    from manylens.runtime.machine import library_version

    found = {name: library_version(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), **{name: version for name, version in found.items() if version}}


def table(outcome: Outcome) -> str:
    """The parts of an outcome for people."""
    lines = [f"not measured: {outcome.unmeasured}"] if outcome.unmeasured else []
    for part in outcome.parts:
        peer = "" if part.peer is None else f"  peer {part.peer:.4g}  ratio {part.ratio:.3g}"
        goal = "" if part.goal is None else f"  goal {part.of} at {part.best} {part.goal:g}: "
        lines.append(f"{part.name:<28} {part.ours:.4g} {part.unit}{peer}{goal}{_verdict(part.met) if goal else ''}")
    lines += [f"{name:<28} {_verdict(held)}" for name, held in outcome.checks.items()]
    return "\n".join(lines)


def _verdict(met: bool) -> str:
    return "met" if met else "missed"


def say(text: str) -> None:
    """Tell whoever waits how far it is, beside the results."""
    print(text, file=sys.stderr, flush=True)
