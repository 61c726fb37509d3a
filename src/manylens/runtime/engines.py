"""The engines that run a network, and OpenVINO's compiled models with everything pinned that changes a number.

Left alone, OpenVINO computes in bf16 where the processor has it, and takes all cores of the machine rather than those
of the process. Every model here is compiled with its precision and its threads said.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from manylens.errors import EngineError
from manylens.runtime import compiled_cache, flops
from manylens.runtime.cpu import cpu_flags, cpu_name, has_bf16, threads
from manylens.runtime.held import Held

if TYPE_CHECKING:
    from collections.abc import Iterator

    import openvino

__all__ = ["Compiled", "EngineSettings", "compile", "core", "cpu_flags", "cpu_name", "has_bf16", "threads"]

Engine = Literal["openvino", "torch"]
Precision = Literal["f32", "bf16"]
Mode = Literal["latency", "throughput"]
Shape = Sequence[int]


@dataclass(frozen=True)
class EngineSettings:
    """How a network is run. Part of an embedding's key, and of the provenance of every result.

    Args:
        engine: ``"openvino"`` or ``"torch"``.
        precision: ``"f32"`` or ``"bf16"``.
        threads: Processor threads of one inference; as many as the process has cores when left out.
        device: ``"cpu"``, or for torch ``"cuda"``, ``"cuda:1"``, ``"mps"``.
    """

    engine: Engine = "openvino"
    precision: Precision = "f32"
    threads: int = field(default_factory=threads)
    device: str = "cpu"

    @property
    def label(self) -> str:
        """For people: ``"openvino bf16"``, with the device when it is not the processor."""
        return f"{self.engine} {self.precision}" + ("" if self.device == "cpu" else f" {self.device}")

    def to_json(self) -> dict[str, str | int]:
        """The same as a plain dictionary; ``EngineSettings(**settings.to_json())`` reads it back."""
        return asdict(self)


class Compiled:
    """A compiled network: arrays in, arrays out. Safe under threads.

    Made by :func:`compile`. Calls beyond the number of infer requests wait their turn.
    """

    def __init__(self, compiled: openvino.CompiledModel, requests: int, memory: np.ndarray | None = None) -> None:
        self._compiled: openvino.CompiledModel | None = compiled
        # What the network rests on; let go last, so after every call that still runs when it is closed.
        self._memory = memory
        self._free: queue.LifoQueue[openvino.InferRequest | None] = queue.LifoQueue()
        for _ in range(requests):
            self._free.put(None)  # an infer request holds its activations, so it is made when first needed
        # Where an input was once held, the request's own array of it is gone: copying one in would write the caller's.
        self._shares = False
        self.inputs = tuple(_port_name(port, number) for number, port in enumerate(compiled.inputs))
        self.outputs = tuple(_port_name(port, number) for number, port in enumerate(compiled.outputs))

    def __call__(self, *arrays: np.ndarray | Held, **named: np.ndarray | Held) -> list[np.ndarray]:
        """Runs the network.

        Args:
            arrays: The inputs in the network's own order (:attr:`inputs`), what is held by the engine as it is, or
            named: the inputs by name; odd names go in as ``**{"image:0": array}``.

        Returns:
            The outputs in the order of :attr:`outputs`; the caller's own arrays.

        Raises:
            EngineError: An input is missing or of the wrong shape, the network fails, or it is closed.
        """
        with self._ran(self._ordered(arrays, named)) as request:
            return [np.array(output.data) for output in request.output_tensors]

    def into(self, outputs: Sequence[Held], *arrays: np.ndarray | Held) -> None:
        """As a call, with the outputs written where they are held for the network that takes them next.

        Args:
            outputs: One for each, of its type and shape.
            arrays: The inputs in the network's own order.
        """
        with self._ran(self._ordered(arrays, {}), outputs) as request:
            found = [tuple(request.get_output_tensor(number).shape) for number in range(len(outputs))]
        if found != [one.shape for one in outputs]:
            raise EngineError(f"network: gave {found}, where {[one.shape for one in outputs]} was to be written")

    @property
    def precision(self) -> str:
        """The precision that the network really computes in, as OpenVINO says: ``"f32"`` or ``"bf16"``."""
        return str(self._live().get_property("INFERENCE_PRECISION_HINT").to_string())

    def close(self) -> None:
        """Frees the network's memory; a call that still runs ends well, later ones fail."""
        self._compiled = None
        while True:
            try:
                self._free.get_nowait()
            except queue.Empty:
                break
        self._free.put(None)  # wakes a call that waits: it then finds the network closed

    @contextmanager
    def _ran(self, values: Mapping[int, Any], outputs: Sequence[Held] = ()) -> Iterator[openvino.InferRequest]:
        """A request that has run."""
        if any(isinstance(one, Held) for one in values.values()):
            self._shares = True  # never taken back: another thread's plain call must know as well
        with self._request() as request:
            own = request.output_tensors if outputs else []
            if self._shares:
                values = {number: self._as_port(number, one) for number, one in values.items()}
            try:
                for number, output in enumerate(outputs):
                    request.set_output_tensor(number, output.tensor)
                given = {number: _tensor(one) if self._shares else one for number, one in values.items()}
                request.infer(given, share_outputs=True)  # whoever asked copies them, or has them where they belong
                if flops.active():
                    shape = tuple(values[0].shape)
                    flops.ran(flops.of_graph(self._live(), shape[0] if shape else 1))
                yield request
            except RuntimeError as error:
                raise EngineError(f"network: inference failed ({_reason(error)})") from error
            finally:
                # What was found is the caller's now, and not to be written by the next run.
                for number, output in enumerate(own):
                    request.set_output_tensor(number, output)

    def _as_port(self, number: int, value: np.ndarray | Held) -> np.ndarray | Held:
        """An array of its input's type, which the engine sees to itself only where it copies."""
        if isinstance(value, Held):
            return value
        return value.astype(self._live().inputs[number].element_type.to_dtype(), copy=False)

    @contextmanager
    def _request(self) -> Iterator[openvino.InferRequest]:
        request = self._free.get()
        try:
            compiled = self._live()
            request = request or compiled.create_infer_request()
            yield request
        finally:
            self._free.put(None if self._compiled is None else request)

    def _live(self) -> openvino.CompiledModel:
        if self._compiled is None:
            raise EngineError("network: used after it was closed")
        return self._compiled

    def _ordered(self, arrays: Sequence[np.ndarray | Held], named: Mapping[str, np.ndarray | Held]) -> dict[int, Any]:
        if len(arrays) > len(self.inputs):
            raise EngineError(f"network: {len(arrays)} inputs given, it has {len(self.inputs)}")
        values = dict(zip(self.inputs, arrays, strict=False)) | dict(named)
        wrong = set(values).symmetric_difference(self.inputs)
        if wrong or len(values) != len(arrays) + len(named):
            expected = ", ".join(self.inputs)
            raise EngineError(f"network: inputs {', '.join(sorted(values)) or 'none'} given, it has {expected}")
        given = ((number, values[name]) for number, name in enumerate(self.inputs))
        return {number: one if isinstance(one, Held) else np.ascontiguousarray(one) for number, one in given}


@cache
def _core() -> openvino.Core:
    import openvino

    core = openvino.Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")  # loads what runs on a processor, which may be missing
    return core


_core_lock = threading.Lock()


def core() -> openvino.Core:
    """The one OpenVINO core of the process, made on first use.

    Raises:
        EngineError: OpenVINO is not installed, or does not run here.
    """
    with _core_lock:
        try:
            return _core()
        except (ImportError, RuntimeError, OSError) as error:
            raise EngineError(f"openvino: does not run here ({_reason(error)})", "use --engine torch") from error


def compile(  # the module is the namespace: engines.compile
    model: str | Path | bytes | openvino.Model | Callable[[], openvino.Model],
    settings: EngineSettings | None = None,
    *,
    outputs: Sequence[str] | None = None,
    reshape: Mapping[str, Shape] | Shape | None = None,
    mode: Mode = "latency",
    identity: str | None = None,
) -> Compiled:
    """Reads a network and compiles it for the processor.

    The compiled form of a file is kept in ``compiled/`` of the home folder, bounded, and taken from there next time.

    Args:
        model: An ONNX, TensorFlow ``.pb``, ``.tflite`` or IR ``.xml`` file, the bytes of an ONNX file, a model in
            memory (which is left as it is), or a function that makes one: called only where ``identity`` does not
            name a network that is kept.
        settings: Precision and threads; f32 on all cores when left out.
        outputs: Names of the tensors to give, also inner ones; the rest of the graph is cut away. All outputs when
            left out.
        reshape: New shape of the inputs, by name; a plain shape when there is one input. -1 leaves a side free.
        mode: ``"latency"`` gives all threads to one inference at a time; ``"throughput"`` runs several side by side.
        identity: Names the content of a model in memory, such as its weights' hash, so that it is kept as well.

    Raises:
        EngineError: The file is not a network that OpenVINO reads, has no such tensor or shape, or the settings are
            those of another engine.
    """
    settings = settings or EngineSettings()
    if settings.engine != "openvino" or settings.device != "cpu":
        raise EngineError(f"{settings.label}: not settings of the OpenVINO engine on a processor")
    properties = _properties(settings, mode)
    try:
        source = identity or compiled_cache.identity(model)
        shapes = None if reshape is None else _shapes(reshape)
        key = compiled_cache.key(source, outputs, shapes, properties) if source else None
        kept = compiled_cache.load(key, core(), properties) if key else None
        if kept is not None:
            compiled, memory = kept
        else:
            memory = None
            compiled = core().compile_model(_prepared(model, outputs, shapes), "CPU", properties)
            if key:
                compiled_cache.keep(key, compiled)
        requests = 1 if mode == "latency" else int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
    except RuntimeError as error:
        raise EngineError(f"{_name(model)}: cannot be compiled ({_reason(error)})") from error
    return Compiled(compiled, requests, memory)


def _properties(settings: EngineSettings, mode: Mode) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": settings.precision,
        "INFERENCE_NUM_THREADS": settings.threads,
        # Pinned threads of two processes land on the same cores and halve each other.
        "ENABLE_CPU_PINNING": False,
        "PERFORMANCE_HINT": mode.upper(),
    }


def _prepared(
    model: str | Path | bytes | openvino.Model | Callable[[], openvino.Model],
    outputs: Sequence[str] | None,
    shapes: Mapping[str, list[int]] | list[int] | None,
) -> openvino.Model:
    try:
        graph = _read(model)
    except RuntimeError as error:
        what = f"{_name(model)}: not a network that OpenVINO reads ({_reason(error)})"
        raise EngineError(what, "fetch the model again") from error
    if outputs is not None:
        graph = _cut(graph, outputs)
    if shapes is not None:
        graph.reshape(shapes)
    return graph


def _read(model: str | Path | bytes | openvino.Model | Callable[[], openvino.Model]) -> openvino.Model:
    if callable(model):
        return model()
    if isinstance(model, bytes):
        return core().read_model(model, b"")
    if isinstance(model, str | Path):
        return core().read_model(str(model))
    return model.clone()


def _name(model: str | Path | bytes | openvino.Model | Callable[[], openvino.Model]) -> str:
    if isinstance(model, bytes) or callable(model):
        return "network"
    return Path(model).name if isinstance(model, str | Path) else str(model.friendly_name)


def _cut(graph: openvino.Model, outputs: Sequence[str]) -> openvino.Model:
    """The part of the graph that leads to the tensors ``outputs``."""
    import openvino

    known = {name: port for node in graph.get_ops() for port in node.outputs() for name in port.get_names()}
    missing = [name for name in outputs if name not in known]
    if missing:
        raise EngineError(f"{graph.friendly_name}: has no tensor {', '.join(missing)}")
    ports = [known[name] for name in outputs]
    needed, front = set(), [port.get_node() for port in ports]
    while front:
        node = front.pop()
        if node.friendly_name not in needed:
            needed.add(node.friendly_name)
            front += [value.get_source_output().get_node() for value in node.inputs()]
    parameters = [parameter for parameter in graph.get_parameters() if parameter.friendly_name in needed]
    return openvino.Model(ports, parameters, graph.friendly_name)


def _shapes(reshape: Mapping[str, Shape] | Shape) -> dict[str, list[int]] | list[int]:
    if isinstance(reshape, Mapping):
        return {name: list(shape) for name, shape in reshape.items()}
    return list(reshape)


def _tensor(value: np.ndarray | Held) -> Any:
    """Not a copy, unless it cannot be written; the array must outlive it."""
    if isinstance(value, Held):
        return value.tensor
    import openvino

    return openvino.Tensor(value, shared_memory=value.flags.writeable)


def _port_name(port: Any, number: int) -> str:
    names = sorted(port.get_names(), key=lambda name: (len(name), name))
    return names[0] if names else str(number)


def _reason(error: Exception) -> str:
    """The telling line of an error of OpenVINO, which brackets it with source positions."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check '")) and not line.endswith(":")]
    return (telling or lines or [type(error).__name__])[0][:200]
