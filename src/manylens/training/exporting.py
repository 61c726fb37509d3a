"""``manylens.export``: a trained model as ONNX or OpenVINO, held to torch's answers before it is handed over."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens import models
from manylens.catalog.trained import RUN
from manylens.errors import EngineError, ManylensError, OutputError
from manylens.models import network
from manylens.runtime.engines import EngineSettings
from manylens.runtime.machine import library_version
from manylens.training.agreement import Parity, compared, judge
from manylens.training.balance.names import check_name
from manylens.training.errors import TrainError
from manylens.training.record import CONFIG
from manylens.training.values import read
from manylens.version import __version__

if TYPE_CHECKING:
    from manylens.catalog import Row
    from manylens.data import Dataset
    from manylens.media import Image
    from manylens.models.network import Blueprint
    from manylens.session import Session
    from manylens.training.portable import Part, Portable

FORMATS = {"onnx": (".onnx",), "openvino": (".bin", ".xml")}
"""Ends of a network's files by format; the one that is opened comes last."""

PICTURES = 8
"""On how many answers are compared."""

TOLERANCE = 1e-3
"""How far a number may lie from torch's, as a share of the largest one of its output, or of 1 where that is less."""

_METADATA = "manylens"


@dataclass(frozen=True)
class Exported:
    """What came of an export.

    Attributes:
        files: That were written.
        parity: How each network answers, by its name.
    """

    files: list[Path]
    parity: dict[str, Parity] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        parity = {name: asdict(one) for name, one in self.parity.items()}
        return {"files": [str(file) for file in self.files], "parity": parity}


def export(
    model: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    format: str = "onnx",
    data: Dataset | str | os.PathLike[str] | None = None,
    tolerance: float = TOLERANCE,
    session: Session | None = None,
    say: Callable[[str], None] | None = None,
) -> Exported:
    """Write a model as a network for other runtimes, once it is seen to answer there as it does here.

    The network takes uint8 squares ``(batch, side, side, 3)``, any number at a time, and gives what its head gives. How
    a picture becomes a square, what the numbers mean and the labels stand in a JSON file beside it, and in the file's
    own metadata. A model that answers prompts is two networks, ``encoder`` and ``decoder``.

    Args:
        model: A run, the folder of a model, or an id.
        out: Folder for the files; made where it is not there.
        format: ``onnx`` or ``openvino``.
        data: Pictures to compare answers on; by default those of the run, and noise where these are gone.
        tolerance: How far a number may lie from torch's, see :data:`TOLERANCE`.
        session: Finds the model; by default the one behind the package's verbs.
        say: Called with a line for each network.

    Raises:
        TrainError: The format is not known, or a file is there already.
        UnknownModelError: There is no such model, or it is a run that has none yet.
        EngineError: The network cannot be written so, or answers otherwise; nothing is left behind.
        OutputError: The folder cannot be written.
    """
    from manylens.session import default_session
    from manylens.training import portable

    check_name("format", format, FORMATS)
    if not tolerance > 0:
        raise TrainError(f"tolerance {tolerance}: is not above 0", "leave it away, or give such as 0.001")
    folder = Path(out)
    row, loaded = _loaded(session or default_session(), model)
    try:
        found = portable.of(loaded)
        wanted = _targets(folder, found, format)
        squares, source = _squares(found, model, data)
        about = {**_about(row, found), "format": format}
        with _Workshop(folder) as workshop:
            parity = {}
            for part in found.parts:
                parity[part.name] = _written(part, workshop, format, about, squares, source, tolerance)
                if say is not None:
                    say(f"{part.name}: {parity[part.name].line}")
            workshop.hand_over(wanted)
        return Exported(wanted, parity)
    finally:
        loaded.close()


def _loaded(session: Session, model: str | os.PathLike[str]) -> tuple[Row, Any]:
    row = session.catalog.resolve(model)
    if not row.family:
        row = session.weights.identify(row)
    return row, models.load(row, session.weights.ensure(row), EngineSettings("torch"))


def _targets(folder: Path, found: Portable, format: str) -> list[Path]:
    ends = FORMATS[format]
    wanted = [folder / f"{part.name}{end}" for part in found.parts for end in (*ends, f"{ends[-1]}.json")]
    if folder.exists() and not folder.is_dir():
        raise TrainError(f"{folder}: is a file", "name a folder")
    for path in wanted:
        if path.exists():
            raise TrainError(f"{path}: is there already", "name another folder, or remove it")
    return wanted


def _about(row: Row, found: Portable) -> dict[str, Any]:
    """What stands in the metadata and in the file beside the network."""
    name = Path(row.id).name if row.folder is not None else row.id
    note = row.licence_note
    if row.base is not None and row.base.folder is not None:
        note = note.replace(row.base.id, Path(row.base.id).name)  # nothing of this machine is told
    return {
        "made_by": f"manylens {__version__}",
        "model": name,
        "weights": row.weights_hash,
        "licence": row.licence,
        "licence_note": note,
        "side": found.side,
        "preprocessing": dict(found.preprocessing),
        "labels": list(found.labels),
        **found.about,
    }


# ------------------------------------------------------------------ pictures


def _squares(found: Portable, model: Any, data: Any) -> tuple[np.ndarray, str]:
    """uint8 ``(n, side, side, 3)`` to compare answers on, and which pictures they are."""
    images, source = _pictures(model, data)
    if len(images) > 1:
        return found.squares(images), f"{len(images)} pictures of {source}"
    random = np.random.default_rng(0)
    return random.integers(
        0, 256, (PICTURES, found.side, found.side, 3), dtype=np.uint8
    ), f"{PICTURES} pictures of noise"


def _pictures(model: Any, data: Any) -> tuple[list[Image], str]:
    from manylens.data import Dataset

    if data is not None:
        dataset: Dataset | None = data if isinstance(data, Dataset) else Dataset.read(data)
    else:
        dataset = _data_of(Path(model))
    if dataset is None:
        return [], ""
    if dataset.splits.get("val"):
        dataset = dataset.select(split="val")
    ids = dataset.values("id")
    chosen = {ids[place] for place in np.linspace(0, len(ids) - 1, min(PICTURES, len(ids))).round().astype(int)}
    images = []
    for record in dataset.select(ids=chosen).records():
        with suppress(ManylensError):  # one that is gone or broken is left out
            image = record.image()
            _ = image.array
            images.append(image)
    return images, dataset.name


def _data_of(folder: Path) -> Dataset | None:
    """The data of a run, where it still is where it was."""
    from manylens.data import Dataset
    from manylens.training.config import Config

    run = folder if (folder / RUN).is_file() else folder.resolve().parent
    if not (run / RUN).is_file():
        return None
    try:
        section = Config.of(read(run / CONFIG)).data
        return Dataset.read(section.source, images=section.images, format=section.format) if section.source else None
    except ManylensError:
        return None


# ------------------------------------------------------------------ files


def _written(
    part: Part,
    workshop: _Workshop,
    format: str,
    about: Mapping[str, Any],
    squares: np.ndarray,
    source: str,
    tolerance: float,
) -> Parity:
    """Write one network, and see that it answers as it should."""
    drawn = part.blueprint
    path = workshop.path / f"{part.name}{FORMATS[format][-1]}"
    inputs, outputs = _ports(part)
    facts = {**about, "part": part.name, "inputs": inputs, "outputs": outputs}
    write = _write_onnx if format == "onnx" else _write_openvino
    try:
        write(drawn, path, json.dumps(facts, ensure_ascii=False))
        parity = compared(part, path, squares, source)
        judge(path, parity, tolerance)
        versions = {name: library_version(name) for name in ("torch", "onnx", "openvino")}
        body = {**facts, "parity": {**asdict(parity), "tolerance": tolerance}, "versions": versions}
        text = json.dumps(body, indent=1, ensure_ascii=False)
        path.with_name(f"{path.name}.json").write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{workshop.folder}: cannot be written ({error.strerror or error})", "make room") from error
    return parity


def _ports(part: Part) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Inputs and outputs for people: name, type, what it is."""
    import torch

    drawn = part.blueprint
    example = list(drawn.example())
    with torch.no_grad():
        answers = drawn.module()(*example)
    shapes = {name: list(drawn.shapes.get(name, one.shape)) for name, one in zip(drawn.inputs, example, strict=True)}
    shapes |= {name: [-1, *one.shape[1:]] for name, one in zip(drawn.outputs, answers, strict=True)}
    types = {name: str(one.dtype).removeprefix("torch.") for name, one in zip(drawn.inputs, example, strict=True)}
    described = lambda name: {  # noqa: E731
        "name": name,
        "type": types.get(name, "float32"),
        "shape": [side if side >= 0 else "any" for side in shapes[name]],
        "is": part.says(name),
    }
    return [described(name) for name in drawn.inputs], [described(name) for name in drawn.outputs]


def _write_onnx(drawn: Blueprint, path: Path, facts: str) -> None:
    import onnx

    from manylens.training.onnx_form import converted

    made = converted(drawn)
    onnx.helper.set_model_props(made, {_METADATA: facts})
    try:
        onnx.checker.check_model(made, full_check=True)
    except Exception as error:  # of several kinds, that have no common one
        why = str(error).strip().splitlines()[0]
        raise EngineError(f"{path.name}: is not well formed ({why[:200]})", "export it as openvino") from error
    path.write_bytes(made.SerializeToString())


def _write_openvino(drawn: Blueprint, path: Path, facts: str) -> None:
    import openvino as ov

    made = network.traced(drawn)
    made.set_rt_info(facts, [_METADATA])
    try:
        ov.save_model(made, path, compress_to_fp16=False)  # halved weights answer otherwise
    except RuntimeError as error:
        raise OutputError(f"{path.name}: cannot be written ({error})", "make room") from error


class _Workshop:
    """A hidden folder within another: what is made there is handed over whole, or goes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made = not folder.exists()

    def __enter__(self) -> _Workshop:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.path = Path(tempfile.mkdtemp(dir=self.folder, prefix=".export-"))
        except OSError as error:
            raise OutputError(
                f"{self.folder}: cannot be written ({error.strerror or error})", "name another folder"
            ) from error
        return self

    def hand_over(self, wanted: Sequence[Path]) -> None:
        """Move all files to where they shall be."""
        for path in wanted:
            (self.path / path.name).replace(path)

    def __exit__(self, kind: object, *rest: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if kind is not None and self._made:
            with suppress(OSError):  # something else was put there meanwhile
                self.folder.rmdir()
