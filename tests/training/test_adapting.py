"""A classifier adapts to pictures without labels whose look is another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from manylens.errors import UserError
from manylens.training.run import train


@pytest.fixture(scope="module")
def darker(stripes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same kinds of pictures, darker and reddish, without labels."""
    root = tmp_path_factory.mktemp("darker")
    for name in ("lying", "standing", "slanted"):
        for path in sorted((stripes / name).iterdir()):
            pixels = np.asarray(Image.open(path)).astype(np.float32) * (0.7, 0.4, 0.3)
            Image.fromarray(pixels.astype(np.uint8)).save(root / f"{name}-{path.name}")
    return root


def run(stripes, tiny_vit, session, out, **changes):
    given = {"loop.epochs": 4, "loop.batch_size": 8, **{key.replace("__", "."): one for key, one in changes.items()}}
    return train(stripes, task="classify", model=str(tiny_vit), out=out, set=given, session=session)


KINDS = {
    "coral": {"head__kind": "mlp"},
    "dann": {"transfer__mode": "full"},
    "self-training": {"domain__confidence": 0.34},
    "tent": {"transfer__mode": "partial"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_way_trains_with_the_target(kind, stripes, darker, tiny_vit, session, tmp_path):
    options = {"domain__kind": kind, "data__target": str(darker), **KINDS[kind]}
    made = run(stripes, tiny_vit, session, tmp_path / "run", **options)
    rows = [row for row in made.history if "train/domain" in row]
    assert bool(rows) == (kind != "tent")
    assert len(rows) == {"self-training": 3, "tent": 0}.get(kind, 4)
    assert any("entropy on the target" in note for note in made.notes) == (kind == "tent")


def test_norms_that_adapted_are_saved_though_the_encoder_is_frozen(stripes, darker, tiny_vit, session, tmp_path):
    """Its features are not kept, as cutmix is of pixels."""
    options = {"domain__kind": "tent", "data__target": str(darker), "regularise__cutmix": 1.0}
    run(stripes, tiny_vit, session, tmp_path / "run", **options)
    saved = load_file(tmp_path / "run" / "model" / "model.safetensors")
    encoder = [name for name in saved if not name.startswith("head.")]
    assert encoder
    assert all("norm" in name for name in encoder)


def test_coral_brings_the_features_together(stripes, darker, tiny_vit, session, tmp_path):
    """The more it weighs, the nearer are their covariances."""
    options = {"domain__kind": "coral", "data__target": str(darker), "head__kind": "mlp", "loop__epochs": 10}
    apart = [
        run(stripes, tiny_vit, session, tmp_path / f"{weight}", domain__weight=weight, **options).history[-1]
        for weight in (1e-6, 1e4)
    ]
    assert apart[1]["train/domain"] < 0.5 * apart[0]["train/domain"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"domain__kind": "coral"}, "there is no target"),
        ({"domain__kind": "coral", "data__target": "T"}, "no features that could adapt"),
        ({"domain__kind": "tent", "data__target": "T"}, "whose features are kept"),
        ({"domain__kind": "adabn", "data__target": "T", "transfer__mode": "full"}, "has no batch norms"),
        ({"domain__kind": "coral", "data__target": "/nowhere", "head__kind": "mlp"}, "there is no such file"),
    ],
)
def test_what_cannot_be_is_named(changes, says, stripes, darker, tiny_vit, session, tmp_path):
    given = {key: str(darker) if one == "T" else one for key, one in changes.items()}
    with pytest.raises(UserError, match=says):
        run(stripes, tiny_vit, session, tmp_path / "run", **given)
