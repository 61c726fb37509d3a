"""Heads on the features of a backbone; each says by ``needs`` which it wants."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

HEADS: dict[str, str] = {
    "linear": "vector:Linear",
    "mlp": "vector:Mlp",
    "attentive": "vector:Attentive",
    "projection": "projection:Projection",
    "mlp-projection": "projection:MlpProjection",
    "linear-mask": "semantic:LinearSemantic",
    "upernet": "semantic:UPerNet",
    "eomt": "queries:MaskQueries",
    "detector": "detection:Detector",
    "promptable": "promptable:Promptable",
}
"""Module and class of each head by its name in a config."""


def build(kind: str, widths: Mapping[str, int], labels: int, options: Mapping[str, Any]) -> nn.Module:
    """A fresh head.

    Args:
        kind: A name of :data:`HEADS`.
        widths: Width of each feature that the backbone gives.
        labels: How many classes there are.
        options: Of the head.
    """
    return head(kind)(widths, labels, **options)


def options(kind: str) -> list[str]:
    """Names of the options of a head."""
    import inspect

    return [name for name, one in inspect.signature(head(kind)).parameters.items() if one.kind is one.KEYWORD_ONLY]


def head(kind: str) -> Any:
    """The class of a head by its name."""
    module, name = HEADS[kind].split(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
