"""Published checkpoints of CLIP, SigLIP, CLIPSeg, Mask2Former, EoMT, Depth Anything and DPT, without their weights.

Each config is built on the meta device: names and shapes are those that strict loading demands, and their bytes are
what the catalog says of the file. The configs are written from the authors' conversion scripts.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

from manylens.catalog import Catalog
from manylens.catalog.families import families

CONFIGS = Path(__file__).parent / "configs"
FAMILIES = ("clip", "clipseg", "masks", "depth")
ROWS = [row for row in Catalog.load() if row.family in FAMILIES and row.repo]


def config_of(row) -> dict:
    return json.loads((CONFIGS / f"{row.id.replace('/', '--')}.json").read_text())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_the_bytes_of_its_tensors_are_those_of_the_catalog(row):
    config = config_of(row)
    cls = getattr(transformers, config["architectures"][0])
    with torch.device("meta"):
        state = cls(transformers.AutoConfig.for_model(**config)).state_dict()
    assert row.bytes == pytest.approx(sum(t.numel() * t.element_size() for t in state.values()), rel=1e-3)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_its_family_is_recognised_and_does_what_the_catalog_says(row):
    config = config_of(row)
    (family, *_) = [one for one in families() if one.loads(config, "model_type")]
    assert family.name == row.family
    assert family.tasks == row.tasks
    assert set(row.engines) == set(family.engines)


@pytest.mark.parametrize(
    ("identity", "tensor", "shape"),
    [
        ("openai/clip-vit-base-patch32", "visual_projection.weight", (512, 768)),
        ("openai/clip-vit-large-patch14", "text_projection.weight", (768, 768)),
        ("openai/clip-vit-large-patch14-336", "vision_model.embeddings.position_embedding.weight", (577, 1024)),
        ("google/siglip-base-patch16-224", "vision_model.head.probe", (1, 1, 768)),
        ("google/siglip2-base-patch16-224", "text_model.embeddings.token_embedding.weight", (256000, 768)),
        ("google/siglip2-base-patch16-naflex", "vision_model.embeddings.patch_embedding.weight", (768, 768)),
        ("CIDAS/clipseg-rd64-refined", "decoder.film_mul.weight", (64, 512)),
        ("facebook/mask2former-swin-tiny-coco-panoptic", "class_predictor.weight", (134, 256)),
        (
            "facebook/mask2former-swin-large-coco-panoptic",
            "model.transformer_module.queries_features.weight",
            (200, 256),
        ),
        ("tue-mps/coco_panoptic_eomt_large_640", "query.weight", (200, 1024)),
        ("depth-anything/Depth-Anything-V2-Small-hf", "head.conv1.weight", (32, 64, 3, 3)),
        ("Intel/dpt-large", "neck.convs.0.weight", (256, 256, 3, 3)),
    ],
)
def test_telling_tensors_have_the_published_shape(identity, tensor, shape):
    config = config_of(Catalog.load()[identity])
    cls = getattr(transformers, config["architectures"][0])
    with torch.device("meta"):
        state = cls(transformers.AutoConfig.for_model(**config)).state_dict()
    assert tuple(state[tensor].shape) == shape
