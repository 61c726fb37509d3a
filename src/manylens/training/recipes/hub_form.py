"""Checkpoints of transformers' own classes, written as they were read: a folder in the hub's format."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from manylens.models import checkpoint
from manylens.training.recipes.base import Given
from manylens.training.transfer.freezing import merged


def write(given: Given, folder: Path) -> None:
    """Write the base model as it is now, with the files that say how pictures are prepared.

    Args:
        given: Of the recipe; the base model's module is transformers' own.
        folder: Exists, and is empty.
    """
    module: Any = given.trainable.module
    state = {name: one.detach().cpu().contiguous() for name, one in merged(module).items()}
    with checkpoint.quiet():
        module.save_pretrained(folder, state_dict=state)
    row = given.session.catalog.resolve(given.config.model)
    for name, path in given.session.weights.ensure(row).items():
        if name in (checkpoint.PREPROCESSOR, checkpoint.PROCESSOR):
            shutil.copyfile(path, folder / name)
