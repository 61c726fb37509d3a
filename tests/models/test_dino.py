import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens import models
from manylens.catalog import Catalog
from manylens.errors import WeightsError
from manylens.media import Image
from manylens.models.dino import weights as dino_weights
from manylens.models.dino.model import Dino, cover
from manylens.models.dino.positions import antialiased, bicubic
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.tasks import EmbedRequest

VIT = "manylens/vit-s"


@pytest.mark.parametrize(
    ("box", "size", "expected"),
    [
        ((0, 0, 20, 20), (20, 20), [[0.25, 0.25], [0.25, 0.25]]),
        ((0, 0, 10, 10), (20, 20), [[1, 0], [0, 0]]),
        ((10, 0, 20, 20), (20, 20), [[0, 0.5], [0, 0.5]]),
        ((0, 0, 15, 20), (20, 20), [[1 / 3, 1 / 6], [1 / 3, 1 / 6]]),
        ((2.1, 3.0, 2.2, 3.1), (20, 20), [[1, 0], [0, 0]]),
        ((-50, -50, 50, 25), (100, 50), [[1, 0], [0, 0]]),
    ],
)
def test_cover(box, size, expected):
    assert cover(box, size, (2, 2)) == pytest.approx(np.array(expected), abs=1e-6)


@given(st.tuples(*[st.floats(0, 90)] * 2), st.tuples(*[st.floats(0.5, 200)] * 2))
def test_cover_sums_to_one(corner, extent):
    shares = cover((*corner, corner[0] + extent[0], corner[1] + extent[1]), (91, 91), (16, 16))
    assert shares.sum() == pytest.approx(1, abs=1e-4)
    assert shares.min() >= 0


@pytest.mark.parametrize("new", [(16, 16), (37, 20), (40, 55)])
@pytest.mark.parametrize("antialias", [False, True])
def test_positions_are_resized_as_torch_resizes(new, antialias):
    import torch

    table = np.random.default_rng(0).normal(size=(37, 37, 5)).astype(np.float32)
    grid = torch.from_numpy(table)[None].permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(grid, size=new, mode="bicubic", align_corners=False, antialias=antialias)
    high, wide = ((antialiased if antialias else bicubic)(37, side) for side in new)
    found = np.einsum("yr,xc,rcd->yxd", high, wide, table)
    assert found == pytest.approx(expected[0].permute(1, 2, 0).numpy(), abs=5e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small DINOv2 with random weights, in the hub's format."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("dinov2")
    config = Dinov2Config(hidden_size=48, num_attention_heads=4, num_hidden_layers=2, image_size=224, patch_size=14)
    Dinov2Model(config).save_pretrained(path)
    return path


def of_folder(path, **settings):
    row = Catalog.load().resolve(str(path))
    return Dino(row, {file.name: file for file in path.iterdir()}, EngineSettings(**settings))


def test_a_folder_in_the_hubs_format_loads_on_both_engines(folder):
    import torch
    from transformers import Dinov2Model

    from manylens.models.pixels import normalised

    picture = np.random.default_rng(1).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    request = EmbedRequest.of(image=picture, dense=True)
    found = [next(of_folder(folder, engine=engine).run([request], Context())) for engine in ("openvino", "torch")]
    peer = Dinov2Model.from_pretrained(folder, local_files_only=True).eval()(
        torch.from_numpy(normalised(picture[None]))
    )
    token = peer.pooler_output[0].detach().numpy()
    for embedding in found:
        assert embedding.vector == pytest.approx(token / np.linalg.norm(token), abs=1e-4)
        assert embedding.dense.reshape(256, 48) == pytest.approx(
            peer.last_hidden_state[0, 1:].detach().numpy(), abs=1e-3
        )


def test_a_broken_onnx_file_is_an_error_of_the_weights(tmp_path):
    path = tmp_path / "vit_s_focus.onnx"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(WeightsError, match=r"vit_s_focus\.onnx"):
        dino_weights.read({path.name: path})


@pytest.mark.weights
def test_two_crops_of_a_picture_are_closer_than_two_pictures(run, example):
    photographs = [Image.of(example(name)).array for name in ("cat.jpg", "coffee.jpg", "astronaut.jpg", "rocket.jpg")]
    left, right = (
        np.array(
            [run(VIT, EmbedRequest.of(image=np.ascontiguousarray(part(picture)))).vector for picture in photographs]
        )
        for part in (lambda p: p[:, : int(0.75 * p.shape[1])], lambda p: p[:, int(0.25 * p.shape[1]) :])
    )
    likeness = left @ right.T
    assert (likeness.argmax(1) == np.arange(len(photographs))).all()
    assert np.diag(likeness).min() > 0.5
    assert np.median(likeness[~np.eye(len(photographs), dtype=bool)]) < 0.4


@pytest.mark.weights
def test_two_engines_agree(run, example):
    request = EmbedRequest.of(image=example("cat.jpg"), dense=True)
    one, other = run(VIT, request, engine="openvino"), run(VIT, request, engine="torch")
    assert one.vector == pytest.approx(other.vector, abs=1e-4)
    assert one.dense == pytest.approx(other.dense, abs=1e-4)
    assert one.space == other.space


@pytest.mark.weights
def test_the_graph_is_the_exported_one(weights, load, example):
    """The peer is the ONNX file itself, read by OpenVINO."""
    from manylens.runtime.engines import compile

    files = weights(VIT)
    model = load(VIT, engine="openvino")
    square = model._views.whole.prepare(Image.of(example("coffee.jpg")).array)[None]
    found = model._encode(square)[0]
    outputs = [f"/backbone/encoder/layer.{block}/Add_1_output_0" for block in (9, 8)]
    whole = compile(files["vit_s_focus.onnx"], EngineSettings(), outputs=outputs)
    late, early = whole(model._views.processor.normalised(square))
    assert found["vector"] == pytest.approx(late[0, 0], abs=1e-3)
    assert found["dense"].reshape(256, -1) == pytest.approx(early[0, 1:], abs=1e-3)


@pytest.mark.weights
def test_bf16_stays_near_f32(run, example):
    from manylens.runtime.cpu import has_bf16

    if not has_bf16():
        pytest.skip("this processor does not compute in bf16")
    request = EmbedRequest.of(image=example("cat.jpg"))
    assert run(VIT, request).vector @ run(VIT, request, precision="bf16").vector > 0.999


@pytest.mark.weights
def test_a_region_is_what_lies_in_its_box(run, example):
    def region(name, box):
        return run(VIT, EmbedRequest.of(image=example(name), box=box))

    face, near, cloth = region("cat.jpg", (100, 60, 220, 180)), region("cat.jpg", (110, 70, 230, 190)), None
    cloth = region("cat.jpg", (0, 0, 60, 60))
    assert face.vector @ near.vector > 0.95 > face.vector @ cloth.vector
    assert np.linalg.norm(face.vector) == pytest.approx(1, abs=1e-5)
    assert face.space != run(VIT, EmbedRequest.of(image=example("cat.jpg"))).space


@pytest.mark.weights
def test_a_picture_is_encoded_once(load, example):
    model, ctx = load(VIT), Context()
    runs = []
    encode = model._encode
    model._features._encoder = lambda pictures: (runs.append(len(pictures)), encode(pictures))[1]
    try:
        cat, coffee = EmbedRequest.of(image=example("cat.jpg")), EmbedRequest.of(image=example("coffee.jpg"))
        first = [(found, ctx.notes["cache"]) for found in model.run([cat, coffee, cat], ctx)]
        again = [(found, ctx.notes["cache"]) for found in model.run([coffee, cat], ctx)]
    finally:
        model._features._encoder = encode
    assert runs == [2]
    assert [cache for _, cache in again] == ["memory", "memory"]
    assert (first[0][0].vector == again[1][0].vector).all()
    assert first[0][0].dense is None


@pytest.mark.weights
def test_the_trainable_form_is_the_same_network(load, run, example):
    image = Image.of(example("cat.jpg"))
    opened = load(VIT).trainable()
    pixels = opened.preprocess([image]).requires_grad_(True)
    outputs = opened.forward(pixels)
    found = run(VIT, EmbedRequest.of(image=image, dense=True))
    assert outputs["image"].detach().numpy()[0] == pytest.approx(found.vector, abs=1e-4)
    assert outputs["dense"].detach().numpy()[0] == pytest.approx(found.dense, abs=1e-3)
    outputs["image"][0, 0].backward()
    assert pixels.grad.abs().sum() > 0
    assert len(opened.blocks) == 12
    names = [name for name, _ in opened.module.named_modules()]
    for target in opened.lora_targets:
        assert sum(name.endswith(target) for name in names) == 12


@pytest.mark.weights
@pytest.mark.parametrize(
    "identity", [VIT, "manylens/minilm", "manylens/ssd-coco", "manylens/efficientnet-lite3", "manylens/ppocr"]
)
def test_every_model_can_be_measured(load, identity):
    probe = load(identity).probe()
    assert probe().shape == probe().shape
    assert np.isfinite(probe()).all()
    assert models.base.Model.probe is not type(load(identity)).probe


def test_attention_is_what_the_network_itself_attends_with(folder):
    import torch

    opened = of_folder(folder, engine="torch").trainable()
    pixels = opened.preprocess([Image.of(np.random.default_rng(2).integers(0, 256, (50, 70, 3), dtype=np.uint8))])
    with torch.no_grad():
        found = opened.attention(pixels)
        opened.module.set_attn_implementation("eager")
        expected = []
        hooks = [
            block.attention.register_forward_hook(lambda part, given, made: expected.append(made[1]))
            for block in opened.blocks
        ]
        opened.forward(pixels)
        for hook in hooks:
            hook.remove()
    assert len(found) == len(expected) == len(opened.blocks)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == (1, 4, opened.prefix + (224 // opened.patch) ** 2, opened.prefix + 256)
        assert one.numpy() == pytest.approx(other.numpy(), abs=1e-6)
