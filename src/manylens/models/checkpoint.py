"""A checkpoint in the hub's format becomes a torch module: strictly, and never running what is in a file."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from manylens.errors import WeightsError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from manylens.catalog import Row

    M = TypeVar("M", bound=PreTrainedModel)

CONFIG = "config.json"
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
_REMEDY = "fetch the checkpoint again, or give another"
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_SHOWN = 3


def config(files: Mapping[str, Path], name: str, file: str = CONFIG) -> dict[str, Any]:
    """A JSON file of a checkpoint, such as its ``config.json`` or ``preprocessor_config.json``.

    Args:
        files: The checkpoint's files by name.
        name: What to call the checkpoint in an error.
        file: The file's name.

    Raises:
        WeightsError: The file is missing or is not a JSON object.
    """
    if file not in files:
        raise WeightsError(f"{name}: the folder has no {file}", "give a folder in the format of a model hub")
    try:
        values = json.loads(files[file].read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{name}: its {file} is not JSON ({error})", _REMEDY) from error
    if not isinstance(values, dict):
        raise WeightsError(f"{name}: its {file} is not a JSON object", _REMEDY)
    return values


def preprocessing(files: Mapping[str, Path], name: str) -> dict[str, Any]:
    """What a checkpoint says of how pictures are prepared; a value of null is left out, as it says nothing.

    It stands in ``preprocessor_config.json``, or inside the newer ``processor_config.json``, which then counts.

    Raises:
        WeightsError: There is neither, or one is not a JSON object.
    """
    values = config(files, name, PROCESSOR).get("image_processor") if PROCESSOR in files else None
    if not isinstance(values, dict):
        values = config(files, name, PREPROCESSOR)
    return {key: value for key, value in values.items() if value is not None}


def sides(values: Mapping[str, Any], name: str, default: Mapping[str, int]) -> Mapping[str, int]:
    """The ``size`` that :func:`preprocessing` gave, by side; a plain number is both height and width.

    Raises:
        WeightsError: It is no size.
    """
    size = values.get("size", default)
    found = {"height": size, "width": size} if isinstance(size, int) else size
    if not isinstance(found, dict) or not found or not all(_whole(one) for one in found.values() if one is not None):
        raise WeightsError(f"{name}: its {PREPROCESSOR} has a size of {size!r}", _REMEDY)
    return {side: length for side, length in found.items() if length is not None}


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def load(cls: type[M], files: Mapping[str, Path], name: str, **options: Any) -> M:
    """The network of a checkpoint, float32, in evaluation mode, without gradients.

    transformers' own loading does the renaming that old checkpoints need; what it would pass over in silence (a tensor
    that is missing, left over, of another shape, quantised) is refused here, by name.

    Args:
        cls: The class of transformers that the checkpoint is of.
        files: The checkpoint's files by name; ``config.json`` tells the folder.
        name: What to call the checkpoint in an error.
        options: Passed on, such as ``attn_implementation`` or ``config``.

    Raises:
        WeightsError: The weights are missing, damaged, or not those of this network; the tensors are named.
    """
    import torch
    from safetensors import SafetensorError

    config(files, name)
    folder = files[CONFIG].parent
    check_dtypes(files, name)
    with quiet():
        try:
            loaded: Any = cls.from_pretrained(
                folder,
                local_files_only=True,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **options,
            )
        except pickle.UnpicklingError as error:
            raise WeightsError(
                f"{name}: its weights are a pickle that holds more than tensors, and is not run",
                "convert it to safetensors where you trust it",
            ) from error
        except SafetensorError as error:
            raise WeightsError(f"{name}: its safetensors file is damaged ({error})", _REMEDY) from error
        except OSError as error:
            raise WeightsError(f"{name}: no weights in the folder ({_first_line(error)})", _REMEDY) from error
        except Exception as error:  # whatever a config of wrong values leads to
            if isinstance(error.__cause__, pickle.UnpicklingError) or "weights_only" in str(error).lower():
                raise WeightsError(
                    f"{name}: its weights are a pickle that holds more than tensors, and is not run",
                    "convert it to safetensors where you trust it",
                ) from error
            # A value of a wrong type is said by what was caught, not by what was made of it.
            told_by = error.__cause__ if type(error).__name__.startswith("StrictDataclass") else None
            raise WeightsError(f"{name}: does not load ({_first_line(told_by or error)})", _REMEDY) from error
    model, told = loaded
    _check(told, name)
    return model.eval().requires_grad_(False)


def weights_id(row: Row, files: Mapping[str, Path]) -> str:
    """Sixteen hex digits that change with the weights and the configs, also where a hub's branch moved.

    A snapshot of a hub is a folder of links to files that are named by their content.
    """
    if not row.repo:
        return row.weights_hash[:16]
    from manylens.catalog.row import short_hash

    weights = sorted(name for name in files if name.endswith((".safetensors", ".bin", ".json")))
    return short_hash(*(str(files[name].resolve()) for name in weights))


def tensor(files: Mapping[str, Path], key: str) -> np.ndarray | None:
    """One tensor of a checkpoint's safetensors as float32, without loading the rest; None where there is none."""
    from safetensors import safe_open

    for file, path in files.items():
        if file.endswith(".safetensors"):
            with safe_open(path, framework="pt" if _has_bf16(files) else "numpy") as tensors:
                if key in tensors.keys():  # noqa: SIM118 - not a mapping
                    found = tensors.get_tensor(key)
                    return np.asarray(found.float().numpy() if hasattr(found, "float") else found, np.float32)
    return None


def _has_bf16(files: Mapping[str, Path]) -> bool:
    """Whether NumPy cannot read the tensors."""
    return any(dtype == "BF16" for _, dtype, _ in headers(files, CONFIG))


def names(files: Mapping[str, Path], name: str) -> set[str]:
    """The names of a checkpoint's tensors; none where its file is one that :func:`load` will refuse.

    Raises:
        WeightsError: A safetensors file is damaged.
    """
    found = {tensor for tensor, _, _ in headers(files, name)}
    if not found:
        import torch

        for file, path in files.items():
            if file.startswith("pytorch_model") and file.endswith(".bin"):
                try:
                    found |= set(torch.load(path, map_location="meta", weights_only=True))
                except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
                    return set()
    return found


def check_dtypes(files: Mapping[str, Path], name: str) -> None:
    """Refuse safetensors whose tensors are of a type that no plain checkpoint has (quantised, 8-bit).

    Raises:
        WeightsError: Names the first such tensor; or a file is damaged.
    """
    for tensor, dtype, _ in headers(files, name):
        # Index buffers are whole numbers; weights are not.
        if dtype not in _FLOATS and dtype not in ("I64", "I32", "BOOL"):
            raise WeightsError(
                f"{name}: its tensor {tensor} is {dtype}, a quantised form that is not read",
                "give the checkpoint in float32, float16 or bfloat16",
            )
        if dtype not in _FLOATS and tensor.endswith((".weight", ".bias")):
            raise WeightsError(f"{name}: its tensor {tensor} is {dtype}, not floating point", _REMEDY)


def headers(files: Mapping[str, Path], name: str) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Name, type and shape of each tensor in the safetensors of a checkpoint, without reading the tensors.

    Raises:
        WeightsError: A file is damaged.
    """
    for file, path in sorted(files.items()):
        if not file.endswith(".safetensors"):
            continue
        try:
            with path.open("rb") as stream:
                length = int.from_bytes(stream.read(8), "little")
                table: Any = json.loads(stream.read(length)) if length <= path.stat().st_size else None
            yield from (
                (tensor, about["dtype"], tuple(about["shape"]))
                for tensor, about in table.items()
                if tensor != "__metadata__"
            )
        except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
            raise WeightsError(f"{name}: its {file} is damaged", _REMEDY) from error


def _check(told: Mapping[str, Any], name: str) -> None:
    for found, kind in (
        (told.get("missing_keys"), "lacks"),
        (told.get("unexpected_keys"), "has too many:"),
        ([str(row[0]) for row in told.get("mismatched_keys") or ()], "has of another shape:"),
    ):
        if found:
            raise WeightsError(
                f"{name}: its weights are not those that its config describes; it {kind} {_listed(found)}", _REMEDY
            )
    if told.get("error_msgs"):
        raise WeightsError(f"{name}: does not load ({_first_line(told['error_msgs'][0])})", _REMEDY)


def _listed(found: Any) -> str:
    names = sorted(found)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(".")


class quiet:  # noqa: N801 - a context manager in small letters, as in contextlib
    """transformers says what is wrong with a checkpoint in tables, and warns of what is not; we say it in one line."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._before = logging.get_verbosity()
        logging.set_verbosity(logging.CRITICAL)
        logging.disable_progress_bar()

    def __exit__(self, *exception: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self._before)
