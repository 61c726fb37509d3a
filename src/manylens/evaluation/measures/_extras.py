"""Packages that only some measures need: imported on first use, one line of remedy where they are missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from manylens.errors import UnsupportedError


def extra(package: str, of: str, what: str) -> Any:
    """Import an optional package.

    Args:
        package: Name of the module.
        of: The extra of this package that installs it.
        what: What needs it, for the message.

    Raises:
        UnsupportedError: It is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise UnsupportedError(
            f"{what}: needs {package.split('.')[0]}", f"run: pip install 'manylens[{of}]'"
        ) from error
