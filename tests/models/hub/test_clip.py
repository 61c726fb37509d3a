"""CLIP, SigLIP, SigLIP 2 and CLIPSeg against plain transformers, on small checkpoints of the true architecture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from benchmarks._baselines import words
from tests.models.hub import kit
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
)

from manylens.errors import PromptError, UnsupportedError, WeightsError
from manylens.media import Image
from manylens.models.clip import naflex
from manylens.models.clip.text import Tokens
from manylens.session import Session
from manylens.tasks import ClassifyRequest, EmbedRequest, MatchRequest, SegmentRequest

KINDS = ("clip", "siglip", "siglip2")
SIDE, PATCH, LENGTH = 32, 8, 12
EXAMPLES = Path(__file__).parents[3] / "examples"
NAMES = ("cat", "dog", "red cup")
KEYS = r"k_proj\.bias"
_SMALL = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3}
_TEXT = {**_SMALL, "vocab_size": len(words.VOCABULARY), "max_position_embeddings": LENGTH}
_ENDS = {"bos_token_id": words.VOCABULARY[words.START], "eos_token_id": words.VOCABULARY[words.END]}
_PROCESSORS = {
    "clip": {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}},
    "siglip": {"size": {"height": SIDE, "width": SIDE}},
    "siglip2": {"patch_size": PATCH, "max_num_patches": 20},
    "clipseg": {"size": {"height": SIDE, "width": SIDE}, "resample": 2},
}


def picture(seed: int, width: int = 61, height: int = 40) -> Image:
    return Image.of(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def made(kind: str, folder: Path) -> Path:
    vision = {**_SMALL, "image_size": SIDE, "patch_size": PATCH}
    torch.manual_seed(0)
    match kind:
        case "clip":
            config = CLIPConfig(text_config={**_TEXT, **_ENDS}, vision_config=vision, projection_dim=16)
            model = CLIPModel(config)
        case "siglip":
            model = SiglipModel(SiglipConfig(text_config={**_TEXT, "projection_size": 24}, vision_config=vision))
        case "siglip2":
            vision = {**_SMALL, "patch_size": PATCH, "num_patches": 16}
            model = Siglip2Model(Siglip2Config(text_config={**_TEXT, "projection_size": 24}, vision_config=vision))
        case _:
            deep = {**vision, "num_hidden_layers": 4}
            config = CLIPSegConfig(
                text_config={**_TEXT, **_ENDS},
                vision_config=deep,
                projection_dim=16,
                reduce_dim=8,
                extract_layers=[0, 2, 3],
                decoder_num_attention_heads=2,
                decoder_intermediate_size=16,
            )
            model = CLIPSegForImageSegmentation(config)
    kit.noisy(model)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if name.endswith("logit_scale"):
                tensor.fill_(1.5)
    kit.save(model, folder, preprocessor_config=_PROCESSORS[kind])
    words.write(folder, pad=words.END if kind.startswith("clip") else words.PAD)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("clip")
    return {kind: made(kind, root / kind) for kind in (*KINDS, "clipseg")}


def reference(kind: str, folder: Path, images: list[Image], texts: list[str]) -> dict[str, np.ndarray]:
    """The same by plain transformers: its own model, processor and tokenizer."""
    classes = {"clip": CLIPModel, "siglip": SiglipModel, "siglip2": Siglip2Model}
    processors = {
        "clip": transformers.CLIPImageProcessorPil,
        "siglip": transformers.SiglipImageProcessorPil,
        "siglip2": transformers.Siglip2ImageProcessorPil,
    }
    model = classes[kind].from_pretrained(folder).eval()
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    how = {"padding": "max_length", "max_length": LENGTH} if kind != "clip" else {"padding": True}
    ids = tokenizer(texts, return_tensors="pt", return_attention_mask=kind == "clip", **how)
    pixels = processors[kind](**_PROCESSORS[kind])([image.array for image in images], return_tensors="pt")
    ids.pop("token_type_ids", None)
    with torch.no_grad():
        found = model(**ids, **pixels)
    return {
        "images": found.image_embeds.numpy(),
        "texts": found.text_embeds.numpy(),
        "logits": found.logits_per_image.numpy(),
    }


def ours(folder: Path, **settings) -> dict[str, np.ndarray]:
    model = kit.opened(folder, **settings)
    images = [picture(1), picture(2, 40, 70)]
    texts = ["a photo of a cat.", "a photo of two red dog.", "very small thing on the left"]
    found = model.run(
        [*(EmbedRequest.of(image=i) for i in images), *(EmbedRequest.of(text=t) for t in texts)], kit.Context()
    )
    vectors = [one.vector for one in found]
    cosines = [[kit.run(model, MatchRequest.of(image=image, text=text)).score for text in texts] for image in images]
    return {"images": np.stack(vectors[:2]), "texts": np.stack(vectors[2:]), "match": np.array(cosines)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [({}, 2e-6), ({"engine": "openvino"}, 2e-5), ({"engine": "openvino", "precision": "bf16"}, 0.05)],
    ids=["torch", "openvino", "bf16"],
)
def test_vectors_equal_those_of_transformers(kind, settings, tolerance, folders):
    found = ours(folders[kind], **settings)
    images = [picture(1), picture(2, 40, 70)]
    texts = ["a photo of a cat.", "a photo of two red dog.", "very small thing on the left"]
    right = reference(kind, folders[kind], images, texts)
    assert np.ptp(right["images"], axis=0).max() > 0.05  # different pictures, different vectors
    assert np.ptp(right["texts"], axis=0).max() > 0.05
    assert found["images"] == pytest.approx(right["images"], abs=tolerance)
    assert found["texts"] == pytest.approx(right["texts"], abs=tolerance)
    logits = right["logits"]
    wanted = right["images"] @ right["texts"].T if kind == "clip" else 1 / (1 + np.exp(-logits))
    assert found["match"] == pytest.approx(wanted, abs=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_no_parameter_can_change_unnoticed(kind, folders, tmp_path):
    # A bias of the keys adds the same to all of a query's scores, which the softmax takes out again. CLIP's match is a
    # cosine; its scale is held by the test below.
    skip = KEYS if kind != "clip" else rf"{KEYS}|^logit_"
    assert kit.unnoticed(folders[kind], tmp_path, ours, 1e-4, skip) == []


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_of_names_are_the_softmax_of_the_logits(kind, folders):
    prompts = [("a photo of a {}." if kind == "clip" else "This is a photo of {}.").format(name) for name in NAMES]
    logits = reference(kind, folders[kind], [picture(3), picture(3)], prompts)["logits"][0]
    chances = np.exp(logits) / np.exp(logits).sum()
    found = kit.run(kit.opened(folders[kind]), ClassifyRequest.of(image=picture(3), names=NAMES))
    assert [label.name for label in found.labels] == [NAMES[i] for i in np.argsort(-chances)]
    assert [label.score for label in found.labels] == pytest.approx(sorted(chances, reverse=True), abs=1e-5)


def test_pictures_and_texts_share_a_space_and_pictures_match(folders):
    model = kit.opened(folders["clip"])
    image, text = kit.run(model, EmbedRequest.of(image=picture(1))), kit.run(model, EmbedRequest.of(text="a cat"))
    assert image.space == text.space
    assert kit.run(model, MatchRequest.of(image=picture(1), other=picture(1))).score == pytest.approx(1)
    assert kit.run(model, MatchRequest.of(image=picture(1), text="a cat")).score == pytest.approx(
        float(image.vector @ text.vector)
    )


@pytest.mark.parametrize("size", [(61, 40), (5, 200), (16, 16), (1, 1), (640, 480)])
def test_naflex_cuts_a_picture_as_transformers_does(size):
    processor = transformers.Siglip2ImageProcessorPil(patch_size=16, max_num_patches=64)
    right = processor([picture(1, *size).array], return_tensors="np", input_data_format="channels_last")
    columns, rows = naflex.grid(size, 16, 64)
    assert (rows, columns) == tuple(right["spatial_shapes"][0])
    assert columns * rows <= 64


@pytest.mark.parametrize("kind", ["clip", "siglip", "clipseg"])
@pytest.mark.parametrize("size", [(61, 40), (40, 61), (9, 300), (33, 32)])
def test_pictures_are_prepared_as_transformers_does(kind, size, folders):
    classes = {
        "clip": transformers.CLIPImageProcessorPil,
        "siglip": transformers.SiglipImageProcessorPil,
        "clipseg": transformers.ViTImageProcessorPil,
    }
    right = classes[kind](**_PROCESSORS[kind])([picture(4, *size).array], return_tensors="np")["pixel_values"][0]
    model = kit.opened(folders[kind])
    processor = model.processor if kind == "clipseg" else model._towers.processor
    found = processor.normalised(processor.pixels(picture(4, *size).array))
    if kind == "clipseg":  # the ViT processor's own mean and deviation are one half
        found = found * np.array(processor.std)[:, None, None] + np.array(processor.mean)[:, None, None]
        right = right * 0.5 + 0.5
    assert found == pytest.approx(right, abs=1e-6)


def segmented(folder: Path, **settings) -> dict[str, np.ndarray]:
    model = kit.opened(folder, **settings)
    return {"logits": model.logits(picture(5), model._tokens(["cat", "two red dog"]))}


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [({}, 1e-5), ({"engine": "openvino"}, 1e-4), ({"engine": "openvino", "precision": "bf16"}, 0.15)],
    ids=["torch", "openvino", "bf16"],
)
def test_masks_of_words_equal_those_of_transformers(settings, tolerance, folders):
    model = CLIPSegForImageSegmentation.from_pretrained(folders["clipseg"]).eval()
    opened = kit.opened(folders["clipseg"], **settings)
    pixels = opened.processor.normalised(opened.processor.pixels(picture(5).array))
    rows = []
    for text in (["cat"], ["two red dog"]):
        with torch.no_grad():
            planes = torch.from_numpy(pixels)[None]
            rows.append(model(input_ids=torch.from_numpy(opened._tokens(text)), pixel_values=planes).logits.numpy())
    right = np.stack([row.reshape(SIDE, SIDE) for row in rows])
    assert 0.05 < (right > 0).mean() < 0.95  # neither empty nor full
    found = segmented(folders["clipseg"], **settings)["logits"]
    assert found == pytest.approx(right, abs=tolerance * max(1.0, float(np.abs(right).max())))


def test_no_parameter_of_clipseg_can_change_unnoticed(folders, tmp_path):
    # The picture's own vector is not read, so neither is what only it depends on.
    skip = KEYS + r"|vision_model\.post_layernorm|visual_projection|logit_scale"
    assert kit.unnoticed(folders["clipseg"], tmp_path, segmented, 1e-4, skip) == []


def test_words_give_a_mask_each_and_a_second_word_does_not_encode_again(folders, tmp_path):
    with Session(home=tmp_path) as session:
        ask = lambda text: session.run(  # noqa: E731
            SegmentRequest.of(image=EXAMPLES / "cat.jpg", text=text, threshold=0.3), model=str(folders["clipseg"])
        )
        first, second = ask("cat, red cup"), ask("dog")
    assert set(first.data["class_name"]) <= {"cat", "red cup"}
    assert len(first) + len(second) > 0
    assert first.mask.shape[1:] == (300, 451)
    assert first.metadata["provenance"].cache == "miss"
    assert second.metadata["provenance"].cache == "memory"


@pytest.mark.parametrize("kind", ["clip", "siglip2"])
def test_a_second_session_finds_the_vector_on_disk(kind, folders, tmp_path):
    for wanted in ("miss", "disk"):
        with Session(home=tmp_path) as session:
            found = session.run(EmbedRequest.of(image=EXAMPLES / "cat.jpg"), model=str(folders[kind]))
            assert found.provenance.cache == wanted


@pytest.mark.parametrize("kind", [*KINDS, "clipseg"])
def test_a_text_that_is_too_long_is_refused_not_cut(kind, folders):
    text = " ".join(["very"] * 40)
    request = SegmentRequest.of(image=picture(1), text=text) if kind == "clipseg" else EmbedRequest.of(text=text)
    with pytest.raises(PromptError, match=rf"42 tokens, and .* reads at most {LENGTH}"):
        kit.run(kit.opened(folders[kind]), request)


LETTERS = ("<pad>", "</s>", "<bos>", "<unk>", "a", "cat", "cat,", "cat.", "Cat.", "A", "red", "red-cup", "redcup")


def lettered(kind: str, folder: Path, **settings) -> Tokens:
    """The tokenizer of a folder whose own file keeps every letter and mark, and adds no ends."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder.mkdir()
    tokens = Tokenizer(models.WordLevel({word: i for i, word in enumerate(LETTERS)}, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokens.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": kind, "text_config": {"max_position_embeddings": 6}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>", "eos_token": "</s>", **settings}))
    return Tokens({path.name: path for path in folder.iterdir()}, "x")


@pytest.mark.parametrize(
    ("kind", "settings", "text", "words"),
    [
        ("siglip", {"tokenizer_class": "SiglipTokenizer"}, "A  Cat. red-cup ", ["a", "cat", "redcup"]),
        ("siglip", {"tokenizer_class": "SiglipTokenizer", "do_lower_case": False}, "A cat.", ["A", "cat"]),
        ("siglip", {"tokenizer_class": "GemmaTokenizer"}, "A Cat.", ["a", "cat."]),
        ("siglip", {"tokenizer_class": "GemmaTokenizerFast"}, "A Cat.", ["a", "cat."]),
        ("siglip2", {}, "A Cat. red-cup", ["a", "cat.", "red-cup"]),
        ("siglip", {}, "A Cat.", ["A", "Cat."]),
        ("clip", {}, "A Cat.", ["A", "Cat."]),
    ],
)
def test_texts_are_written_as_each_was_trained(kind, settings, text, words, tmp_path):
    (ids,) = lettered(kind, tmp_path / "words", **settings)([text])
    assert [LETTERS[i] for i in ids[: len(words)]] == words
    assert set(ids[len(words) :]) <= {0}


@pytest.mark.parametrize("ends", [(False, True), (True, True), (True, False), (False, False)])
def test_the_ends_that_the_settings_ask_for_are_put_on_as_transformers_does(ends, tmp_path):
    settings = {"add_bos_token": ends[0], "add_eos_token": ends[1], "bos_token": {"content": "<bos>"}}
    found = lettered("siglip2", tmp_path / "words", **settings)(["a cat"])
    plain = {**settings, "bos_token": "<bos>", "eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "words/tokenizer.json"), **plain)
    right = tokenizer(["a cat"], padding="max_length", max_length=6, padding_side="right")["input_ids"]
    assert found.tolist() == right


@pytest.mark.parametrize("kind", [*KINDS, "clipseg"])
def test_a_processor_file_of_newer_form_or_with_nulls_says_the_same(kind, folders, tmp_path):
    import shutil

    plain = json.loads((folders[kind] / "preprocessor_config.json").read_text())
    nulls = dict.fromkeys(("do_resize", "do_normalize", "do_rescale", "do_center_crop", "rescale_factor", "image_mean"))
    request = SegmentRequest.of(image=picture(1), text="cat", threshold=0.0)
    request = request if kind == "clipseg" else EmbedRequest.of(image=picture(1))
    said = lambda folder: kit.run(kit.opened(folder), request)  # noqa: E731
    answer = lambda found: found.confidence if kind == "clipseg" else found.vector  # noqa: E731
    right = answer(said(folders[kind]))
    for name, body in (
        ("preprocessor_config.json", {**nulls, **plain}),
        ("processor_config.json", {"image_processor": {**nulls, **plain}, "processor_class": "CLIPProcessor"}),
    ):
        copy = shutil.copytree(folders[kind], tmp_path / name)
        (copy / "preprocessor_config.json").unlink()
        (copy / name).write_text(json.dumps(body))
        assert answer(said(copy)) == pytest.approx(right, abs=1e-6)


def test_a_folder_without_its_processor_or_tokenizer_is_refused(folders, tmp_path):
    import shutil

    for file, said in (("preprocessor_config.json", "no preprocessor_config.json"), ("tokenizer.json", "tokenizer")):
        # Without any vocabulary; the tokenizer's own settings alone make none.
        copy = shutil.copytree(folders["clip"], tmp_path / file)
        (copy / file).unlink()
        with pytest.raises(WeightsError, match=said):
            kit.opened(copy)


@pytest.mark.parametrize("values", [{"patch_size": 16}, {"patch_size": -3}, {"max_num_patches": 0}])
def test_patches_that_the_network_does_not_take_are_refused(values, folders, tmp_path):
    import shutil

    copy = shutil.copytree(folders["siglip2"], tmp_path / "odd")
    (copy / "preprocessor_config.json").write_text(json.dumps({**_PROCESSORS["siglip2"], **values}))
    with pytest.raises(WeightsError, match=r"its network takes some of 8"):
        kit.opened(copy)


def test_a_resize_that_is_not_known_is_refused(folders, tmp_path):
    import shutil

    copy = shutil.copytree(folders["clip"], tmp_path / "odd")
    (copy / "preprocessor_config.json").write_text(json.dumps({"size": {"max_height": 3, "max_width": 4}}))
    with pytest.raises(UnsupportedError, match="resizes to"):
        kit.opened(copy)


def test_training_sees_the_same_vectors(folders):
    model = kit.opened(folders["clip"])
    opened = model.trainable()
    pixels = opened.preprocess([picture(1)]).requires_grad_(True)
    out = opened.forward(pixels)
    assert out["image"].detach().numpy()[0] == pytest.approx(ours(folders["clip"])["images"][0], abs=1e-5)
    out["image"][0, 0].backward()
    assert pixels.grad.abs().sum() > 0
    assert out["dense"].shape == (1, 4, 4, 24)
