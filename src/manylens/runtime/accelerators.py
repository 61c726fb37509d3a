"""Graphics processors, asked for without loading torch where there is none."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_DEVICE_FILES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))


@cache
def cuda() -> bool:
    """Whether torch can use a GPU of NVIDIA's here.

    torch takes a second to load, so that it is asked only where a driver is in sight.
    """
    if not any(file.exists() for file in _DEVICE_FILES):
        return False
    try:
        import torch

        return bool(torch.cuda.is_available())
    except (ImportError, RuntimeError, OSError):
        return False
