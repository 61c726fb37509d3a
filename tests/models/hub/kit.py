"""Checkpoint folders of the true architecture at a small size, and the proof that a parity test can fail.

Random weights can lie: tables that start at zero, layers that start at one, gates that never open. So every tensor is
filled with noise, and each parity test is run again with each group of parameters dropped or permuted: it must fail.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks._baselines.noise import noisy as noisy
from safetensors.torch import load_file, save_file

from manylens import models
from manylens.catalog import Catalog, WeightsStore
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings


def save(model: Any, folder: Path, **extra: Mapping[str, Any]) -> Path:
    """Write a checkpoint folder in the hub's format.

    Args:
        model: A model of transformers.
        folder: Made anew.
        extra: JSON files beside it, by name without ``.json``, such as ``preprocessor_config={...}``.
    """
    model.save_pretrained(folder)
    for name, body in extra.items():
        (folder / f"{name}.json").write_text(json.dumps(body))
    return folder


def opened(folder: Path, **settings: Any) -> Any:
    """The model of a folder, through the catalog and the true loading code; engine torch f32 unless told.

    One thread: for networks as small as these a second one only waits for the first.
    """
    row = Catalog.load().resolve(folder)
    return models.load(row, WeightsStore().ensure(row), EngineSettings(**{"engine": "torch", "threads": 1, **settings}))


def run(model: Any, request: Any, **context: Any) -> Any:
    """The result of one request, without a session."""
    return next(iter(model.run([request], Context(**context))))


def groups(folder: Path) -> dict[str, list[str]]:
    """The tensors of a checkpoint by kind: names with their layer numbers taken out."""
    return kinds(name for file in sorted(folder.glob("*.safetensors")) for name in load_file(file))


def kinds(names: Iterable[str]) -> dict[str, list[str]]:
    """Names of tensors by kind: with their layer numbers taken out."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(re.sub(r"(?<=\.)\d+(?=\.|$)", "#", name), []).append(name)
    return found


def damaged(folder: Path, names: list[str], target: Path, seed: int = 1) -> Path:
    """A copy of a checkpoint with some tensors permuted (where that changes them) or dropped to zero."""
    shutil.copytree(folder, target, dirs_exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    for file in sorted(target.glob("*.safetensors")):
        tensors = load_file(file)
        for name in set(names) & tensors.keys():
            tensors[name] = _wrong(tensors[name], generator)
        save_file(tensors, file, metadata={"format": "pt"})
    return target


def _wrong(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A tensor permuted, or zero where that does not change it."""
    flat = tensor.flatten()
    mixed = flat[torch.randperm(flat.numel(), generator=generator)].reshape(tensor.shape)
    same = not tensor.is_floating_point() or torch.equal(mixed, tensor)
    return torch.zeros_like(tensor) if same else mixed.contiguous()


def unnoticed(
    folder: Path, scratch: Path, outputs: Callable[[Path], Mapping[str, np.ndarray]], tolerance: float, skip: str = ""
) -> list[str]:
    """The groups of parameters whose damage a parity test does not notice; an honest test has none.

    Args:
        folder: The checkpoint.
        scratch: Where damaged copies are written.
        outputs: Runs our code on a checkpoint folder and gives what the parity test compares.
        tolerance: The largest difference that the parity test forgives.
        skip: Regular expression of groups that rightly change nothing here (say why where you use it).
    """
    right = outputs(folder)
    missed = []
    for number, (group, names) in enumerate(groups(folder).items()):
        if skip and re.search(skip, group):
            continue
        wrong = outputs(damaged(folder, names, scratch / str(number)))
        shutil.rmtree(scratch / str(number))
        if all(_close(right[key], wrong[key], tolerance) for key in right):
            missed.append(group)
    return missed


def overlooked(
    module: torch.nn.Module,
    outputs: Callable[[], Iterable[tuple[str, np.ndarray]]],
    tolerance: float,
    skip: str = "",
) -> list[str]:
    """As :func:`unnoticed`, for a large module that our code holds: it is damaged in memory and mended again.

    Args:
        module: The loaded module that our code runs; its tensors have the names of the checkpoint.
        outputs: Runs our code anew and gives what the parity tests compare, one after the other: what comes after
            the first difference is not asked for.
        tolerance: The largest difference that the parity tests forgive.
        skip: Regular expression of groups that rightly change nothing here (say why where you use it).
    """
    tensors = module.state_dict()
    right, missed = dict(outputs()), []
    for group, names in kinds(tensors).items():
        if skip and re.search(skip, group):
            continue
        whole = {name: tensors[name].clone() for name in names}
        generator = torch.Generator().manual_seed(1)
        for name in names:
            tensors[name].copy_(_wrong(tensors[name], generator))
        if all(_close(right[key], wrong, tolerance) for key, wrong in outputs()):
            missed.append(group)
        for name in names:
            tensors[name].copy_(whole[name])
    return missed


def _close(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, atol=tolerance, rtol=0, equal_nan=True))
