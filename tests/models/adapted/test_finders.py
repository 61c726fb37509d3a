"""Ensembles that find objects: what is served is the fusion of what their members serve, and an encoder runs once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import manylens
from manylens.errors import UnsupportedError, WeightsError
from manylens.media import Image
from manylens.models import checkpoint
from manylens.models.adapted import bundle, ensemble, heads
from manylens.models.adapted.backbone import Backbone
from manylens.models.adapted.bundle import Base, Spec
from manylens.models.adapted.ensemble import Member
from manylens.models.adapted.finders import LEAST_BOX, LEAST_MASK
from manylens.models.adapted.fusion import Boxes, Instances, fuse, fuse_boxes
from manylens.models.adapted.heads.queries import MaskQueries
from manylens.tasks import DetectRequest, SegmentRequest
from manylens.training.exporting import export

LABELS = ("ant", "bee", "cat")
WIDTH, SIDE = 16, 28
SHARES = (0.5, 0.3, 0.2)
HEADS = {
    "masks": ("AdaptedMasks", "eomt", {"width": 16, "layers": 1}),
    "detect": ("AdaptedDetector", "detector", {"width": 8, "depth": 1}),
}
LEAST = {"masks": LEAST_MASK, "detect": LEAST_BOX}


def options_of(what: str, number: int) -> dict[str, Any]:
    """Of a member's head: those of folds may have other numbers of queries."""
    options = HEADS[what][2]
    return {**options, "queries": 14 - number} if what == "masks" else options


def a_head(what: str, number: int) -> Any:
    """A head whose finds are many and of all classes, and nearly those of the others."""
    torch.manual_seed(0)
    first: Any = heads.build(HEADS[what][1], {"dense": WIDTH}, len(LABELS), options_of(what, 0))
    with torch.no_grad():
        torch.nn.init.normal_(first.classes.weight)
        if what == "masks":
            torch.nn.init.normal_(first.content.weight, std=4)
            torch.nn.init.normal_(first.masks[-1].weight, std=2)
        else:
            torch.nn.init.normal_(first.sides.weight, std=0.1)
    head: Any = heads.build(HEADS[what][1], {"dense": WIDTH}, len(LABELS), options_of(what, number))
    state = {name: one[: len(head.state_dict()[name])] for name, one in first.state_dict().items()}
    torch.manual_seed(number + 1)
    head.load_state_dict({name: one * (1 + 0.05 * torch.randn_like(one)) for name, one in state.items()})
    return head


def silence(head: Any) -> None:
    """Make a head find nothing."""
    with torch.no_grad():
        head.classes.weight.zero_()
        head.classes.bias.fill_(-20)
        if isinstance(head, MaskQueries):
            head.classes.bias[-1] = 20


def members(root: Path, base: Path, session, what, *, own=(), blind=(), kind="instance", shares=SHARES) -> list[Member]:
    """Members that begin alike and differ a little, so that they find much the same.

    Those whose numbers are in ``own`` have another encoder, those in ``blind`` find nothing.
    """
    architecture, name, _ = HEADS[what]
    row = session.catalog.resolve(str(base))
    weights = checkpoint.weights_id(row, session.weights.ensure(row))
    found = []
    for number, share in enumerate(shares):
        given = options_of(what, number)
        head = a_head(what, number)
        if number in blind:
            silence(head)
        details = {"needs": ["dense"]} | ({"kind": kind, "things": [True] * 3} if what == "masks" else {})
        spec = Spec(architecture, Base(str(base), weights), SIDE, name, given, LABELS, details=details)
        encoder = {}
        if number in own:
            with session.module(str(base)) as opened:
                state = opened.module.state_dict()
                encoder = {name: one + 0.02 * torch.randn_like(one) for name, one in state.items() if "layer.1" in name}
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


def ask(session, what, picture, model, threshold=None):
    given = {"image": picture} | ({} if threshold is None else {"threshold": threshold})
    if what == "masks":
        return session.run(SegmentRequest.of(mode="instance", **given), model=str(model))
    return session.run(DetectRequest.of(**given), model=str(model))


def fused(session, what, picture, folder, shares=SHARES, least=0.0):
    """What the members serve, fused: shapes, scores, classes."""
    each = [ask(session, what, picture, place, LEAST[what]) for place in sorted((folder / "members").iterdir())]
    assert any(len(one) for one in each)
    if what == "masks":
        made = fuse([Instances(one.mask, one.confidence, one.class_id) for one in each], shares, least=least)
        return made.masks, made.scores, made.classes
    boxes = fuse_boxes([Boxes(one.xyxy, one.confidence, one.class_id) for one in each], shares, least=least)
    return boxes.boxes, boxes.scores, boxes.classes


def check(what, answer, expected):
    shapes, scores, classes = (one[:100] for one in expected)
    assert len(answer) == len(scores) > 3
    np.testing.assert_allclose(answer.confidence, scores, atol=1e-5)
    for label in range(3):  # of nearly equal scores the order may be another
        mine, other = answer.class_id == label, classes == label
        assert mine.sum() == other.sum()
        if what == "masks":
            assert (answer.mask[mine] == shapes[other]).all()
        else:
            np.testing.assert_allclose(answer.xyxy[mine], shapes[other], atol=1e-3)


@pytest.mark.parametrize("own", [(), (1,), (0, 1, 2)])
@pytest.mark.parametrize("what", HEADS)
def test_what_is_served_is_the_fusion_of_what_the_members_find(what, own, base, session, picture, tmp_path):
    folder = written(tmp_path, members(tmp_path, base, session, what, own=own))
    whole = ask(session, what, picture, folder, 0.0)
    check(what, whole, fused(session, what, picture, folder))
    each = [ask(session, what, picture, folder / "members" / f"one-{number}", 0.0) for number in range(3)]
    assert len(whole) < sum(map(len, each))  # some were one object
    assert set(whole.data["class_name"]) <= set(LABELS)


@pytest.mark.parametrize("what", HEADS)
def test_a_threshold_is_held_against_the_fused_scores(what, base, session, picture, tmp_path):
    folder = written(tmp_path, members(tmp_path, base, session, what))
    whole = ask(session, what, picture, folder, 0.0)
    least = float(np.median(whole.confidence))
    some = ask(session, what, picture, folder, least)
    np.testing.assert_array_equal(some.confidence, whole.confidence[whole.confidence >= np.float32(least)])
    usual = ask(session, what, picture, folder)
    assert (usual.confidence >= (0.5 if what == "masks" else 0.3)).all()


@pytest.mark.parametrize("what", HEADS)
def test_a_member_that_finds_nothing_lowers_scores(what, base, session, picture, tmp_path):
    plain = written(tmp_path / "plain", members(tmp_path / "plain", base, session, what, shares=SHARES[:2]))
    blind = written(tmp_path / "blind", members(tmp_path / "blind", base, session, what, blind=(2,)))
    assert len(ask(session, what, picture, blind / "members" / "one-2", LEAST[what])) == 0
    before, after = (ask(session, what, picture, folder, 0.0) for folder in (plain, blind))
    assert len(before) == len(after) > 3
    np.testing.assert_allclose(after.confidence, 0.8 * before.confidence, atol=1e-5)
    np.testing.assert_allclose(after.xyxy, before.xyxy, atol=1e-3)


@pytest.mark.parametrize("what", HEADS)
def test_nothing_found_by_any_is_nothing(what, base, session, picture, tmp_path):
    folder = written(tmp_path, members(tmp_path, base, session, what, blind=(0, 1, 2)))
    assert len(ask(session, what, picture, folder, 0.0)) == 0


@pytest.mark.parametrize("what", HEADS)
def test_openvino_gives_what_torch_gives(what, base, session, picture, tmp_path):
    folder = written(tmp_path, members(tmp_path, base, session, what, own=(2,)))
    other = manylens.Session(home=tmp_path / "home", engine="openvino", precision="f32")
    one, two = (ask(each, what, picture, folder, 0.1) for each in (session, other))
    assert len(one) == len(two) > 0
    np.testing.assert_allclose(two.confidence, one.confidence, atol=1e-3)


@pytest.mark.parametrize(("own", "runs"), [((), 1), ((1,), 2), ((0, 1, 2), 3)])
@pytest.mark.parametrize("what", HEADS)
def test_an_encoder_that_members_share_runs_once(what, own, runs, base, session, picture, tmp_path, monkeypatch):
    folder = written(tmp_path, members(tmp_path, base, session, what, own=own))
    ask(session, what, picture, folder, 0.0)  # built
    plain, calls = Backbone.forward, []
    monkeypatch.setattr(Backbone, "forward", lambda self, pixels: calls.append(1) or plain(self, pixels))
    ask(session, what, Image.of(np.zeros((28, 28, 3), np.uint8)), folder, 0.0)
    assert len(calls) == runs


def test_pictures_of_a_batch_are_each_answered_alone(base, session, tmp_path):
    folder = written(tmp_path, members(tmp_path, base, session, "detect"))
    random = np.random.default_rng(1)
    asked = [
        DetectRequest.of(image=Image.of(random.integers(0, 256, (30 + n, 50, 3), dtype=np.uint8)), threshold=0.0)
        for n in range(3)
    ]
    together = list(session.map("detect", asked, model=str(folder)))
    for request, found in zip(asked, together, strict=True):
        alone = session.run(request, model=str(folder))
        np.testing.assert_allclose(found.xyxy, alone.xyxy, atol=1e-3)


def test_names_choose_among_the_classes(base, session, picture, tmp_path):
    folder = written(tmp_path, members(tmp_path, base, session, "detect"))
    whole = ask(session, "detect", picture, folder, 0.0)
    some = session.run(DetectRequest.of(image=picture, names=["bee"], threshold=0.0), model=str(folder))
    np.testing.assert_array_equal(some.xyxy, whole.xyxy[whole.class_id == 1])
    with pytest.raises(UnsupportedError, match="was not trained for wasp"):
        session.run(DetectRequest.of(image=picture, names=["wasp"]), model=str(folder))


@pytest.mark.parametrize("mode", ["panoptic", "semantic"])
def test_regions_that_are_no_instances_are_refused(mode, base, session, picture, tmp_path):
    folder = written(tmp_path, members(tmp_path, base, session, "masks"))
    with pytest.raises(UnsupportedError):
        session.run(SegmentRequest.of(image=picture, mode=mode), model=str(folder))


@pytest.mark.parametrize("what", HEADS)
def test_it_has_no_one_network_to_train_or_to_export(what, base, session, tmp_path):
    folder = written(tmp_path, members(tmp_path, base, session, what))
    with pytest.raises(UnsupportedError, match="models"), session.module(str(folder)):
        pass
    with pytest.raises(UnsupportedError, match=r"no one network does; export its members, such as .*one-0"):
        export(folder, out=tmp_path / "out", session=session)
    assert not (tmp_path / "out").exists()


def test_what_does_not_go_together_is_not_joined(base, session, picture, tmp_path):
    (tmp_path / "ensemble").mkdir()
    found = members(tmp_path / "some", base, session, "masks")
    panoptic = {**found[1].spec.details, "kind": "panoptic"}
    other = replace(found[1], spec=replace(found[1].spec, details=panoptic))
    with pytest.raises(WeightsError, match="one-0 and one-1 differ in their kind"):
        ensemble.write(tmp_path / "ensemble", [found[0], other])
    with pytest.raises(WeightsError, match="its members find panoptic regions"):
        ensemble.write(tmp_path / "ensemble", [other])
    folder = written(tmp_path / "some", found)
    path = folder / "members" / "one-1" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"labels": ["ant", "bee", "cow"]}))
    with pytest.raises(WeightsError, match="one-0 and one-1 differ in their classes"):
        ask(session, "masks", picture, folder, 0.0)
