"""One torch module, run by either engine: the seam between a family's code and torch or OpenVINO."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from manylens.models import checkpoint
from manylens.runtime import engines
from manylens.runtime.engines import EngineSettings
from manylens.runtime.machine import library_version
from manylens.version import __version__

if TYPE_CHECKING:
    import openvino
    import torch


_tracing = threading.Lock()
"""The tracer's state is the process's: two at a time lose their modules."""


class Network(Protocol):
    """A network on one engine: arrays in, arrays out, in the order of its description. Safe under threads."""

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]: ...  # noqa: D102

    def close(self) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Blueprint:
    """A network before it is on an engine.

    Attributes:
        name: Of the part, such as ``encoder``; part of the identity under which its compiled form is kept.
        module: Makes the torch module: in evaluation mode, tensors in by position, one tensor or a tuple of them out.
            Called only where no compiled form is kept, so that a second start need not read the weights.
        example: Makes tensors to trace the module with.
        inputs: Names of the inputs, in order.
        outputs: Names of the outputs, in order.
        shapes: Shape by input, -1 where a side is free; inputs that are not named keep the example's shape.
        graph: Makes the OpenVINO model itself, where a hand-built one is better than a traced one.
        changes: Raise it when the module's code changes what it computes, so that no old compiled form is used.
    """

    name: str
    module: Callable[[], torch.nn.Module]
    example: Callable[[], Sequence[torch.Tensor]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    graph: Callable[[], openvino.Model] | None = None
    changes: int = 1


def build(blueprint: Blueprint, settings: EngineSettings, weights: str) -> Network:
    """Put a network on an engine.

    Args:
        blueprint: The network.
        settings: Engine, precision, threads and device.
        weights: Hash of the weights.

    Raises:
        EngineError: The network does not compile there.
        WeightsError: The weights do not load.
    """
    if settings.engine == "torch":
        return TorchNetwork(blueprint.module(), settings)
    about = (weights, blueprint.name, blueprint.changes, __version__, library_version("transformers"), blueprint.shapes)
    return engines.compile(blueprint.graph or (lambda: traced(blueprint)), settings, identity=f"network {about}")


class Pieces:
    """The networks of one checkpoint by name, each built when it is first needed. Safe under threads.

    Args:
        blueprint: A network by its name.
        load: Reads the checkpoint's module, which the blueprints are of: once for all that is built together.
        settings: Engine, precision, threads and device.
        weights: Hash of the weights.
    """

    def __init__(
        self,
        blueprint: Callable[[str], Blueprint],
        load: Callable[[], Any],
        settings: EngineSettings,
        weights: str,
    ) -> None:
        self._blueprint, self._load, self._settings, self._weights = blueprint, load, settings, weights
        self._built: dict[str, Network] = {}
        self._module: Any = None
        self._lock = threading.RLock()

    def of(self, name: str) -> Network:
        """A network, built if it is not."""
        self.prepare(name)
        return self._built[name]

    def prepare(self, *names: str) -> None:
        """Build several with one reading of the weights."""
        with self._lock:
            for name in names:
                if name not in self._built:
                    self._built[name] = build(self._blueprint(name), self._settings, self._weights)
            if self._settings.engine != "torch":
                self._module = None  # a traced network holds its own copy of the weights

    def module(self) -> Any:
        """The checkpoint's module, for the blueprints; read if it is not."""
        with self._lock:
            if self._module is None:
                self._module = self._load()
            return self._module

    def close(self) -> None:
        """Give the memory back."""
        with self._lock:
            for one in self._built.values():
                one.close()
            self._built, self._module = {}, None


class Sizes:
    """One network for pictures of several sizes, compiled for each; those of the last sizes stay.

    Safe under threads: one that falls out while another thread still runs it ends well, and then gives its memory back.

    Args:
        blueprint: The network for a width and a height.
        settings: Engine, precision, threads and device.
        weights: Hash of the weights.
        most: How many stay.
    """

    def __init__(
        self, blueprint: Callable[[int, int], Blueprint], settings: EngineSettings, weights: str, most: int = 2
    ) -> None:
        self._blueprint, self._settings, self._weights, self._most = blueprint, settings, weights, most
        self._built: dict[tuple[int, int], Network] = {}
        self._lock = threading.Lock()

    def of(self, width: int, height: int) -> Network:
        """The network for pictures of one size."""
        with self._lock:
            found = self._built.pop((width, height), None)
            if found is None:
                while len(self._built) >= self._most:
                    self._built.pop(next(iter(self._built)))
                found = build(self._blueprint(width, height), self._settings, self._weights)
            self._built[width, height] = found  # the last of them, as it was used last
            return found

    def close(self) -> None:
        """Give the memory back."""
        with self._lock:
            for one in self._built.values():
                one.close()
            self._built.clear()


def traced(blueprint: Blueprint) -> openvino.Model:
    """The OpenVINO model of a torch module, by tracing it."""
    import openvino as ov
    import torch
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    example = tuple(blueprint.example())
    shapes = [
        list(blueprint.shapes.get(name, tensor.shape)) for name, tensor in zip(blueprint.inputs, example, strict=True)
    ]
    with _tracing, torch.no_grad(), warnings.catch_warnings(), checkpoint.quiet():
        warnings.simplefilter("ignore")  # the tracer warns of every shape that it takes for a constant
        # Without the tracer's own check, which runs the module twice more.
        decoder = TorchScriptPythonDecoder(
            blueprint.module(), example_input=example, trace_kwargs={"check_trace": False}
        )
        model = ov.convert_model(decoder, input=[ov.PartialShape(shape) for shape in shapes])
    for port, name in (*zip(model.inputs, blueprint.inputs, strict=True), *_named(model, blueprint)):
        port.get_tensor().set_names({name})
    return model


def _named(model: openvino.Model, blueprint: Blueprint) -> Any:
    return zip(model.outputs, blueprint.outputs, strict=True)


def wrapped(model: Any, forward: Callable[..., Any]) -> torch.nn.Module:
    """A module that runs ``forward(model, *tensors)``: a part of a family's own class as a network."""
    import torch

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: torch.Tensor) -> Any:
            return forward(self.model, *tensors)

    return Wrapped().eval()


class TorchNetwork:
    """A module on the torch engine. Half precision is autocast on a processor, half weights on a GPU."""

    def __init__(self, module: torch.nn.Module, settings: EngineSettings) -> None:
        import torch

        self._torch, self._settings = torch, settings
        self._half = settings.precision == "bf16"
        self._on_cpu = torch.device(settings.device).type == "cpu"
        if self._on_cpu:
            torch.set_num_threads(settings.threads)
        dtype = torch.bfloat16 if self._half and not self._on_cpu else torch.float32
        self._module: Any = module.eval().requires_grad_(False).to(settings.device, dtype)
        self._dtype = dtype
        self._lock = threading.Lock()

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Run the module on arrays; float32 arrays come back (whole numbers stay whole)."""
        torch = self._torch
        # What is kept is read-only, which torch warns of.
        tensors = [self._moved(torch.from_numpy(np.require(array, requirements=["C", "W"]))) for array in arrays]
        cast = torch.autocast("cpu", torch.bfloat16, enabled=self._half and self._on_cpu)
        with self._lock, torch.inference_mode(), cast:
            found = self._module(*tensors)
        several = found if isinstance(found, tuple | list) else (found,)
        return [(one.float() if one.is_floating_point() else one).cpu().numpy() for one in several]

    def _moved(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self._settings.device, self._dtype if tensor.is_floating_point() else None)

    def close(self) -> None:
        """Give the memory back."""
        self._module = None
