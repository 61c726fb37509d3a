"""Ensembles as models: the vote is the weighted mean, a shared encoder runs once, and folders that do not fit."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import manylens
from manylens.errors import UnsupportedError, WeightsError
from manylens.media import Image
from manylens.models.adapted import bundle, ensemble, heads
from manylens.models.adapted.backbone import Backbone
from manylens.models.adapted.bundle import Base, Spec
from manylens.models.adapted.ensemble import Member, mixed
from manylens.models.adapted.heads import readout
from manylens.models.adapted.picture import square
from manylens.tasks import ClassifyRequest, SegmentRequest

LABELS = ("ant", "bee", "cat", "dog")
WIDTH, SIDE = 16, 28
SHARES = (0.5, 0.3, 0.2)


def members(root: Path, base: Path, session, kinds, *, own=(), labels=LABELS, shares=SHARES) -> list[Member]:
    """Members with random heads; those whose numbers are in ``own`` have another encoder, too."""
    row = session.catalog.resolve(str(base))
    from manylens.models import checkpoint

    weights = checkpoint.weights_id(row, session.weights.ensure(row))
    found = []
    for number, (kind, share) in enumerate(zip(kinds, shares, strict=True)):
        torch.manual_seed(number + 1)
        widths = dict.fromkeys(("vector", "mean", "dense"), WIDTH)
        head = heads.build(kind, widths, len(labels), {})
        for one in head.parameters():
            torch.nn.init.normal_(one)
        dense = kind == "linear-mask"
        spec = Spec(
            architecture="AdaptedSegmenter" if dense else "AdaptedClassifier",
            base=Base(str(base), weights),
            side=SIDE,
            head=kind,
            labels=tuple(labels),
            details={"needs": list(head.needs)} | ({"ground": -1, "things": [False] * len(labels)} if dense else {}),
        )
        encoder = {}
        if number in own:
            with session.module(str(base)) as opened:
                state = opened.module.state_dict()
                encoder = {name: one + 0.2 * torch.randn_like(one) for name, one in state.items() if "layer.1" in name}
        folder = root / f"one-{number}"
        folder.mkdir(parents=True)
        bundle.write(folder, spec, head.state_dict(), encoder)
        found.append(Member.of(folder, f"one-{number}", share))
    return found


def written(root: Path, found: list[Member]) -> Path:
    folder = root / "ensemble"
    folder.mkdir()
    ensemble.write(folder, found)
    return folder


def scores(session, picture, model, names=None) -> dict[str, float]:
    found = session.run(ClassifyRequest.of(image=picture, names=names, top=9), model=str(model))
    return {label.name: label.score for label in found.labels}


CASES = {
    "one encoder": (("linear", "linear", "mlp"), ()),
    "other heads": (("linear", "attentive", "mlp"), ()),
    "own encoders": (("linear", "linear", "linear"), (0, 1, 2)),
    "one of its own": (("linear", "attentive", "linear"), (1,)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_answer_is_the_weighted_mean_of_the_members_probabilities(name, base, session, picture, tmp_path):
    kinds, own = CASES[name]
    found = members(tmp_path, base, session, kinds, own=own)
    folder = written(tmp_path, found)
    each = [scores(session, picture, folder / "members" / one.name) for one in found]
    assert max(abs(a["ant"] - b["ant"]) for a in each for b in each) > 0.01  # they do not say the same
    expected = {label: sum(w * one[label] for w, one in zip(SHARES, each, strict=True)) for label in LABELS}
    assert scores(session, picture, folder) == pytest.approx(expected, abs=1e-6)
    asked = scores(session, picture, folder, names=["cat", "bee"])
    assert asked == pytest.approx(
        {label: expected[label] / (expected["cat"] + expected["bee"]) for label in ("cat", "bee")}, abs=1e-6
    )


def test_openvino_gives_what_torch_gives(base, session, picture, tmp_path):
    folder = written(tmp_path, members(tmp_path, base, session, ("linear", "mlp", "linear"), own=(2,)))
    other = manylens.Session(home=tmp_path / "home", engine="openvino", precision="f32")
    assert scores(other, picture, folder) == pytest.approx(scores(session, picture, folder), abs=1e-4)


@pytest.mark.parametrize(("own", "runs"), [((), 1), ((1,), 2), ((0, 1, 2), 3)])
def test_an_encoder_that_members_share_runs_once(own, runs, base, session, picture, tmp_path, monkeypatch):
    folder = written(tmp_path, members(tmp_path, base, session, ("linear", "attentive", "mlp"), own=own))
    scores(session, picture, folder)  # built
    plain, calls = Backbone.forward, []
    monkeypatch.setattr(Backbone, "forward", lambda self, pixels: calls.append(1) or plain(self, pixels))
    other = Image.of(np.zeros((28, 28, 3), np.uint8))
    scores(session, other, folder)
    assert len(calls) == runs


def test_segmenters_vote_on_each_pixel(base, session, picture, tmp_path):
    found = members(tmp_path, base, session, ("linear-mask",) * 3, own=(2,))
    folder = written(tmp_path, found)
    pixels = torch.from_numpy(square(picture.array, SIDE)).permute(2, 0, 1)[None].float() / 255
    mean = 0.0
    for one in found:
        with session.module(str(base)) as opened, torch.no_grad():
            network = bundle.assemble(one.spec, opened, one.files, one.name)
            mean = mean + one.share * network(pixels)["logits"].softmax(dim=1).numpy()
    classes, _ = readout.class_map(np.log(mean[0]), picture.size)
    answer = session.run(SegmentRequest.of(image=picture, mode="semantic"), model=str(folder))
    assert len(np.unique(classes)) > 1
    said = np.full(classes.shape, -1)
    for mask, number in zip(answer.mask, answer.class_id, strict=True):
        said[mask] = number
    assert (said == classes).all()


ROWS = st.lists(st.lists(st.floats(-30, 30), min_size=3, max_size=3), min_size=1, max_size=5)


@given(ROWS, st.data())
@settings(deadline=None)
def test_the_softmax_of_what_is_mixed_is_the_mean(rows, data):
    weights = np.array([data.draw(st.sampled_from([0.0, 0.2, 1.0, 3.0])) for _ in rows])
    if not weights.sum():
        weights[0] = 1
    weights /= weights.sum()
    logits = np.array(rows)
    likely = np.exp(logits - logits.max(axis=1, keepdims=True))
    likely /= likely.sum(axis=1, keepdims=True)
    made = mixed([torch.tensor(row)[None] for row in rows], weights.tolist())
    assert made.dtype == torch.float32
    np.testing.assert_allclose(made.softmax(dim=1)[0].numpy(), weights @ likely, atol=1e-6)


def test_logits_that_no_exponential_holds_are_mixed():
    one, other = torch.tensor([[3e4, -3e4, 0.0]]), torch.tensor([[-2e4, 1e4, 0.0]])
    made = mixed([one, other], [0.25, 0.75])
    assert made.isfinite().all()
    torch.testing.assert_close(made[0, :2], torch.tensor([math.log(0.25), math.log(0.75)]))


def test_a_coarser_map_is_enlarged():
    fine, coarse = torch.randn(1, 3, 8, 8), torch.zeros(1, 3, 4, 4)
    made = mixed([fine, coarse], [0.5, 0.5])
    torch.testing.assert_close(made.exp(), (fine.softmax(dim=1) + 1 / 3) / 2)


def test_a_vote_has_no_trainable_form_and_says_what_has(base, session, tmp_path):
    folder = written(tmp_path, members(tmp_path, base, session, ("linear",) * 3))
    with pytest.raises(UnsupportedError, match="is a vote of 3 models") as caught, session.module(str(folder)):
        pass
    assert "members/one-0" in caught.value.remedy
    with session.module(str(folder / "members" / "one-0")) as opened:
        assert opened.labels == LABELS


def without_weights(folder: Path) -> None:
    (folder / "members" / "one-1" / "model.safetensors").unlink()


def changed(key: str, value: object):
    def change(folder: Path) -> None:
        path = folder / "config.json"
        values = json.loads(path.read_text())
        if key == "share":
            values["details"]["members"][1]["share"] = value
        else:
            values["details"][key] = value
        path.write_text(json.dumps(values))

    return change


def of_other_classes(folder: Path) -> None:
    path = folder / "members" / "one-1" / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"labels": ["ant", "bee", "cow", "dog"]}))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (without_weights, "one-1 has no weights"),
        (changed("share", 0), "one-1 has no weights, or no share"),
        (changed("share", math.nan), "one-1 has no weights, or no share"),
        (changed("members", []), "has no members"),
        (changed("members", 3), "is not of the kind that it should be"),
        (of_other_classes, "one-0 and one-1 differ in their classes"),
    ],
)
def test_a_damaged_folder_is_named(harm, says, base, session, picture, tmp_path):
    folder = written(tmp_path, members(tmp_path, base, session, ("linear",) * 3))
    harm(folder)
    with pytest.raises(WeightsError, match=says):
        scores(session, picture, folder)


def test_models_that_do_not_go_together_are_not_joined(base, session, tmp_path):
    found = members(tmp_path, base, session, ("linear",) * 3)
    other = replace(found[1], spec=replace(found[1].spec, side=56))
    (tmp_path / "ensemble").mkdir()
    with pytest.raises(WeightsError, match="one-0 and one-1 differ in their side"):
        ensemble.write(tmp_path / "ensemble", [found[0], other])
    other = replace(found[1], spec=replace(found[1].spec, base=Base("another", "0" * 16)))
    with pytest.raises(WeightsError, match="differ in their base model"):
        ensemble.write(tmp_path / "ensemble", [found[0], other])
