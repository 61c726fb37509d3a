"""Compiled networks, kept on disk: a ViT-S that takes 5 s to compile is imported in 0.2 s, the same to the bit."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.errors import EngineError
from manylens.runtime.cpu import cpu_flags, cpu_name
from manylens.runtime.disk import DiskCache
from manylens.runtime.machine import library_version
from manylens.runtime.paths import compiled_folder

if TYPE_CHECKING:
    import openvino

_FORMAT = 1
_LIMIT_BYTES = 8 << 30  # a ViT-L in f32 takes 1.5 GB; the least recently used leave first


def identity(model: Any) -> str | None:
    """What names the content of a network: of a file its path, size and time; ``None`` for a model in memory.

    Raises:
        EngineError: The file is not there.
    """
    if isinstance(model, bytes):
        return hashlib.sha256(model).hexdigest()
    if not isinstance(model, str | Path):
        return None
    path = Path(model)
    files = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    states = [file.stat() for file in files if file.is_file()]
    if not states:
        raise EngineError(f"{path}: no such file", "fetch the model again")
    return " ".join([str(path.resolve()), *(f"{state.st_size} {state.st_mtime_ns}" for state in states)])


def key(
    source: str,
    outputs: Sequence[str] | None,
    shapes: Mapping[str, list[int]] | list[int] | None,
    properties: Mapping[str, Any],
) -> str:
    """Digest of all that the compiled form depends on, the processor and the engine's version included."""
    machine = [library_version("openvino"), cpu_name(), sorted(cpu_flags())]
    told = [_FORMAT, source, outputs and list(outputs), shapes, properties, machine]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def load(
    digest: str, core: openvino.Core, properties: dict[str, Any]
) -> tuple[openvino.CompiledModel, np.ndarray] | None:
    """The compiled network and the memory that it rests on, or ``None`` when it is not kept or cannot be read any more.

    The memory is the file's, mapped where that is large: the engine takes what it needs of it without a copy, and does
    not hold it itself, so it has to outlive the network.
    """
    import openvino

    arrays = _cache(compiled_folder()).get(digest, writable=True)
    if arrays is None or "blob" not in arrays:
        return None
    try:
        blob = arrays["blob"]
        return core.import_model(openvino.Tensor(blob, shared_memory=True), "CPU", properties), blob
    except RuntimeError:
        return None  # it is compiled again, and replaced


def keep(digest: str, compiled: openvino.CompiledModel) -> None:
    """Keeps a compiled network, if it can be exported."""
    with suppress(RuntimeError):
        blob = compiled.export_model()
        _cache(compiled_folder()).put(digest, {"blob": np.frombuffer(blob.getbuffer(), np.uint8)})


@functools.cache
def _cache(folder: Path) -> DiskCache:
    return DiskCache(folder, _LIMIT_BYTES)
