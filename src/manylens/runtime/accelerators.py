"""Graphics processors, asked for without loading torch where there is none."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from manylens.errors import UserError

_DEVICE = re.compile(r"cpu|mps|cuda(:\d+)?")
_DEVICE_FILES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))


def check(device: str) -> str:
    """The name of a device, if it is here.

    Raises:
        UserError: It is none, or not here.
    """
    kind = device.partition(":")[0]
    if not _DEVICE.fullmatch(device):
        raise UserError(f"device {device!r}: no such device", "say cpu, cuda or cuda:1")
    if kind == "cuda" and not cuda():
        raise UserError(f"device {device}: torch finds no GPU here", "say cpu, or install a torch with CUDA")
    return device


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
