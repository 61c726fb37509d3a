"""SAM 3 against plain transformers on a small checkpoint of its true architecture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from tests.models.hub import kit, sam3_tiny

from manylens.catalog import Catalog
from manylens.errors import PromptError, UnsupportedError, WeightsError
from manylens.media import Image, Video, from_rle
from manylens.models import checkpoint
from manylens.models.pixels import normalised
from manylens.models.sam3 import boxes as roi
from manylens.models.sam3 import spec
from manylens.models.sam3.clicks import TrackerNetworks
from manylens.models.sam3.concepts import VISUAL, Concept, concepts
from manylens.models.sam3.kernels import Kernels
from manylens.models.sam3.networks import Networks
from manylens.runtime.context import Context
from manylens.session import Session
from manylens.tasks.prompts import Example
from manylens.tasks.regions import SegmentRequest, TrackRequest

EXAMPLES = Path(__file__).parents[3] / "examples"
CONFIGS = Path(__file__).with_name("configs")
LENGTH = 32


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Compiled networks are kept for the whole module, and away from the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MANYLENS_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module", params=["torch", "openvino"])
def model(request: pytest.FixtureRequest, folder: Path) -> Any:
    return kit.opened(folder, engine=request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sam3_tiny.save(tmp_path_factory.mktemp("sam3") / "tiny")


@pytest.fixture(scope="module")
def picture() -> Image:
    return Image.of(np.random.default_rng(3).integers(0, 256, (50, 70, 3), dtype=np.uint8))


@pytest.fixture(autouse=True)
def _torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.sam3 import modeling_sam3

    monkeypatch.setattr(modeling_sam3, "torchvision", sam3_tiny.TORCHVISION, raising=False)


def prepared(image: Image) -> torch.Tensor:
    """The pixels that the network takes, by PIL and torch."""
    square = PIL.Image.fromarray(image.array).resize((sam3_tiny.SIDE, sam3_tiny.SIDE), PIL.Image.Resampling.BILINEAR)
    planes = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].float()
    mean, std = torch.tensor([0.5, 0.45, 0.4]), torch.tensor([0.5, 0.4, 0.6])
    return (planes / 255 - mean.reshape(1, 3, 1, 1)) / std.reshape(1, 3, 1, 1)


def ids(text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and their mask, padded to 32 as by Sam3Processor."""
    told = [0, *(sam3_tiny.WORDS.index(word) + 3 for word in text.split()), 1]
    mask = torch.zeros(1, LENGTH, dtype=torch.long)
    mask[0, : len(told)] = 1
    return torch.tensor([told + [1] * (LENGTH - len(told))]), mask


@torch.no_grad()
def reference(folder: Path, image: Image, text: str, boxes: list[Any] | None, least: float) -> dict[str, np.ndarray]:
    """Boxes, scores and masks of plain transformers, its post-processing by hand, the best first."""
    from transformers.models.sam3.modeling_sam3 import Sam3Model

    told, mask = ids(text)
    asked = None
    if boxes:
        x0, y0, x1, y1 = (torch.tensor(boxes, dtype=torch.float32) / torch.tensor([*image.size] * 2)).unbind(-1)
        asked = torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], dim=-1)[None]
    out = Sam3Model.from_pretrained(folder).eval()(
        pixel_values=prepared(image), input_ids=told, attention_mask=mask, input_boxes=asked
    )
    scores = (out.pred_logits.sigmoid() * out.presence_logits.sigmoid())[0]
    order = torch.argsort(-scores, stable=True)
    order = order[scores[order] > least]
    shares = torch.nn.functional.interpolate(
        out.pred_masks[:, order].sigmoid(), (image.height, image.width), mode="bilinear", align_corners=False
    )[0]
    found = shares > 0.5
    some = found.flatten(1).any(dim=1)
    return {
        "boxes": (out.pred_boxes[0, order].clamp(0, 1) * torch.tensor([*image.size] * 2))[some].numpy(),
        "scores": scores[order][some].numpy(),
        "masks": found[some].numpy(),
        "low_res": out.pred_masks[0, order][some].numpy(),
    }


def box_mask(image: Image, box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((image.height, image.width), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


CASES: dict[str, tuple[dict[str, Any], str, list[Any] | None]] = {
    "words": ({"text": "cat"}, "cat", None),
    "several words": ({"text": "red cup"}, "red cup", None),
    "example": ({"like": [(8, 6, 40, 33)]}, "visual", [(8, 6, 40, 33)]),
    "small and large example": ({"like": [(0, 0, 70, 50), (3, 4, 6, 8)]}, "visual", [(0, 0, 70, 50), (3, 4, 6, 8)]),
    "words and example": ({"text": "dog", "like": [(20, 10, 66, 44)]}, "dog", [(20, 10, 66, 44)]),
}


def request(image: Image, asked: dict[str, Any], **more: Any) -> SegmentRequest:
    like = [{"image": image, "mask": box_mask(image, box)} for box in asked.get("like", ())]
    return SegmentRequest.of(image=image, **{**asked, "like": like}, **more)


@pytest.mark.parametrize("case", CASES)
def test_finds_what_transformers_finds(folder: Path, model: Any, picture: Image, case: str) -> None:
    asked, text, boxes = CASES[case]
    scores = reference(folder, picture, text, boxes, 0.0)["scores"]
    least = float(scores[3:5].mean())
    found = kit.run(model, request(picture, asked, threshold=least))
    right = reference(folder, picture, text, boxes, least)
    assert len(scores) > len(right["scores"]) == 4
    np.testing.assert_allclose(found.confidence, right["scores"], atol=1e-5)
    np.testing.assert_allclose(found.xyxy, right["boxes"], atol=1e-3)
    np.testing.assert_allclose(found.metadata["low_res"], right["low_res"], atol=2e-3)
    # A pixel on the very edge may fall either way.
    assert (found.mask != right["masks"]).mean() < 1e-3
    assert {*found.data["class_name"]} == {text if "text" in asked else ""}


def test_half_precision_stays_near(folder: Path, model: Any, picture: Image) -> None:
    asked = request(picture, CASES["words and example"][0], threshold=0.0)
    half = kit.opened(folder, engine=model.settings.engine, precision="bf16")
    exact, near = kit.run(model, asked), kit.run(half, asked)
    assert len(exact) == len(near)
    np.testing.assert_allclose(np.sort(near.confidence), np.sort(exact.confidence), atol=0.1)
    assert (near.mask.mean(axis=0) - exact.mask.mean(axis=0)).std() < 0.15


def test_several_concepts_are_what_each_is_alone_and_encode_once(
    folder: Path, picture: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []
    trunk = Networks.trunk
    monkeypatch.setattr(Networks, "trunk", lambda self, pixels: encoded.append(1) or trunk(self, pixels))
    model, context = kit.opened(folder), Context()
    ask = lambda **said: next(model.run([SegmentRequest.of(image=picture, **said)], context))  # noqa: E731
    both = ask(text="the cat and dogs")
    assert context.notes["cache"] == "miss"
    for number, name in enumerate(("cat", "dog")):
        alone = ask(text=name)
        assert context.notes["cache"] == "memory"
        mine = both.data["object"] == number
        assert {*both.data["class_name"][mine]} == {name}
        np.testing.assert_allclose(both.confidence[mine], alone.confidence, atol=1e-6)
        np.testing.assert_array_equal(both.mask[mine], alone.mask)
        assert (alone.confidence > 0.5).all()
        assert len(alone)
    ask(points=[(20, 30)])
    assert len(encoded) == 1


class TestClicks:
    ASKED: dict[str, dict[str, Any]] = {
        "a click": {"points": [(20, 30)]},
        "clicks": {"points": [(20, 30), (50, 10)], "background_points": [(3, 3)]},
        "a box": {"box": (10, 8, 40, 44)},
    }

    @pytest.mark.parametrize("case", ASKED)
    @torch.no_grad()
    def test_as_the_tracker_of_transformers(self, folder: Path, model: Any, picture: Image, case: str) -> None:
        from transformers.models.sam3_tracker.modeling_sam3_tracker import Sam3TrackerModel

        asked = self.ASKED[case]
        plain = Sam3TrackerModel.from_pretrained(folder).eval()
        # Its own forward adds the vector to a map that the decoder does not read.
        maps = plain.get_image_features(prepared(picture)).fpn_hidden_states[:3]
        maps[-1] = maps[-1] + plain.no_memory_embedding
        sizes = plain.backbone_feature_sizes
        maps = [one.permute(1, 2, 0).view(1, -1, *size) for one, size in zip(maps, sizes, strict=True)]
        scale = sam3_tiny.SIDE / torch.tensor([*picture.size], dtype=torch.float32)
        said: dict[str, Any] = {}
        if "points" in asked:
            points = [*asked["points"], *asked.get("background_points", ())]
            said["input_points"] = (torch.tensor(points, dtype=torch.float32) * scale)[None, None]
            labels = [1] * len(asked["points"]) + [0] * len(asked.get("background_points", ()))
            said["input_labels"] = torch.tensor(labels)[None, None]
        if "box" in asked:
            said["input_boxes"] = (torch.tensor(asked["box"]) * scale.repeat(2))[None, None]
        out = plain(image_embeddings=maps, multimask_output=case == "a click", **said)
        found = kit.run(model, SegmentRequest.of(image=picture, **asked))
        order = torch.argsort(-out.iou_scores[0, 0])
        np.testing.assert_allclose(found.confidence, out.iou_scores[0, 0, order], atol=1e-4)
        np.testing.assert_allclose(found.metadata["low_res"], out.pred_masks[0, 0, order], atol=5e-3)
        size = (picture.height, picture.width)
        full = torch.nn.functional.interpolate(out.pred_masks[0, :, order], size, mode="bilinear")[0]
        assert 0.01 < found.mask.mean() < 0.99
        assert (found.mask != (full > 0).numpy()).mean() < 2e-3

    def test_everything_previous_and_several_objects(self, folder: Path, picture: Image) -> None:
        model = kit.opened(folder)
        first = kit.run(model, SegmentRequest.of(image=picture, **self.ASKED["a click"]))
        again = SegmentRequest.of(image=picture, points=[(20, 30)], previous=first.metadata["low_res"][0])
        assert len(kit.run(model, again)) == 1
        objects = [{"points": [(20, 30)]}, {"box": (10, 8, 40, 44)}]
        several = kit.run(model, SegmentRequest.of(image=picture, objects=objects))
        assert {*several.data["object"]} == {0, 1}
        kit.run(model, SegmentRequest.of(image=picture, mode="everything", points_per_side=2, threshold=0.0))


@pytest.fixture(scope="module")
def video() -> Video:
    still = np.random.default_rng(3).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    return Video.of(np.stack([np.roll(still, 2 * step, axis=1) for step in range(4)]))


def pixels_of(video: Video) -> torch.Tensor:
    return torch.cat([prepared(image) for image in video.frames()])


class TestVideo:
    def test_clicks_are_followed_as_by_transformers(self, folder: Path, model: Any, video: Video) -> None:
        from transformers.models.sam3_tracker_video import modeling_sam3_tracker_video as reference_of

        plain = reference_of.Sam3TrackerVideoModel.from_pretrained(folder).eval()
        state = reference_of.Sam3TrackerVideoInferenceSession(
            video=pixels_of(video), video_height=50, video_width=70, dtype=torch.float32
        )
        number = state.obj_id_to_idx(1)
        where = torch.tensor([[[[20 / 70 * 64, 30 / 50 * 64], [50 / 70 * 64, 10 / 50 * 64]]]])
        state.add_point_inputs(number, 0, {"point_coords": where, "point_labels": torch.tensor([[[1, 1]]])})
        state.obj_with_new_inputs = [1]
        masks = []
        for out in plain.propagate_in_video_iterator(state, start_frame_idx=0):
            full = torch.nn.functional.interpolate(out.pred_masks, (50, 70), mode="bilinear")
            masks.append((full > 0)[0, 0].numpy())
        tracks = kit.run(model, TrackRequest.of(video=video, points=[(20, 30), (50, 10)]))
        assert len(tracks) == 4
        for frame, right in zip(tracks.frames, masks, strict=True):
            assert 0.01 < right.mean() < 0.99
            assert (from_rle(frame.objects[0].mask) != right).mean() < 5e-3

    def test_words_are_followed_as_by_transformers(self, folder: Path, model: Any, video: Video) -> None:
        from transformers.models.sam3_video import modeling_sam3_video as reference_of

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reference_of, "cv_utils_kernel", Kernels())
            plain = reference_of.Sam3VideoModel.from_pretrained(folder).eval()
            state = reference_of.Sam3VideoInferenceSession(
                video=pixels_of(video), video_height=50, video_width=70, dtype=torch.float32
            )
            for name in ("cat", "dog"):
                number = state.add_prompt(name)
                state.prompt_input_ids[number], state.prompt_attention_masks[number] = ids(name)
            right = [self.shown(state, out) for out in plain.propagate_in_video_iterator(state)]
        tracks = kit.run(model, TrackRequest.of(video=video, text="cat, dog"))
        assert len(tracks) == len(right) == 4
        for frame, wanted in zip(tracks.frames, right, strict=True):
            assert {one.tracker_id for one in frame.objects} == set(wanted)
            for one in frame.objects:
                score, name, mask = wanted[one.tracker_id]
                assert one.score == pytest.approx(score, abs=1e-4)
                assert one.name == name
                assert (from_rle(one.mask) != mask).mean() < 5e-3
        # Some are found again: an object keeps its id.
        assert set.intersection(*({one.tracker_id for one in tracks.frames[at].objects} for at in (0, 1)))
        assert {one.name for one in tracks.frames[0].objects} == {"cat", "dog"}

    @staticmethod
    def shown(state: Any, out: Any) -> dict[int, tuple[float, str, np.ndarray]]:
        """A frame as Sam3VideoProcessor (which needs torchvision) shows it: score, name and mask by tracker id."""
        hidden = out.suppressed_obj_ids | state.hotstart_removed_obj_ids
        full = {
            number: (torch.nn.functional.interpolate(logits[None], (50, 70), mode="bilinear")[0, 0] > 0).numpy()
            for number, logits in out.obj_id_to_mask.items()
            if number not in hidden
        }
        found = {}
        for number, mask in full.items():
            prompt = state.obj_id_to_prompt_id[number]
            sure = out.obj_id_to_tracker_score[number]
            own = mask.copy()
            for other, taken in full.items():
                if state.obj_id_to_prompt_id[other] == prompt and out.obj_id_to_tracker_score[other] > sure:
                    own &= ~taken
            if own.any():
                found[number + 1] = (out.obj_id_to_score[number], state.prompts[prompt], own)
        return found


def test_own_kernels_do_as_plain_code() -> None:
    generator = np.random.default_rng(0)
    masks = torch.from_numpy((generator.random((3, 1, 12, 10)) < 0.4).astype(np.uint8))
    labels, counts = Kernels().cc_2d(masks)
    for mask, label, count in zip(masks[:, 0].numpy(), labels[:, 0].numpy(), counts[:, 0].numpy(), strict=True):
        assert not count[mask == 0].any()
        for y, x in np.argwhere(mask):
            assert count[y, x] == (label == label[y, x]).sum()
            near = np.s_[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
            assert (label[near][mask[near] > 0] == label[y, x]).all()
    ious = torch.tensor([[1, 0.6, 0.0], [0.6, 1, 0.6], [0.0, 0.6, 1]])
    assert Kernels().generic_nms(ious, torch.tensor([0.5, 0.9, 0.7]), 0.5).tolist() == [1]
    assert Kernels().generic_nms(ious, torch.tensor([0.9, 0.5, 0.7]), 0.5).tolist() == [0, 2]


def test_pictures_are_prepared_as_by_torch(folder: Path, picture: Image) -> None:
    numbers = spec.read({path.name: path for path in folder.iterdir()}, "tiny")
    ours = numbers.processor.pixels(picture.array)
    planes = torch.from_numpy(np.array(picture.array)).permute(2, 0, 1)[None].float()
    right = torch.nn.functional.interpolate(planes, (64, 64), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    assert np.abs(ours - right.round().numpy()).max() <= 1
    found = numbers.processor.normalised(ours)
    np.testing.assert_allclose(found, normalised(ours, (0.5, 0.45, 0.4), (0.5, 0.4, 0.6)), atol=1e-5)


@pytest.mark.parametrize(
    "box", [(0, 0, 70, 50), (3, 4, 5, 6), (69, 49, 70, 50), (0, 0, 1, 1), (10.5, 3.2, 61.7, 44.4), (20, 0, 22, 50)]
)
def test_boxes_are_pooled_as_by_roi_align(box: Any) -> None:
    features = torch.randn(2, 9, 11, generator=torch.Generator().manual_seed(0))
    told = roi.shares([box], (70, 50))
    rows, columns = roi.pooling(told, (9, 11), 3)
    corners = torch.tensor([[box[0] * 11 / 70, box[1] * 9 / 50, box[2] * 11 / 70, box[3] * 9 / 50]])
    right = sam3_tiny.roi_align(features[None], [corners], 3)[0]
    ours = np.einsum("yh,chw,xw->cyx", rows[0], features.numpy(), columns[0])
    np.testing.assert_allclose(ours, right, atol=1e-4)


class TestConcepts:
    A, B = (0.0, 0.0, 4.0, 3.0), (5.0, 5.0, 9.0, 9.0)

    @pytest.mark.parametrize(
        ("text", "like", "right"),
        [
            ("cat", (), [Concept("cat", "cat")]),
            ("the cats and a dog", (), [Concept("cat", "cat"), Concept("dog", "dog")]),
            (None, [(A, None), (B, None)], [Concept("", VISUAL, (A, B))]),
            (None, [(A, "mark"), (B, "other")], [Concept("mark", VISUAL, (A,)), Concept("other", VISUAL, (B,))]),
            ("cat", [(A, None)], [Concept("cat", "cat", (A,))]),
            ("cat, dog", [(A, "dogs")], [Concept("cat", "cat"), Concept("dog", "dog", (A,))]),
            ("cat", [(A, "mark")], [Concept("cat", "cat"), Concept("mark", VISUAL, (A,))]),
        ],
    )
    def test_what_is_asked(self, picture: Image, text: str | None, like: Any, right: Any) -> None:
        assert list(concepts(text, self.examples(picture, like), picture)) == right

    def test_what_is_refused(self, picture: Image) -> None:
        other = Image.of(np.zeros((50, 70, 3), np.uint8))
        with pytest.raises(PromptError, match=r"has to be in the picture itself.*SegGPT"):
            concepts(None, self.examples(other, [(self.A, None)]), picture)
        with pytest.raises(PromptError, match="without a name, and the text names 2 things"):
            concepts("cat, dog", self.examples(picture, [(self.A, None)]), picture)

    @staticmethod
    def examples(image: Image, like: Any) -> list[Example]:
        return [Example(image=image, mask=box_mask(image, tuple(int(v) for v in box)), name=name) for box, name in like]


class TestBadInput:
    def test_a_text_that_is_too_long(self, folder: Path, picture: Image, video: Video) -> None:
        long = " ".join(["red"] * 31)
        for asked in (SegmentRequest.of(image=picture, text=long), TrackRequest.of(video=video, text=long)):
            with pytest.raises(PromptError, match=r"is 33 tokens long and .* reads at most 32"):
                kit.run(kit.opened(folder), asked)

    def test_words_and_clicks_at_once(self, folder: Path, picture: Image) -> None:
        asked = SegmentRequest.of(image=picture, text="cat", points=[(3, 3)])
        with pytest.raises(PromptError, match="together with clicks"):
            kit.run(kit.opened(folder), asked)

    def test_a_missing_tensor_is_named(self, folder: Path, picture: Image, tmp_path: Path) -> None:
        from safetensors.torch import load_file, save_file

        bad = shutil.copytree(folder, tmp_path / "bad")
        tensors = load_file(bad / "model.safetensors")
        del tensors["detector_model.detr_decoder.query_embed.weight"]
        save_file(tensors, bad / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(WeightsError, match=r"lacks .*detr_decoder\.query_embed\.weight"):
            kit.run(kit.opened(bad), SegmentRequest.of(image=picture, text="cat"))

    def test_a_folder_without_a_tokenizer(self, folder: Path, picture: Image, tmp_path: Path) -> None:
        bad = shutil.copytree(folder, tmp_path / "bad")
        (bad / "tokenizer.json").unlink()
        with pytest.raises(WeightsError, match=r"no tokenizer\.json"):
            kit.run(kit.opened(bad), SegmentRequest.of(image=picture, text="cat"))

    def test_a_detector_alone(self, folder: Path, picture: Image, tmp_path: Path) -> None:
        from transformers.models.sam3.modeling_sam3 import Sam3Model

        alone = tmp_path / "alone"
        Sam3Model.from_pretrained(folder).save_pretrained(alone)
        sam3_tiny.tokenizer(alone)
        model = kit.opened(alone)
        assert model.row.tasks == {"segment": frozenset({"text", "like"})}
        asked = SegmentRequest.of(image=picture, text="cat")
        found, right = kit.run(model, asked), kit.run(kit.opened(folder), asked)
        np.testing.assert_allclose(found.confidence, right.confidence, atol=1e-6)
        assert len(found)
        with pytest.raises(UnsupportedError, match="detector alone"):
            kit.run(model, SegmentRequest.of(image=picture, points=[(3, 3)]))


def test_through_a_session(folder: Path) -> None:
    photo = Image.of(sorted(EXAMPLES.glob("*.jpg"))[0])
    with Session() as session:
        found = session.run(SegmentRequest.of(image=photo, text="cat"), model=str(folder))
    assert len(found)
    assert found.mask.shape[1:] == (photo.height, photo.width)
    assert (found.xyxy[:, 2] <= photo.width).all()


def test_the_published_checkpoint() -> None:
    """Names, shapes and bytes of facebook/sam3: each part that is loaded is a part of the whole."""
    from transformers import Sam3VideoConfig
    from transformers.models.sam3.modeling_sam3 import Sam3Model
    from transformers.models.sam3_tracker_video.modeling_sam3_tracker_video import Sam3TrackerVideoModel
    from transformers.models.sam3_video.modeling_sam3_video import Sam3VideoModel

    about = json.loads((CONFIGS / "facebook--sam3.json").read_text())
    with torch.device("meta"):
        whole, detector, tracker = (
            {name: tuple(tensor.shape) for name, tensor in cls(Sam3VideoConfig(**about)).state_dict().items()}
            for cls in (Sam3VideoModel, Sam3Model, Sam3TrackerVideoModel)
        )
    assert {f"detector_model.{name}": shape for name, shape in detector.items()}.items() <= whole.items()
    renamed = {}
    for name, shape in tracker.items():
        shared = name.replace("vision_encoder.backbone.", "detector_model.vision_encoder.backbone.")
        own = shared.replace("vision_encoder.neck.", "tracker_neck.") if shared == name else shared
        renamed[own if own != name else f"tracker_model.{name}"] = shape
    assert renamed.items() <= whole.items()
    assert {f"detector_model.{name}" for name in detector} | set(renamed) == set(whole)
    row = Catalog.load().resolve("facebook/sam3")
    assert row.hub_bytes == pytest.approx(4 * sum(int(np.prod(shape)) for shape in whole.values()), rel=0.02)
    assert detector["detr_decoder.query_embed.weight"] == (200, 256)
    assert detector["text_encoder.text_model.embeddings.position_embedding.weight"] == (32, 1024)
    assert detector["vision_encoder.backbone.embeddings.position_embeddings"] == (1, 576, 1024)


UNUSED = "|".join((
    r"text_encoder\.text_projection",  # CLIP's own: prompts are made of all tokens
    r"box_rpb_embed_\w\.layer2\.bias",  # the same for all places that a query looks at: the softmax hides it
    r"semantic_projection",  # the map of all instances together is not asked for
    # A bias of keys adds the same to all of a query's products, which the softmax does not see.
    r"(text_encoder|geometry_encoder|detr_\w+|mask_decoder)\..*k_proj\.bias",
    # The memory of a video, held frame by frame above; its module has its own such test beside SAM 2's.
    r"tracker_model\.(memory_|no_object|no_memory_pos|object_pointer|temporal|occlusion|mask_downsample)",
    r"pred_obj_score_head",  # whether the object is there, likewise
))  # fmt: skip


def test_every_group_of_parameters_is_noticed(folder: Path, picture: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.sam3.modeling_sam3 import Sam3VisionModel
    from transformers.models.sam3_video.modeling_sam3_video import Sam3VideoModel

    files = {path.name: path for path in folder.iterdir()}
    whole = checkpoint.load(Sam3VideoModel, files, "tiny")
    vision = Sam3VisionModel(whole.config.detector_config.vision_config).eval()
    vision.backbone, vision.neck = whole.detector_model.vision_encoder.backbone, whole.tracker_neck
    monkeypatch.setattr(Networks, "load", lambda self: whole.detector_model)
    whole.tracker_model.vision_encoder = vision
    monkeypatch.setattr(TrackerNetworks, "load", lambda self: whole.tracker_model)
    monkeypatch.setattr(checkpoint, "tensor", lambda *_: None)  # what is damaged is not in the file
    asked = request(picture, CASES["words and example"][0], threshold=0.0)
    clicks: list[dict[str, Any]] = [
        {"points": [(20, 30)], "background_points": [(3, 3)]},
        {"points": [(50, 10)]},
        {"box": (10, 8, 40, 44), "mask": box_mask(picture, (12, 9, 38, 40))},
    ]
    model = kit.opened(folder)

    def outputs() -> Iterator[tuple[str, np.ndarray]]:
        model.close()  # nothing of another checkpoint's pieces or maps stays
        # In units of what the parity tests above forgive.
        pointed = kit.run(model, SegmentRequest.of(image=picture, objects=clicks))
        yield "clicks", pointed.metadata["low_res"] / 5e-3
        yield "quality", pointed.confidence / 1e-4
        named = kit.run(model, asked)
        yield "scores", named.confidence / 1e-5
        yield "masks", named.metadata["low_res"] / 2e-3
        yield "boxes", named.xyxy / 1e-3

    assert kit.overlooked(whole, outputs, 1.0, UNUSED) == []
