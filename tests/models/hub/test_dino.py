"""ViT, DINO, DINOv2 and DINOv3 against plain transformers, on small checkpoints of the true architecture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tests.models.hub import kit

from manylens.catalog import Catalog
from manylens.errors import UnsupportedError, WeightsError
from manylens.media import Image, from_rle
from manylens.models.dense.grids import cover
from manylens.models.dense.neighbours import votes
from manylens.models.dino import plan as plans
from manylens.models.dino import weights
from manylens.models.dino.views import FINE, fine_size
from manylens.runtime.context import Context
from manylens.runtime.cpu import has_bf16
from manylens.session import Session
from manylens.tasks import ClassifyRequest, EmbedRequest, MatchRequest, SegmentRequest, TrackRequest

EXAMPLES = Path(__file__).parents[3] / "examples"
CONFIGS = Path(__file__).parent / "configs"
TOLERANCE, BF16 = 2e-4, 0.15

_SIZE = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
_VIT = {**_SIZE, "intermediate_size": 40, "image_size": 32, "patch_size": 8}
_V2 = {**_SIZE, "mlp_ratio": 2, "image_size": 70, "patch_size": 14}
_V3 = {**_SIZE, "intermediate_size": 40, "patch_size": 16, "num_register_tokens": 3}
_SQUARE = {"size": {"height": 40, "width": 40}, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.4] * 3}
_CROP = {"size": {"shortest_edge": 80}, "crop_size": {"height": 70, "width": 70}, "resample": 3}
_CROP |= {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_V3_SQUARE = {"size": {"height": 64, "width": 64}, "resample": 2}
# Class of transformers, config, its preprocessor_config.json; names are the kinds that differ in code.
KINDS = {
    "vit": ("ViTModel", _VIT, _SQUARE),
    "vit-classes": ("ViTForImageClassification", {**_VIT, "num_labels": 5, "hidden_act": "gelu_new"}, _SQUARE),
    "dinov2": ("Dinov2Model", _V2, _CROP),
    "dinov2-classes": ("Dinov2ForImageClassification", {**_V2, "num_labels": 5}, _CROP),
    "dinov2-gated": ("Dinov2Model", {**_V2, "use_swiglu_ffn": True}, _CROP),
    "registers": ("Dinov2WithRegistersModel", {**_V2, "num_register_tokens": 3}, _CROP),
    "dinov3": ("DINOv3ViTModel", _V3, _V3_SQUARE),
    "dinov3-gated": ("DINOv3ViTModel", {**_V3, "use_gated_mlp": True, "hidden_act": "silu"}, _V3_SQUARE),
}
_SILENT = r"mask_token|pooler|(k_proj|key)\.bias"
ENGINES = [("torch", "f32"), ("openvino", "f32"), ("torch", "bf16"), ("openvino", "bf16")]


def made(kind: str, folder: Path) -> Path:
    name, options, processor = KINDS[kind]
    cls = getattr(transformers, name)
    return kit.save(kit.noisy(cls(cls.config_class(**options))), folder, preprocessor_config=processor)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: made(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


def picture(seed: int = 0, width: int = 121, height: int = 90) -> Image:
    """Smooth noise: something that a resize does not turn into grey."""
    small = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    import cv2

    return Image.of(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))


def reference(kind: str, folder: Path, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """What plain transformers gives for normalised pixels (1, 3, H, W)."""
    cls = getattr(transformers, KINDS[kind][0])
    model = cls.from_pretrained(folder, local_files_only=True, attn_implementation="eager").eval()
    options = {"interpolate_pos_encoding": True} if kind.startswith("vit") else {}
    base = getattr(model, model.base_model_prefix) if kind.endswith("classes") else model
    prefix = 1 + getattr(model.config, "num_register_tokens", 0)
    with torch.no_grad():
        made = base(torch.from_numpy(pixels), output_attentions=True, **options)
        found = {
            "vector": made.last_hidden_state[0, 0],
            "dense": made.last_hidden_state[0, prefix:],
            "attention": made.attentions[-1][0, :, 0, prefix:],
        }
        if kind.endswith("classes"):
            found["logits"] = model(torch.from_numpy(pixels), **options).logits[0]
    return {name: tensor.numpy() for name, tensor in found.items()}


@pytest.mark.parametrize(("engine", "precision"), ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_features_attention_and_logits_are_those_of_transformers(folders, kind, engine, precision):
    """At the checkpoint's own size, and of the whole picture at another, not square."""
    if precision == "bf16" and not has_bf16():
        pytest.skip("this processor does not compute in bf16")
    model = kit.opened(folders[kind], engine=engine, precision=precision)
    tolerance = TOLERANCE if precision == "f32" else BF16
    for prepared in (model._views.seen.prepare(picture().array), picture(width=112, height=160).array):
        found = model._encode(prepared[None])[0]
        expected = reference(kind, folders[kind], model._views.processor.normalised(prepared[None]))
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            assert np.abs(array).max() > 1e-3
            assert found[name].reshape(array.shape) == pytest.approx(array, abs=tolerance), name


@pytest.mark.parametrize("kind", KINDS)
def test_every_group_of_parameters_is_noticed(folders, tmp_path, kind):
    """But the mask token, which only pre-training uses; the pooler, which no feature goes through; and the bias of
    keys, which adds the same to all that a query looks at, so that the softmax takes it out."""
    prepared = picture(width=64, height=80).array[None]

    def outputs(folder: Path) -> dict[str, np.ndarray]:
        return kit.opened(folder)._encode(prepared)[0]

    assert kit.unnoticed(folders[kind], tmp_path, outputs, TOLERANCE, skip=_SILENT) == []


@pytest.mark.parametrize("kind", ["vit", "dinov2"])
def test_pixels_are_those_of_the_checkpoints_own_processor(folders, kind):
    cls = transformers.ViTImageProcessorPil if kind == "vit" else transformers.BitImageProcessorPil
    peer = cls.from_pretrained(folders[kind], local_files_only=True)
    views = kit.opened(folders[kind])._views
    for size in ((121, 90), (60, 200), (300, 301), (20, 700), (900, 30)):
        image = picture(1, *size)
        expected = peer(image.pil(), return_tensors="np")["pixel_values"]
        assert views.processor.normalised(views.seen.prepare(image.array)[None]) == pytest.approx(expected, abs=1e-5)


def test_of_a_picture_of_one_row_only_the_crop_is_made(folders):
    """Whole, it would be 80 x 4,800,000 pixels."""
    row = np.arange(60000, dtype=np.uint32).astype(np.uint8)[None, :, None].repeat(3, axis=2)
    found = kit.opened(folders["dinov2"])._views.seen.prepare(row)
    assert found.shape == (70, 70, 3)
    assert found[:, 35] == pytest.approx(row[0, 30000, 0], abs=1)


@pytest.mark.parametrize("size", [(121, 90), (30, 200), (300, 301)])
def test_pixels_of_dinov3_are_resized_without_rounding(folders, size):
    """As its processor does, which needs torchvision: rescale, resize with antialiasing, normalise."""
    views, image = kit.opened(folders["dinov3"])._views, picture(1, *size)
    levels = torch.from_numpy(image.array.copy()).permute(2, 0, 1)[None] / 255
    resized = torch.nn.functional.interpolate(levels, (64, 64), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(values)[:, None, None] for values in (views.processor.mean, views.processor.std))
    expected = ((resized - mean) / std).numpy()
    assert views.processor.normalised(views.seen.prepare(image.array)[None]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_the_vector_of_dinov3_is_that_of_pixels_without_rounding(folders, engine):
    model, image = kit.opened(folders["dinov3"], engine=engine), picture(1, 300, 301)
    pixels = model._views.processor.normalised(model._views.seen.prepare(image.array)[None])
    token = reference("dinov3", folders["dinov3"], pixels)["vector"]
    assert kit.run(model, EmbedRequest.of(image=image)).vector == pytest.approx(token / np.linalg.norm(token), abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("vit", {"size": {"height": 40, "width": 40}}),
        ("vit", {"size": {"height": 40, "width": 40}, "crop_size": {"height": 30, "width": 30}}),
        ("vit", {"size": 40, "do_normalize": None}),
        ("dinov2", {"size": {"shortest_edge": 80}, "crop_size": None, "do_center_crop": None}),
        ("dinov2", {"size": {"shortest_edge": 80}, "do_center_crop": False, "rescale_factor": 1 / 127.5}),
        ("dinov2", {"size": 80, "image_processor_type": "BitImageProcessorFast"}),
    ],
)
def test_what_a_processors_file_leaves_open_is_as_in_transformers(folders, tmp_path, kind, told):
    folder = shutil.copytree(folders[kind], tmp_path / "model")
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    cls = transformers.ViTImageProcessorPil if kind == "vit" else transformers.BitImageProcessorPil
    views, image = kit.opened(folder)._views, picture(1, 300, 301)
    expected = cls.from_pretrained(folder, local_files_only=True)(image.pil(), return_tensors="np")["pixel_values"]
    assert views.processor.normalised(views.seen.prepare(image.array)[None]) == pytest.approx(expected, abs=1e-5)


def test_the_vector_is_that_of_the_reference_and_patches_cover_the_whole_picture(folders):
    model, image = kit.opened(folders["dinov2"]), picture()
    peer = transformers.BitImageProcessorPil.from_pretrained(folders["dinov2"], local_files_only=True)
    token = reference("dinov2", folders["dinov2"], peer(image.pil(), return_tensors="np")["pixel_values"])["vector"]
    plain = kit.run(model, EmbedRequest.of(image=image))
    assert plain.vector == pytest.approx(token / np.linalg.norm(token), abs=1e-4)
    dense = kit.run(model, EmbedRequest.of(image=image, dense=True))
    region = kit.run(model, EmbedRequest.of(image=image, box=(0, 0, 121, 90)))
    assert dense.dense.shape == (5, 5, 24)
    mean = dense.dense.reshape(-1, 24).mean(axis=0)
    assert region.vector == pytest.approx(mean / np.linalg.norm(mean), abs=1e-4)
    assert len({plain.space, dense.space, region.space}) == 3
    square = kit.opened(folders["dinov3"])
    assert (
        kit.run(square, EmbedRequest.of(image=image)).space
        == kit.run(square, EmbedRequest.of(image=image, dense=True)).space
    )


@pytest.mark.parametrize("kind", plans.KINDS)
def test_what_a_config_leaves_out_is_as_in_transformers(kind):
    config = transformers.AutoConfig.for_model(kind)
    assert plans.DEFAULTS[kind].items() <= config.to_dict().items()


ROWS = [row for row in Catalog.load() if row.family == "dino" and row.repo]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_published_checkpoints_have_the_tensors_that_are_read(row):
    """Names and shapes of each published config on the meta device, against what its config says they are."""
    config = json.loads((CONFIGS / f"{row.id.replace('/', '--')}.json").read_text())
    about = plans.plan(config, row.id)
    from manylens.models.dino.module import network_class

    cls = network_class(about)
    options = {"add_pooling_layer": False} if cls.__name__ == "ViTModel" else {}
    with torch.device("meta"):
        state = cls(cls.config_class(**config), **options).state_dict()
    assert {weights.named(name): tuple(tensor.shape) for name, tensor in state.items()} == expected_tensors(config)
    assert row.bytes == pytest.approx(sum(4 * tensor.numel() for tensor in state.values()), rel=0.03)
    assert ("closed" in row.tasks["classify"]) == bool(about.head)
    assert about.kind == config["model_type"]


def expected_tensors(config: dict) -> dict[str, tuple[int, ...]]:
    """The tensors of a published vision transformer, from its config."""
    kind = config["model_type"]
    width, patch = config.get("hidden_size", 768), config.get("patch_size", 16)
    gated = config.get("use_swiglu_ffn") or config.get("use_gated_mlp")
    hidden = config.get("intermediate_size", 4 * width)
    if config.get("use_swiglu_ffn"):
        hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
    found = {"cls_token": (1, 1, width), "norm.weight": (width,), "norm.bias": (width,)}
    found |= {"patches.weight": (width, 3, patch, patch), "patches.bias": (width,)}
    if kind != "dinov3_vit":
        found["position_embeddings"] = (1, 1 + (config.get("image_size", 224) // patch) ** 2, width)
    if kind != "vit":
        found["mask_token"] = (1, 1, width) if kind == "dinov3_vit" else (1, width)
    if kind in ("dinov2_with_registers", "dinov3_vit"):
        found["register_tokens"] = (1, 4, width)
    if kind == "vit" and config["architectures"] == ["ViTForImageClassification"]:
        found |= {"classifier.weight": (1000, width), "classifier.bias": (1000,)}
    biased = {"o": True} | {
        part: config.get(f"{long}_bias", kind != "dinov3_vit" or part != "k")
        for part, long in (("q", "query"), ("k", "key"), ("v", "value"))
    }
    for number in range(config.get("num_hidden_layers", 12)):
        block = {f"{norm}.{part}": (width,) for norm in ("norm1", "norm2") for part in ("weight", "bias")}
        block |= {f"attention.{part}_proj.weight": (width, width) for part in biased}
        block |= {f"attention.{part}_proj.bias": (width,) for part, has in biased.items() if has}
        block |= {f"mlp.{part}.weight": (hidden, width) for part in ("up", "gate")[: 2 if gated else 1]}
        block |= {f"mlp.{part}.bias": (hidden,) for part in ("up", "gate")[: 2 if gated else 1]}
        block |= {"mlp.down.weight": (width, hidden), "mlp.down.bias": (width,)}
        block |= {} if kind == "vit" else {"scale1": (width,), "scale2": (width,)}
        found |= {f"blocks.{number}.{name}": shape for name, shape in block.items()}
    return found


@pytest.mark.parametrize("kind", ["vit-classes", "dinov2", "registers", "dinov3"])
def test_names_of_older_and_of_newer_releases_load_the_same(folders, tmp_path, kind):
    """transformers writes the names that the hub's checkpoints have, which are not those of its modules now."""
    from safetensors.torch import load_file, save_file

    cls = getattr(transformers, KINDS[kind][0])
    state = cls.from_pretrained(folders[kind], local_files_only=True).state_dict()
    assert state.keys() != load_file(folders[kind] / "model.safetensors").keys()
    folder = shutil.copytree(folders[kind], tmp_path / "new")
    save_file(
        {key: tensor.contiguous() for key, tensor in state.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    prepared = picture(width=70, height=70).array[None]
    one, other = (kit.opened(path)._encode(prepared)[0]["dense"] for path in (folders[kind], folder))
    assert (one == other).all()


@pytest.mark.parametrize("kind", ["vit-classes", "dinov2-classes"])
def test_a_checkpoint_with_a_classifier_names_what_it_sees(folders, kind):
    model = kit.opened(folders[kind], engine="openvino")
    found = kit.run(model, ClassifyRequest.of(image=picture(), top=5)).labels
    pixels = model._views.processor.normalised(model._views.seen.prepare(picture().array)[None])
    chances = torch.from_numpy(reference(kind, folders[kind], pixels)["logits"]).softmax(0).numpy()
    assert [label.name for label in found] == [f"LABEL_{i}" for i in np.argsort(-chances)]
    assert [label.score for label in found] == pytest.approx(np.sort(chances)[::-1], abs=1e-4)


def test_labels_that_do_not_exclude_each_other_are_not_ranked(folders, tmp_path):
    """Shares that sum to one would say nothing of them; vectors and examples are as ever."""
    folder = shutil.copytree(folders["vit-classes"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {"problem_type": "multi_label_classification"}
    (folder / "config.json").write_text(json.dumps(config))
    model = kit.opened(folder)
    with pytest.raises(UnsupportedError, match="do not exclude each other"):
        kit.run(model, ClassifyRequest.of(image=picture()))
    like = [{"image": picture(seed), "name": name} for seed, name in ((1, "one"), (2, "two"))]
    assert kit.run(model, ClassifyRequest.of(image=picture(2), like=like)).best.name == "two"


def test_the_nearest_examples_vote(folders):
    model = kit.opened(folders["dinov3"])
    like = [{"image": picture(seed), "name": name} for seed, name in ((1, "one"), (2, "two"), (3, "one"))]
    found = kit.run(model, ClassifyRequest.of(image=picture(2), like=like))
    assert found.best.name == "two"
    vectors = np.stack([kit.run(model, EmbedRequest.of(image=picture(i))).vector for i in (1, 2, 3)])
    shares = votes(vectors, np.array([0, 1, 0]), vectors[1:2], k=20, temperature=0.07)[0]
    assert {label.name: label.score for label in found.labels} == pytest.approx({"one": shares[0], "two": shares[1]})
    score = kit.run(model, MatchRequest.of(image=picture(1), other=picture(2))).score
    assert score == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-5)
    assert kit.run(model, MatchRequest.of(image=picture(1), other=picture(1))).score == pytest.approx(1, abs=1e-5)


def two_things(shift: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A noisy ground with a red and a green square: the picture and the masks of both."""
    pixels = np.random.default_rng(5).integers(90, 130, (96, 128, 3), dtype=np.uint8)
    red, green = np.zeros((2, 96, 128), bool)
    red[16:48, 16 + shift : 48 + shift] = True
    green[56:88, 72 - shift : 112 - shift] = True
    pixels[red], pixels[green] = (230, 20, 20), (20, 220, 40)
    return pixels, red, green


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


@pytest.mark.parametrize("kind", ["registers", "dinov3"])
def test_examples_of_several_classes_are_found_at_the_pictures_size(folders, kind, tmp_path):
    (example, red, green), (asked, *truth) = two_things(), two_things(shift=24)
    like = [{"image": example, "mask": red, "name": "red"}, {"image": example, "mask": green, "name": "green"}]
    request = SegmentRequest.of(image=asked, like=like)
    with Session(home=tmp_path) as session:
        found = session.run(request, model=str(folders[kind]))
        again = session.run(request, model=str(folders[kind]))
    by_name = dict(zip(found.data["class_name"], found.mask, strict=True))
    assert iou(by_name["red"], truth[0]) > 0.6
    assert iou(by_name["green"], truth[1]) > 0.6
    assert not (by_name["red"] & by_name["green"]).any()
    assert [found.metadata["provenance"].cache, again.metadata["provenance"].cache] == ["miss", "memory"]


def test_the_main_object_is_a_mask_of_the_whole_picture(folders, tmp_path):
    with Session(home=tmp_path) as session:
        found = session.run(SegmentRequest.of(image=EXAMPLES / "cat.jpg", mode="main"), model=str(folders["dinov3"]))
    height, width = Image.of(EXAMPLES / "cat.jpg").array.shape[:2]
    assert found.mask.shape == (1, height, width)
    assert 0 < found.mask.mean() < 1
    assert list(found.data["level"]) == ["whole"]


def test_masks_are_carried_through_a_video_and_back(folders):
    steps = [two_things(shift=6 * i) for i in range(5)]
    frames = [pixels for pixels, _, _ in steps]
    objects = [{"mask": steps[2][1]}, {"mask": steps[2][2]}]
    model, shares = kit.opened(folders["registers"]), []
    request = TrackRequest.of(video=frames, frame=2, objects=objects)
    tracks = kit.run(model, request, progress=lambda share, _: shares.append(share))
    assert [frame.index for frame in tracks.frames] == list(range(5))
    assert tracks.ids == (1, 2)
    for frame, (_, *truth) in zip(tracks.frames, steps, strict=True):
        for one, mask in zip(frame.objects, truth, strict=True):
            assert iou(from_rle(one.mask), mask) > 0.6
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_thing_smaller_than_a_patch_is_followed(folders):
    """Its share of a patch is never large; it is out of sight when little is left of what it had."""
    ground = picture(3, 480, 480).array // 2 + 40
    thing = np.zeros((480, 480), bool)
    thing[220:230, 205:215] = True  # on the edge of four patches of 14 pixels
    frame = np.where(thing[..., None], np.array([240, 20, 20], np.uint8), ground)
    tracks = kit.run(kit.opened(folders["registers"]), TrackRequest.of(video=[frame] * 3, mask=thing))
    assert [len(one.objects) for one in tracks.frames] == [1, 1, 1]
    for one in tracks.frames[1:]:
        mask = from_rle(one.objects[0].mask)
        assert mask[thing].mean() > 0.6
        assert mask.mean() < 0.01
        assert one.objects[0].score > 0.25


def test_a_kept_picture_and_network_need_no_weights(folders, tmp_path, monkeypatch):
    """A second start reads neither the weights nor, for a picture that was seen, the compiled network."""
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path))
    ctx = Context()
    first = kit.opened(folders["dinov3"], engine="openvino")
    one = next(iter(first.run([EmbedRequest.of(image=picture(), dense=True)], ctx)))

    def refuse(*_: object) -> None:
        raise AssertionError("the weights were read")

    monkeypatch.setattr(weights, "read", refuse)
    second = kit.opened(folders["dinov3"], engine="openvino")
    assert (next(iter(second.run([EmbedRequest.of(image=picture(), dense=True)], ctx))).dense == one.dense).all()
    assert second._encode._network is None
    again = kit.run(second, EmbedRequest.of(image=picture(), dense=True))
    assert (again.dense == one.dense).all()


@pytest.mark.parametrize("kind", ["vit-classes", "registers", "dinov3-gated"])
def test_the_trainable_form_is_the_same_network(folders, kind):
    model, image = kit.opened(folders[kind]), picture()
    opened = model.trainable()
    pixels = opened.preprocess([image]).requires_grad_(True)
    outputs = opened.forward(pixels)
    expected = model._encode(model._views.seen.prepare(image.array)[None])[0]
    assert outputs["vector"].detach().numpy()[0] == pytest.approx(expected["vector"], abs=1e-4)
    assert outputs["dense"].detach().numpy()[0] == pytest.approx(expected["dense"], abs=1e-4)
    assert len(opened.labels) == (5 if kind == "vit-classes" else 0)
    if opened.labels:
        assert outputs["logits"].detach().numpy()[0] == pytest.approx(expected["logits"], abs=1e-4)
    attention = opened.attention(pixels)[-1][0, :, 0, opened.prefix :].detach().numpy()
    assert attention == pytest.approx(expected["attention"].reshape(attention.shape), abs=1e-5)
    outputs["image"][0, 0].backward()
    assert pixels.grad.abs().sum() > 0
    assert all(parameter.requires_grad for parameter in opened.parts["encoder"].parameters())
    names = [name for name, _ in opened.module.named_modules()]
    assert all(sum(name.endswith(target) for name in names) == 2 for target in opened.lora_targets)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"num_hidden_layers": 3}, WeightsError, r"lacks .*2\."),
        ({"num_hidden_layers": 1}, WeightsError, "has too many"),
        ({"intermediate_size": 44}, WeightsError, "of another shape"),
        ({"num_attention_heads": 5}, WeightsError, "describes no network"),
        ({"num_attention_heads": -1}, WeightsError, "describes no network"),
        ({"image_size": 4}, WeightsError, "describes no network"),
        ({"hidden_size": "wide"}, WeightsError, "holds what is no number"),
        ({"hidden_act": "mish"}, UnsupportedError, "hidden_act 'mish'"),
        ({"num_channels": 4}, UnsupportedError, "4 channels"),
        ({"patch_size": [8, 4]}, UnsupportedError, "only squares"),
        ({"model_type": "swin"}, UnsupportedError, "swin"),
    ],
)
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_a_wrong_checkpoint_is_one_clear_line(folders, tmp_path, change, error, says, engine):
    folder = shutil.copytree(folders["vit"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(error, match=says) as caught:
        kit.run(kit.opened(folder, engine=engine), EmbedRequest.of(image=picture()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"image_mean": None}, "image_mean None"),
        ({"image_mean": [0.5]}, r"image_mean \[0.5\]"),
        ({"image_std": [0.5, 0, 0.5]}, r"image_std \[0.5, 0, 0.5\]"),
        ({"rescale_factor": "small"}, "rescale_factor small"),
        ({"size": {"height": "tall", "width": 40}}, "size {'height': 'tall'"),
        ({"size": {"height": 0, "width": 40}}, "size {'height': 0"),
        ({"size": {"shortest_edge": 0}}, "size {'shortest_edge': 0}"),
        ({"crop_size": "small", "do_center_crop": True}, "crop_size small"),
        ({"crop_size": {"height": 4}, "do_center_crop": True}, "crop_size {'height': 4}"),
        ({"size": {"height": 4, "width": 40}}, "40x4, less than a patch of 8"),
    ],
)
def test_a_wrong_processors_file_is_one_clear_line(folders, tmp_path, told, says):
    folder = shutil.copytree(folders["vit"], tmp_path / "model")
    (folder / "preprocessor_config.json").write_text(json.dumps(_SQUARE | told))
    with pytest.raises(WeightsError, match=says) as caught:
        kit.opened(folder)
    assert "\n" not in str(caught.value)


def test_the_size_for_masks_keeps_the_aspect():
    for size in ((640, 480), (100, 1000), (33, 33)):
        width, height = fine_size(size, 14)
        assert width % 14 == height % 14 == 0
        assert width * height == pytest.approx(FINE**2, rel=0.15)
        assert width / height == pytest.approx(size[0] / size[1], rel=0.15)
    assert cover(np.ones((96, 128), bool), (6, 8)).min() == 1
