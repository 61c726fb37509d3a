"""SAM 3 against plain transformers on a small checkpoint of its true architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from tests.models.hub import kit, sam3_tiny

from manylens.media import Image
from manylens.tasks.regions import SegmentRequest

EXAMPLES = Path(__file__).parents[3] / "examples"
LENGTH = 32


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


@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize("case", CASES)
def test_finds_what_transformers_finds(folder: Path, picture: Image, case: str, engine: str) -> None:
    asked, text, boxes = CASES[case]
    scores = reference(folder, picture, text, boxes, 0.0)["scores"]
    least = float(scores[3:5].mean())
    found = kit.run(kit.opened(folder, engine=engine), request(picture, asked, threshold=least))
    right = reference(folder, picture, text, boxes, least)
    assert len(scores) > len(right["scores"]) == 4
    np.testing.assert_allclose(found.confidence, right["scores"], atol=1e-5)
    np.testing.assert_allclose(found.xyxy, right["boxes"], atol=1e-3)
    np.testing.assert_allclose(found.metadata["low_res"], right["low_res"], atol=1e-3)
    # A pixel on the very edge may fall either way.
    assert (found.mask != right["masks"]).mean() < 1e-3
    assert {*found.data["class_name"]} == {text if "text" in asked else ""}
