"""Executors: how many items are run, in order, within bounds.

``local`` runs in this process. Another kind registers its factory, or where to import it from, under a name::

    executors.register("cluster", "mypackage.cluster:ClusterExecutor")
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from manylens.errors import UserError
from manylens.runtime.executors.base import Executor, Failure

__all__ = ["Executor", "Failure", "get", "names", "register"]

_factories: dict[str, Callable[[], Executor] | str] = {"local": "manylens.runtime.executors.local:LocalExecutor"}


def register(name: str, factory: Callable[[], Executor] | str) -> None:
    """Makes an executor known by ``name``: its factory, or ``"module:attribute"`` to import on first use."""
    _factories[name] = factory


def names() -> list[str]:
    """The known executors."""
    return sorted(_factories)


def get(name: str) -> Executor:
    """A new executor of the kind ``name``.

    Raises:
        UserError: No executor has that name.
    """
    factory = _factories.get(name)
    if factory is None:
        raise UserError(f"executor {name!r}: not known", f"use {' or '.join(names())}")
    if isinstance(factory, str):
        module, _, attribute = factory.partition(":")
        factory = getattr(importlib.import_module(module), attribute)
    return factory()
