"""Folders that are no good checkpoint: one line each, that names the tensor or the file."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks._baselines import words
from safetensors.torch import load_file, save_file
from tests.models.hub import kit
from transformers import CLIPConfig, CLIPModel

from manylens import models
from manylens.catalog.families import families
from manylens.errors import BudgetError, ManylensError, UnsupportedError, WeightsError
from manylens.media import Image
from manylens.models import checkpoint, network
from manylens.models.network import Blueprint
from manylens.runtime.engines import EngineSettings
from manylens.session import Session
from manylens.tasks import EmbedRequest

TENSOR = "vision_model.post_layernorm.weight"
IMAGE = Image.of(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(words.VOCABULARY), "max_position_embeddings": 8}
    config = CLIPConfig(text_config=text, vision_config={**small, "image_size": 16, "patch_size": 8}, projection_dim=8)
    folder = kit.save(
        kit.noisy(CLIPModel(config)),
        tmp_path_factory.mktemp("good"),
        preprocessor_config={"size": {"shortest_edge": 16}, "crop_size": 16},
    )
    words.write(folder)
    return folder


def changed(edit):
    """A change to the tensors of the folder's safetensors."""

    def apply(folder: Path) -> None:
        path = folder / "model.safetensors"
        tensors = load_file(path)
        edit(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

    return apply


def configured(**values):
    """A change to the folder's config."""

    def apply(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return apply


def nested(part: str, **values):
    """A change to one part of the folder's config."""

    def apply(folder: Path) -> None:
        path = folder / "config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps({**config, part: {**config[part], **values}}))

    return apply


def sharded(folder: Path) -> None:
    """Two files of weights by the index, and only one of them there."""
    files = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    names = sorted(load_file(folder / "model.safetensors"))
    where = {name: files[i % 2] for i, name in enumerate(names)}
    (folder / "model.safetensors").rename(folder / files[0])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


class _Code:
    def __reduce__(self):
        return os.mkdir, ("it-ran",)


def pickled(content):
    """The weights as a pickle instead."""

    def apply(folder: Path) -> None:
        state = content(load_file(folder / "model.safetensors"))
        (folder / "model.safetensors").unlink()
        torch.save(state, folder / "pytorch_model.bin")

    return apply


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BAD = {
    "no config": (lambda f: (f / "config.json").unlink(), WeightsError, "the folder has no config.json"),
    "config is not JSON": (lambda f: (f / "config.json").write_text("{"), WeightsError, "its config.json is not JSON"),
    "config without a type": (configured(model_type=None), WeightsError, "its config.json has no model_type"),
    "unknown family": (
        configured(model_type="bert"),
        UnsupportedError,
        r"no family here loads model_type 'bert'.*clip",
    ),
    "a tensor is missing": (changed(lambda t: t.pop(TENSOR)), WeightsError, rf"it lacks {TENSOR}"),
    "a tensor too many": (
        changed(lambda t: t.update({"head.weight": torch.ones(3)})),
        WeightsError,
        "it has too many: head.weight",
    ),
    "another shape": (
        changed(lambda t: t.update({TENSOR: t[TENSOR][:5].clone()})),
        WeightsError,
        rf"of another shape: {TENSOR}",
    ),
    "quantised": (
        changed(lambda t: t.update({TENSOR: t[TENSOR].to(torch.int8)})),
        WeightsError,
        rf"its tensor {TENSOR} is I8, a quantised form",
    ),
    "whole numbers": (
        changed(lambda t: t.update({TENSOR: t[TENSOR].to(torch.int64)})),
        WeightsError,
        rf"its tensor {TENSOR} is I64, not floating point",
    ),
    "a size that is a word": (
        nested("vision_config", hidden_size="wide"),
        WeightsError,
        r"does not load \(Field 'hidden_size' expected int, got str \(value: 'wide'\)\)",
    ),
    "sizes that do not fit": (
        nested("vision_config", num_attention_heads=3),
        WeightsError,
        r"does not load \(The hidden size \(16\) is not a multiple of the number of attention heads",
    ),
    "a part that is a word": (configured(vision_config="wide"), WeightsError, "a value in its config.json"),
    "a shard that is not there": (sharded, WeightsError, "model-00002-of-00002.safetensors"),
    "a tokenizer that is none": (
        lambda f: (f / "tokenizer.json").write_text("{}"),
        WeightsError,
        "its tokenizer.json does not load",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), WeightsError, "no weights in the folder"),
    "cut in the middle": (cut, WeightsError, "its model.safetensors is damaged|is damaged"),
    "not safetensors": (
        lambda f: (f / "model.safetensors").write_bytes(b"x" * 99),
        WeightsError,
        "its model.safetensors is damaged",
    ),
    "a pickle with code in it": (
        pickled(lambda tensors: {**tensors, "evil": _Code()}),
        WeightsError,
        "a pickle that holds more than tensors, and is not run",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_folder_is_one_line(name, good, tmp_path, monkeypatch):
    change, error, said = BAD[name]
    folder = shutil.copytree(good, tmp_path / "bad")
    change(folder)
    monkeypatch.chdir(tmp_path)
    with Session(home=tmp_path / "home", engine="torch") as session, pytest.raises(error, match=said) as caught:
        session.run(EmbedRequest.of(image=IMAGE), model=str(folder))
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ManylensError)
    assert caught.value.remedy
    assert not (tmp_path / "it-ran").exists()


def test_a_checkpoint_larger_than_the_budget_is_refused_before_it_loads(good, tmp_path):
    folder = shutil.copytree(good, tmp_path / "large")
    with (folder / "optimizer.safetensors").open("wb") as stream:
        stream.truncate(3 << 30)  # sparse: no room is taken
    with Session(home=tmp_path / "home", memory_budget="600MB") as session, pytest.raises(BudgetError, match="large"):
        session.run(EmbedRequest.of(image=IMAGE), model=str(folder))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_float_load_as_float32(dtype, good, tmp_path):
    folder = shutil.copytree(good, tmp_path / "half")
    changed(lambda tensors: tensors.update({k: v.to(dtype) for k, v in tensors.items() if v.is_floating_point()}))(
        folder
    )
    vector = lambda path: kit.run(kit.opened(path), EmbedRequest.of(image=IMAGE)).vector  # noqa: E731
    assert vector(folder) == pytest.approx(vector(good), abs=0.02)


def test_a_plain_pickle_of_tensors_loads(good, tmp_path):
    folder = shutil.copytree(good, tmp_path / "pickle")
    pickled(lambda tensors: tensors)(folder)
    vector = lambda path: kit.run(kit.opened(path), EmbedRequest.of(image=IMAGE)).vector  # noqa: E731
    assert vector(folder) == pytest.approx(vector(good), abs=1e-6)


def test_weights_in_several_files_load(good, tmp_path):
    folder = shutil.copytree(good, tmp_path / "shards")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, members in shards.items():
        save_file({name: tensors[name] for name in members}, folder / file, metadata={"format": "pt"})
    where = {name: file for file, members in shards.items() for name in members}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    vector = lambda path: kit.run(kit.opened(path), EmbedRequest.of(image=IMAGE)).vector  # noqa: E731
    assert vector(folder) == pytest.approx(vector(good), abs=1e-6)


def test_one_tensor_is_read_alone(good):
    files = {path.name: path for path in good.iterdir()}
    right = load_file(good / "model.safetensors")["logit_scale"]
    assert checkpoint.tensor(files, "logit_scale") == pytest.approx(right.numpy())
    assert checkpoint.tensor(files, "nothing") is None


class TestNetwork:
    def blueprint(self, made: list[str]) -> Blueprint:
        def module() -> torch.nn.Module:
            made.append("module")
            return network.wrapped(torch.nn.Linear(3, 2), lambda layer, x, k: (layer(x) * k, k + 1)).double().float()

        torch.manual_seed(0)
        return Blueprint(
            "part",
            module,
            lambda: [torch.ones(1, 3), torch.ones(1, dtype=torch.int64)],
            ("x", "k"),
            ("y", "next"),
            {"x": (-1, 3), "k": (1,)},
        )

    def test_the_tracer_does_not_let_transformers_warn(self):
        import dataclasses

        from transformers.utils import logging

        made: list[str] = []
        plain = self.blueprint(made)

        def module() -> torch.nn.Module:
            made.append("quiet" if logging.get_verbosity() >= logging.CRITICAL else "loud")
            return plain.module()

        network.traced(dataclasses.replace(plain, module=module))
        assert made == ["quiet", "module"]
        assert logging.get_verbosity() < logging.CRITICAL

    @pytest.mark.parametrize("engine", ["torch", "openvino"])
    def test_arrays_in_arrays_out(self, engine, tmp_path, monkeypatch):
        monkeypatch.setenv("MANYLENS_HOME", str(tmp_path))
        built = network.build(self.blueprint([]), EngineSettings(engine=engine, threads=1), "hash")
        x = np.arange(12, dtype=np.float32).reshape(4, 3)
        y, following = built(x, np.array([2]))
        assert y.shape == (4, 2)
        assert y.dtype == np.float32
        assert following.tolist() == [3]
        assert built(x[:1], np.array([2]))[0] == pytest.approx(y[:1], abs=1e-5)

    def test_a_compiled_form_that_is_kept_needs_no_module(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MANYLENS_HOME", str(tmp_path))
        made: list[str] = []
        settings = EngineSettings(threads=1)
        x, k = np.ones((1, 3), np.float32), np.array([1])
        first = network.build(self.blueprint(made), settings, "hash")(x, k)[0]
        assert made == ["module"]
        assert network.build(self.blueprint(made), settings, "hash")(x, k)[0] == pytest.approx(first)
        assert made == ["module"]
        network.build(self.blueprint(made), settings, "other weights")
        assert made == ["module", "module"]


def test_the_catalog_knows_which_families_load():
    for family in families():
        assert (family.name in models.FAMILIES) is not family.planned, family.name
