"""A model elsewhere: it answers as it does here, for any number of pictures, or is not handed over."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import pytest
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional
from typer.testing import CliRunner

from manylens.errors import EngineError, ManylensError, UserError
from manylens.media import to_rle
from manylens.tasks import ClassifyRequest, EmbedRequest
from manylens.training import onnx_form
from manylens.training.exporting import export
from manylens.training.run import train

SMALL = {"loop.epochs": 2, "loop.batch_size": 8, "data.check": False, "transfer.encoder_rate": 1.0}
MODES = {
    "frozen": {},
    "partial": {"transfer.train_blocks": 2},
    "gradual": {"transfer.unfreeze_from": 0, "transfer.unfreeze_every": 1},
    "lora": {"transfer.lora": {"rank": 2}},
    "full": {},
}


def trained(data, tiny_vit, session, out, task="classify", **changes) -> Path:
    told = {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
    return train(data, task=task, model=str(tiny_vit), out=out, set=told, session=session).folder


def opened(path: Path) -> ov.CompiledModel:
    """By OpenVINO alone, as someone who does not have manylens does."""
    return ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def beside(path: Path) -> dict:
    return json.loads(path.with_name(f"{path.name}.json").read_text())


@pytest.mark.parametrize("mode", MODES)
def test_it_answers_elsewhere_as_here(mode, stripes, tiny_vit, session, tmp_path):
    run = trained(stripes, tiny_vit, session, tmp_path / "run", transfer__mode=mode, **MODES[mode])
    pictures = [next((stripes / name).iterdir()) for name in ("lying", "slanted", "standing")]
    expected = [session.run(ClassifyRequest.of(image=path), model=str(run)) for path in pictures]
    squares = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in pictures])  # of 28 pixels, as it wants
    written = {"onnx": "model.onnx"} | ({"openvino": "model.xml"} if mode == "lora" else {})
    for format, name in written.items():
        made = export(run, out=tmp_path / format, format=format, session=session)
        assert made.parity["model"].source == f"8 pictures of {stripes.name}"
        assert made.parity["model"].difference["logits"] < 1e-5
        assert made.parity["model"].agreement == {"logits": 1.0}
        (logits,) = opened(tmp_path / format / name)({"squares": squares}).values()
        labels = beside(tmp_path / format / name)["labels"]
        for found, row in zip(expected, torch.from_numpy(logits).softmax(1).tolist(), strict=True):
            scores = dict(zip(labels, row, strict=True))
            assert {one.name: pytest.approx(one.score, abs=1e-5) for one in found.labels} == scores


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    """Pictures of a bright square on grey, as a COCO file."""
    root = tmp_path_factory.mktemp("shapes")
    random = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(8):
        pixels = random.normal(120, 5, (56, 56, 3))
        top, left = random.integers(2, 30, 2).tolist()
        mask = np.zeros((56, 56), bool)
        mask[top : top + 20, left : left + 20] = True
        pixels[mask] = (250, 240, 200)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 56, "height": 56})
        place = {"bbox": [left, top, 20, 20], "area": 400.0, "segmentation": to_rle(mask), "iscrowd": 0}
        annotations.append({"id": number + 1, "image_id": number, "category_id": 1, **place})
    body = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "square"}]}
    (root / "labels.json").write_text(json.dumps(body))
    return root / "labels.json"


CASES = {
    "semantic": ("segment", {"recipe": "semantic"}, {"logits": (2, 8, 8)}),
    "upernet": (
        "segment",
        {"recipe": "semantic", "head__kind": "upernet", "head__options": {"width": 16}},
        {"logits": (2, 32, 32)},
    ),
    "masks": (
        "segment",
        {"recipe": "masks", "head__options": {"queries": 5, "width": 16, "heads": 2}},
        {"classes": (5, 2), "masks": (5, 32, 32)},
    ),
    "detect": ("detect", {"head__options": {"width": 16}}, {"scores": (336, 1), "boxes": (336, 4)}),
}


@pytest.mark.parametrize(("name", "format"), [*((name, "onnx") for name in CASES), ("upernet", "openvino")])
def test_every_head_gives_its_outputs_by_name_for_any_number_of_pictures(
    name, format, shapes, tiny_vit, session, tmp_path
):
    task, changes, shape = CASES[name]
    run = trained(shapes, tiny_vit, session, tmp_path / "run", task, side=56, loop__epochs=1, **changes)
    made = export(run, out=tmp_path / "out", format=format, session=session)
    assert max(made.parity["model"].share.values()) < 1e-4
    path = tmp_path / "out" / ("model.onnx" if format == "onnx" else "model.xml")
    network = opened(path)
    squares = np.random.default_rng(0).integers(0, 256, (5, 56, 56, 3), np.uint8)
    alone, together = network(squares[:1]), network(squares)
    for output, sides in shape.items():
        assert alone[output].shape == (1, *sides)
        assert together[output].shape == (5, *sides)
        np.testing.assert_allclose(together[output][:1], alone[output], atol=1e-4)
    told = {one["name"]: one for one in beside(path)["outputs"]}
    assert {name: tuple(one["shape"]) for name, one in told.items()} == {n: ("any", *s) for n, s in shape.items()}
    assert all(one["is"] for one in told.values())


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_a_model_that_answers_prompts_is_two_networks(format, shapes, tiny_vit, session, tmp_path):
    options = {"width": 32, "heads": 2, "hidden": 32, "mixing": 1}
    changes = {"recipe": "promptable", "side": 56, "loop__epochs": 1, "head__options": options}
    run = trained(shapes, tiny_vit, session, tmp_path / "run", "segment", **changes)
    made = export(run, out=tmp_path / "out", format=format, session=session)
    assert set(made.parity) == {"encoder", "decoder"}
    end = "onnx" if format == "onnx" else "xml"
    encoder, decoder = (opened(tmp_path / "out" / f"{name}.{end}") for name in ("encoder", "decoder"))
    maps = encoder(np.asarray(Image.open(shapes.parent / "0.png"))[None])
    for prompts, clicks in ((1, 1), (3, 4)):
        points, labels = np.full((prompts, clicks, 2), 28.0, np.float32), np.ones((prompts, clicks), np.int64)
        found = decoder({"picture": maps["picture"], "keys": maps["keys"], "points": points, "labels": labels})
        assert found["low_res"].shape == (prompts, 4, 32, 32)
        np.testing.assert_allclose(found["low_res"], found["low_res"][:1].repeat(prompts, axis=0), atol=1e-4)


def test_a_head_that_attends_takes_any_number_of_pictures(stripes, tiny_vit, session, tmp_path):
    run = trained(stripes, tiny_vit, session, tmp_path / "run", loop__epochs=1, head__kind="attentive")
    made = export(run, out=tmp_path / "out", session=session)
    assert made.parity["model"].batches == [1, 8]


def test_an_encoder_without_a_head_gives_what_embed_gives(stripes, tiny_vit, session, tmp_path):
    told = {**SMALL, "recipe": "mae", "options.width": 16, "options.depth": 1, "options.heads": 2}
    run = train(stripes, task="embed", model=str(tiny_vit), out=tmp_path / "run", set=told, session=session).folder
    made = export(run, out=tmp_path / "out", session=session)
    assert made.parity["model"].agreement == {"vector": 1.0}
    picture = next((stripes / "lying").iterdir())
    found = opened(tmp_path / "out" / "model.onnx")(np.asarray(Image.open(picture).convert("RGB"))[None])
    expected = session.run(EmbedRequest.of(image=picture, dense=True), model=str(run))
    np.testing.assert_allclose(found["vector"][0], expected.vector, atol=1e-5)
    np.testing.assert_allclose(found["dense"][0], expected.dense, atol=1e-4)
    assert beside(tmp_path / "out" / "model.onnx")["preprocessing"]["values"]["size"] == {"height": 28, "width": 28}


@pytest.fixture
def run(stripes, tiny_vit, session, tmp_path) -> Path:
    return trained(stripes, tiny_vit, session, tmp_path / "run")


def test_what_a_file_needs_stands_in_it(run, tiny_vit, session, tmp_path):
    export(run, out=tmp_path / "one", session=session)
    export(run, out=tmp_path / "two", format="openvino", session=session)
    (kept,) = onnx.load(tmp_path / "one" / "model.onnx").metadata_props
    network = ov.Core().read_model(tmp_path / "two" / "model.xml")
    for text in (kept.value, network.get_rt_info(["manylens"]).astype(str)):
        facts = json.loads(text)
        assert facts["labels"] == ["lying", "slanted", "standing"]
        assert facts["preprocessing"]["size"] == [28, 28]
        assert facts["base"]["id"] == tiny_vit.name
        assert str(tmp_path.parent) not in text  # where it was made is nobody's business
    assert beside(tmp_path / "one" / "model.onnx")["parity"]["batches"] == [1, 8]
    assert str(tmp_path.parent) not in (tmp_path / "one" / "model.onnx.json").read_text()


def bent(by: float):
    """Changes a number of the written network."""

    def change(made: onnx.ModelProto) -> onnx.ModelProto:
        one = next(one for one in made.graph.initializer if one.name.endswith("classes.bias"))
        values = onnx.numpy_helper.to_array(one).copy()
        values[0] += by
        one.CopyFrom(onnx.numpy_helper.from_array(values, one.name))
        return made

    return change


@pytest.mark.parametrize("by", [0.01, float("nan")])
@pytest.mark.parametrize("there", [False, True])
def test_a_network_that_answers_otherwise_is_refused_and_leaves_nothing(by, there, run, session, tmp_path, monkeypatch):
    plain = onnx_form.converted
    monkeypatch.setattr(onnx_form, "converted", lambda drawn: bent(by)(plain(drawn)))
    out = tmp_path / "out"
    if there:
        out.mkdir()
        (out / "mine.txt").write_text("mine")
    with pytest.raises(EngineError, match=r"model\.onnx: answers otherwise than torch: logits by") as caught:
        export(run, out=out, session=session)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert [path.name for path in out.iterdir()] == ["mine.txt"] if there else not out.exists()
    monkeypatch.setattr(onnx_form, "converted", lambda drawn: bent(1e-5)(plain(drawn)))
    export(run, out=out, session=session)
    assert {path.name for path in out.iterdir()} - {"mine.txt"} == {"model.onnx", "model.onnx.json"}


def test_a_network_for_one_number_of_pictures_is_refused(shapes, tiny_vit, session, tmp_path, monkeypatch):
    """What the tracer makes of it left to itself."""
    _, changes, _ = CASES["masks"]
    run = trained(shapes, tiny_vit, session, tmp_path / "run", "segment", side=56, loop__epochs=1, **changes)
    monkeypatch.setattr(onnx_form, "_Plain", contextlib.nullcontext)
    with pytest.raises(EngineError, match=r"gives classes \(2, 5, 2\) where torch gives \(1, 5, 2\)"):
        export(run, out=tmp_path / "out", session=session)
    assert not (tmp_path / "out").exists()


def test_without_the_data_it_is_compared_on_noise(stripes, tiny_vit, session, tmp_path):
    data = shutil.copytree(stripes, tmp_path / "data")
    run = trained(data, tiny_vit, session, tmp_path / "run")
    (data / "lying" / "0.png").write_bytes(b"broken")
    assert "pictures of data" in export(run, out=tmp_path / "one", session=session).parity["model"].source
    shutil.rmtree(data)
    assert export(run, out=tmp_path / "two", session=session).parity["model"].source == "8 pictures of noise"
    again = export(run / "model", out=tmp_path / "three", data=stripes, session=session)
    assert again.parity["model"].source == f"8 pictures of {stripes.name}"


def nothing(run: Path, tmp: Path) -> Path:
    (tmp / "empty").mkdir()
    return tmp / "empty"


def unfinished(run: Path, tmp: Path) -> Path:
    record = json.loads((run / "run.json").read_text())
    shutil.rmtree(run / "model")
    (run / "run.json").write_text(json.dumps({**record, "state": "stopped"}))
    return run


def taken(run: Path, tmp: Path) -> Path:
    (tmp / "out").mkdir()
    (tmp / "out" / "model.onnx").write_bytes(b"mine")
    return run


def a_file(run: Path, tmp: Path) -> Path:
    (tmp / "out").write_bytes(b"mine")
    return run


def damaged(run: Path, tmp: Path) -> Path:
    (run / "model" / "model.safetensors").write_bytes(b"x")
    return run


WRONG = {
    "no model": (nothing, {}, r"empty: the folder has no config\.json"),
    "no folder": (lambda run, tmp: tmp / "nowhere", {}, "no such folder"),
    "not finished": (unfinished, {}, r"run: the run has no model yet \(its state is stopped\)"),
    "no format": (lambda run, tmp: run, {"format": "onx"}, "format 'onx': there is none; did you mean 'onnx'"),
    "there already": (taken, {}, r"model\.onnx: is there already"),
    "a file": (a_file, {}, "out: is a file"),
    "no tolerance": (lambda run, tmp: run, {"tolerance": 0}, "tolerance 0: is not above 0"),
    "damaged": (damaged, {}, r"model\.safetensors cannot be read"),
    "no data": (lambda run, tmp: run, {"data": "nowhere"}, "there is no such file or folder"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_said(name, run, session, tmp_path):
    prepare, options, says = WRONG[name]
    before = {path.name for path in tmp_path.iterdir()}
    model = prepare(run, tmp_path)
    with pytest.raises(ManylensError, match=says) as caught:
        export(model, out=tmp_path / "out", session=session, **options)
    assert isinstance(caught.value, UserError) or name in ("no model", "damaged")
    left = {path.name for path in tmp_path.iterdir()} - before - {"empty"}
    assert left == ({"out"} if name in ("there already", "a file") else set())
    if name == "there already":
        assert (tmp_path / "out" / "model.onnx").read_bytes() == b"mine"


def test_the_command_says_what_it_did(run, session, tmp_path, monkeypatch):
    from manylens.cli import export as command

    monkeypatch.setattr(command, "session_for", lambda options: session)
    app = typer.Typer()
    app.command()(command.export)
    done = CliRunner().invoke(app, [str(run), "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    first, *rest = done.output.splitlines()
    assert first.startswith("model: differs from torch by ")
    assert first.endswith("in batches of 1 and 8; 100 % of the answers agree")
    assert [Path(line.removeprefix("wrote ")).name for line in rest] == ["model.onnx", "model.onnx.json"]
    done = CliRunner().invoke(app, [str(run), "-o", str(tmp_path / "two"), "--format", "openvino", "--json"])
    told = json.loads(done.output)
    assert [Path(file).name for file in told["files"]] == ["model.bin", "model.xml", "model.xml.json"]
    assert all(Path(file).exists() for file in told["files"])


@settings(max_examples=40, deadline=None)
@given(
    sides=st.tuples(*[st.integers(1, 9)] * 2),
    cells=st.one_of(st.integers(1, 7), st.tuples(*[st.integers(1, 7)] * 2)),
)
def test_means_over_cells_are_torchs_own(sides, cells):
    x = torch.randn(2, 3, *sides, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(onnx_form._pooled(x, cells), functional.adaptive_avg_pool2d(x, cells))


@pytest.mark.parametrize(
    ("shape", "dim", "sizes"),
    [
        ((2, 12), 1, (3, 4)),
        ((2, 12), -1, (3, -1)),
        ((2, 12, 5), 1, (-1, 4)),
        ((2, 3, 8), 2, (2, 2, 2)),
        ((6, 5), 0, (2, 3)),
    ],
)
def test_a_side_is_split_as_torch_does(shape, dim, sizes):
    x = torch.randn(shape)
    assert torch.equal(onnx_form._unflattened(x, dim, sizes), x.unflatten(dim, sizes))
