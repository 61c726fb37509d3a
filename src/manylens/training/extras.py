"""Libraries of the extra ``manylens[train]``, imported when they are first needed."""

from __future__ import annotations

import importlib
from typing import Any

from manylens.errors import EngineError

_EXTRA = {"mlflow": "mlflow"}
"""Extra by library, where it is not ``train``."""


def need(module: str) -> Any:
    """The module of a library that is not part of the plain install.

    Args:
        module: Its dotted name, such as ``imblearn.over_sampling``.

    Raises:
        EngineError: The library is not installed; names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise EngineError(
            f"{library} is not installed, and this needs it ({error})",
            f"run pip install 'manylens[{_EXTRA.get(library, 'train')}]'",
        ) from error
