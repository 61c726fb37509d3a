"""The few functions of torchvision that ``segment-anything`` imports, so that it runs where torchvision does not.

Written from torchvision's documentation: greedy NMS that keeps the best box and drops those that overlap it by more
than the threshold; PIL's resize. Shared by the tests and the peers of the benchmarks.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch


@cache
def segment_anything() -> Any:
    """The package ``segment_anything``, imported with a torchvision that works, or else with the stand-in.

    The stand-in is taken away again, so that no other library believes that torchvision is there.
    """
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        pass
    else:
        return importlib.import_module("segment_anything")
    for name in _ours():
        del sys.modules[name]  # what a broken one left behind
    for name, members in _MODULES.items():
        module = types.ModuleType(name)
        module.__dict__.update(members())
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    try:
        return importlib.import_module("segment_anything")
    finally:
        for name in _ours():
            del sys.modules[name]


def _ours() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == "torchvision"]


def box_area(boxes: torch.Tensor) -> torch.Tensor:
    """Areas ``(N,)`` of ``xyxy`` boxes."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Indices of the kept boxes by falling score."""
    order = torch.argsort(scores, descending=True, stable=True)
    areas, kept = box_area(boxes), []
    while order.numel():
        best, order = order[0], order[1:]
        kept.append(int(best))
        low = torch.maximum(boxes[best, :2], boxes[order, :2])
        high = torch.minimum(boxes[best, 2:], boxes[order, 2:])
        common = (high - low).clamp(min=0).prod(dim=1)
        # As there, boxes without area overlap nothing: 0 / 0 is not above the threshold.
        order = order[~(common / (areas[best] + areas[order] - common) > iou_threshold)]
    return torch.tensor(kept, dtype=torch.int64)


def batched_nms(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """NMS of each class for itself."""
    kept = [members[nms(boxes[members], scores[members], iou_threshold)] for members in _members(idxs)]
    found = torch.cat(kept) if kept else torch.empty(0, dtype=torch.int64)
    return found[torch.argsort(scores[found], descending=True, stable=True)]


def _members(classes: torch.Tensor) -> list[torch.Tensor]:
    return [torch.nonzero(classes == one).flatten() for one in classes.unique()]


def resize(image: Any, size: Any) -> Any:
    """A PIL image, bilinear, to ``(height, width)``."""
    from PIL import Image

    return image.resize((size[1], size[0]), Image.Resampling.BILINEAR)


def to_pil_image(array: np.ndarray) -> Any:
    """uint8 ``(H, W, 3)`` to a PIL image."""
    from PIL import Image

    return Image.fromarray(array)


def _boxes() -> dict[str, Any]:
    return {"nms": nms, "box_area": box_area, "batched_nms": batched_nms}


_MODULES: dict[str, Callable[[], dict[str, Any]]] = {
    "torchvision": dict,
    "torchvision.ops": _boxes,
    "torchvision.ops.boxes": _boxes,
    "torchvision.transforms": dict,
    "torchvision.transforms.functional": lambda: {"resize": resize, "to_pil_image": to_pil_image},
}
