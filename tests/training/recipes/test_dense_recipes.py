"""Recipes for pixels and objects: what they show, what they refuse, what they judge and what they write."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from manylens.data import Dataset
from manylens.data.records import Annotation, Category
from manylens.evaluation.measure import Regions
from manylens.media import from_rle, to_rle
from manylens.models.adapted import bundle
from manylens.models.adapted.bundle import Spec
from manylens.training.dense.losses import VOID
from manylens.training.errors import TrainError
from manylens.training.recipes.on_objects import blocks_that_run, usual_features
from manylens.training.recipes.semantic import mean_iou
from tests.training.dense import made_up
from tests.training.dense.made_up import CATEGORIES
from tests.training.recipes.kit import SIDE, TASKS, data, draws, fit, judge, same

AUGMENTED = {"augment__policy": "light", "augment__copy_paste": 0.7, "augment__views": 3}


@pytest.mark.parametrize("mode", ["frozen", "full"])
@pytest.mark.parametrize("name", TASKS)
def test_a_batch_depends_on_its_draws_only(recipe, tmp_path, name, mode):
    found = data(tmp_path)
    with recipe(name, found, transfer__mode=mode, **AUGMENTED) as one:
        source = one.train_source()
        first = source.__getitems__(draws(0, 2, 3, epoch=1))
        source.__getitems__(draws(3, 1, epoch=2))
        assert same(first, source.__getitems__(draws(0, 2, 3, epoch=1)))
        shown = "features" if mode == "frozen" else "pixels"
        alone = source.__getitems__(draws(2, epoch=1))
        whole, part = (
            (first[shown]["dense"], alone[shown]["dense"]) if mode == "frozen" else (first[shown], alone[shown])
        )
        assert torch.equal(whole[1:2], part)
        assert first["numbers"].tolist() == [0, 2, 3]
        assert source.ids(draws(2, 0)) == ["2", "0"]
    if mode == "full":
        return
    with recipe(name, found, transfer__mode=mode, **AUGMENTED) as one:  # resumed: its features are kept
        assert same(first, one.train_source().__getitems__(draws(0, 2, 3, epoch=1)))
        assert "found" in one.said[-1]
        assert "encoded" not in one.said[-1]


@pytest.mark.parametrize("mode", ["frozen", "full"])
def test_targets_are_those_of_the_view_that_is_shown(recipe, tmp_path, mode):
    with recipe("semantic", data(tmp_path), transfer__mode=mode, **AUGMENTED) as one:
        source = one.train_source()
        seen = set()
        for epoch in range(6):
            shown = source.__getitems__(draws(0, epoch=epoch))
            scenes = source._views.scenes
            view = source._views.shown(0, epoch) if mode == "frozen" else epoch + 1
            scene = scenes.scene(0, view, pixels=True)
            seen.add(view)
            painted = shown["labels"][0].numpy()
            for kind, mask in zip(scene.classes, scene.masks, strict=True):
                assert (painted[mask] == kind).all()
            assert (painted[~scene.masks.any(axis=0)] == one.classes.ground).all()
            if mode == "full":
                pixels = torch.from_numpy(scene.pixels).permute(2, 0, 1).float() / 255
                torch.testing.assert_close(shown["pixels"][0], pixels)
            else:
                pixels = torch.from_numpy(scene.pixels).permute(2, 0, 1)[None].float() / 255
                with torch.no_grad():
                    dense = one.backbone(pixels)["dense"]
                torch.testing.assert_close(shown["features"]["dense"].float(), dense, atol=2e-2, rtol=1e-2)
        assert seen == ({0, 1, 2} if mode == "frozen" else {1, 2, 3, 4, 5, 6})


def test_pixels_are_changed_anew_in_each_epoch_and_never_for_validation(recipe, tmp_path):
    with recipe("detect", data(tmp_path), transfer__mode="full", augment__policy="light", augment__views=1) as one:
        first, second = (one.train_source().__getitems__(draws(0, epoch=epoch))["pixels"] for epoch in (0, 1))
        assert not torch.equal(first, second)
        first, second = (one.val_source().__getitems__(draws(0, epoch=epoch))["pixels"] for epoch in (0, 1))
        assert torch.equal(first, second)
    with recipe("detect", data(tmp_path), transfer__mode="full") as one:
        first, second = (one.train_source().__getitems__(draws(0, epoch=epoch))["pixels"] for epoch in (0, 1))
        assert torch.equal(first, second)


def test_pictures_of_rare_classes_are_changed_more(recipe, tmp_path):
    changes = {"augment__policy": "light", "augment__rare": 2.0, "augment__strength": 0.4}
    for name in ("detect", "semantic"):  # the latter has a class for what is left over, which has no object
        with recipe(name, data(tmp_path, count=10, val=0), **changes) as one:
            rarest = min((k for k in range(len(one.labels)) if one.counts[k]), key=lambda k: one.counts[k])
            made = one._augmentations()
            for how, held in zip(made, one._held, strict=True):
                assert how.colour == pytest.approx(0.8 if rarest in held else 0.4)
                assert how.scale == pytest.approx((1 - how.colour / 2, 1 + how.colour))


@pytest.mark.parametrize(
    ("name", "changes", "figure", "least"),
    [
        ("semantic", {}, "miou", 0.5),
        (
            "semantic",
            {"options": {"dice": 1.0}, "head__kind": "upernet", "head__options": {"width": 16}},
            "miou",
            0.5,
        ),
        (
            "masks",
            {"head__options": {"width": 32, "layers": 1, "queries": 8}, "options": {"points": 256}},
            "map50",
            0.3,
        ),
        ("detect", {"head__options": {"width": 24, "depth": 1}}, "map50", 0.3),
    ],
)
def test_pictures_that_are_known_are_found_again(recipe, tmp_path, name, changes, figure, least):
    """The pictures of both splits are the same here; features of an encoder without training are enough for that."""
    records = made_up.records(4, tmp_path, side=SIDE)
    twice = [*records, *(again(one) for one in records)]
    with recipe(name, Dataset.of(twice, CATEGORIES), **changes) as one:
        before = judge(one)
        after = fit(one, steps=40 if "head__kind" in changes else 80)
        assert set(after) == set(one.judges)
        assert one.watched(one.config) in after
        assert after[figure] >= least
        assert after[figure] > before[figure] + 0.2
        assert judge(one)[figure] == pytest.approx(after[figure])  # nothing is left over from the time before


def again(record):
    annotations = tuple(replace(one, id=f"{one.id} again") for one in record.annotations)
    return replace(record, id=f"{record.id} again", split="val", annotations=annotations)


@pytest.mark.parametrize("kind", ["panoptic", "semantic"])
def test_queries_for_regions_that_cover_the_picture(recipe, tmp_path, kind):
    def with_sky(one):
        sky = ~np.any([from_rle(a.mask) for a in one.annotations], axis=0)
        return replace(one, annotations=(*one.annotations, Annotation(f"{one.id}/sky", "sky", mask=to_rle(sky))))

    found = data(tmp_path, categories=(*CATEGORIES, Category(3, "sky", is_thing=False)), change=with_sky)
    with recipe("masks", found, options={"kind": kind, "points": 64}, head__options={"width": 16, "layers": 1}) as one:
        assert one.labels == ("disc", "bar", "sky")
        shown = one.train_source().__getitems__(draws(0, 1))
        for objects in shown["objects"]:
            assert (objects.masks.sum(dim=0) == 1).all()
            assert 2 in objects.classes
        assert one.watched(one.config) == {"panoptic": "pq", "semantic": "miou"}[kind]
        assert set(fit(one, steps=2)) == set(one.judges)
        assert one.details() == {"kind": kind, "things": [True, True, False]}


def test_validation_is_judged_by_the_records_themselves(recipe, tmp_path):
    found = data(tmp_path)
    with recipe("detect", found, head__options={"width": 8}) as one:
        truth = [record for record in found.records() if record.split == "val"]
        for number, record in enumerate(truth):
            boxes = np.array([from_box(a) for a in record.annotations], np.float32)
            names = [a.category for a in record.annotations]
            one._found.append((number, Regions(names, np.ones(len(names), np.float32), boxes=boxes)))
        assert one.figures() == {"map": 1.0, "map50": 1.0}
        assert one.figures() == {"map": 0.0, "map50": 0.0}


def from_box(annotation):
    from manylens.media import bounds

    return bounds(from_rle(annotation.mask))


def test_mean_iou_is_that_of_the_measure():
    random = np.random.default_rng(0)
    true, found = random.integers(0, 3, 500), random.integers(0, 3, 500)
    table = np.zeros((4, 4))
    np.add.at(table, (true, found), 1)
    each = [((true == k) & (found == k)).sum() / ((true == k) | (found == k)).sum() for k in range(3)]
    assert mean_iou(table) == pytest.approx(np.mean(each))  # a class that is nowhere is in no mean
    assert mean_iou(np.zeros((2, 2))) == 0


@pytest.mark.parametrize(
    ("options", "covered", "names", "ground"),
    [
        ({}, False, ("background", "disc", "bar"), 0),
        ({"unlabelled": "void"}, False, ("disc", "bar"), VOID),
        ({}, True, ("disc", "bar"), VOID),
        ({"unlabelled": "background"}, True, ("background", "disc", "bar"), 0),
    ],
)
def test_what_pixels_without_annotation_are(recipe, tmp_path, options, covered, names, ground):
    def whole(one):
        if not covered:
            return one
        rest = ~np.any([from_rle(a.mask) for a in one.annotations], axis=0)
        void = Annotation(f"{one.id}/void", mask=to_rle(rest), ignore=True)
        return replace(one, annotations=(*one.annotations, void))

    with recipe("semantic", data(tmp_path, change=whole), options=options) as one:
        assert (one.labels, one.classes.ground) == (names, ground)
        assert any("taken for background" in line for line in one.said) == (not options and not covered)
        labels = one.train_source().__getitems__(draws(0))["labels"]
        assert labels.shape == (1, SIDE, SIDE)
        assert ((labels == VOID).any()) == (covered or ground == VOID)
        pixels = one._pixels()
        assert pixels.sum() == pytest.approx(4 * SIDE * SIDE, rel=0.3) or covered or ground == VOID


def test_rare_classes_are_shown_more_where_the_config_says_so(recipe, tmp_path):
    found = data(tmp_path, count=10, val=0)
    with recipe("detect", found) as one:
        held = one._held
        plain = one.draws(0)
        assert sorted(plain.tolist()) == list(range(10))
    holding = [{one.category for one in record.annotations} for record in found.records()]
    assert [{one.labels[k] for k in numbers} for numbers in held] == holding
    rare = [n for n, numbers in enumerate(held) if 1 in numbers]
    assert 0 < len(rare) < 10
    with recipe("detect", found, imbalance__sampling="balanced") as one:
        shown = np.concatenate([one.draws(epoch) for epoch in range(20)])
        assert np.isin(shown, rare).mean() != pytest.approx(len(rare) / 10, abs=0.02)


def test_weights_of_rare_classes(recipe, tmp_path):
    for name in ("masks", "detect"):
        with recipe(name, data(tmp_path), imbalance__loss="weighted") as one:
            weights = one.class_weights()
            assert weights.shape == (2,)
            assert (weights.argsort() == torch.from_numpy(np.argsort(-one.counts))).all()
        with recipe(name, data(tmp_path)) as one:
            assert one.class_weights() is None


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("semantic", {"regularise__mixup": 0.2}, "regularise.mixup: says nothing to the recipe 'semantic'"),
        ("masks", {"regularise__cutmix": 0.2}, "regularise.cutmix: says nothing"),
        ("masks", {"domain__kind": "coral"}, "domain.kind: says nothing"),
        ("detect", {"regularise__label_smoothing": 0.1}, "regularise.label_smoothing: says nothing"),
        ("semantic", {"regularise__drop_path": 0.1}, "regularise.drop_path: the encoder is frozen"),
        ("semantic", {"domain__kind": "coral"}, "there is no target"),
        ("semantic", {"domain__kind": "coral", "data__target": "."}, "no features that could adapt"),
        ("detect", {"imbalance__synthetic": "smote"}, "imbalance.synthetic: says nothing"),
        ("semantic", {"imbalance__loss": "ldam"}, "imbalance.loss 'ldam'"),
        ("masks", {"imbalance__loss": "focal"}, "imbalance.loss of the recipe 'masks' 'focal'"),
        (
            "masks",
            {"options": {"kind": "instances"}},
            "options.kind 'instances': there is none; did you mean 'instance'",
        ),
        ("detect", {"options": {"dise": 1}}, "option of the recipe 'detect' 'dise'"),
        ("semantic", {"options": {"unlabelled": "sky"}}, "options.unlabelled 'sky'"),
        ("masks", {"head__kind": "upernet"}, "head.kind 'upernet'"),
        ("semantic", {"augment__policy": "flip", "augment__options": {"mirrored": 1}}, "did you mean 'mirror'"),
    ],
)
def test_what_makes_no_sense_is_said(recipe, tmp_path, name, changes, said):
    with pytest.raises(TrainError, match=said), recipe(name, data(tmp_path), **changes) as one:
        one.train_source()


def boxes_only(one):
    annotations = tuple(replace(a, mask=None, box=from_box(a)) for a in one.annotations)
    return replace(one, annotations=annotations)


def test_boxes_are_enough_to_detect_and_not_for_masks(recipe, tmp_path):
    found = data(tmp_path, change=boxes_only)
    with recipe("detect", found, augment__policy="light", head__options={"width": 8}) as one:
        assert one.train_source().__getitems__(draws(0))["objects"][0].masks is None
        fit(one, steps=2)
    val_only = data(tmp_path, change=lambda one: boxes_only(one) if one.id == "5" else one)
    for name in ("masks", "semantic"):
        with pytest.raises(TrainError, match=r"of .* objects have a box but no mask"), recipe(name, found):
            pass
        with pytest.raises(TrainError, match=r"split 'val': .* have a box but no mask"), recipe(name, val_only):
            pass
    with pytest.raises(TrainError, match=r"augment\.copy_paste: no object has a mask"):  # noqa: SIM117
        with recipe("detect", found, augment__copy_paste=0.5) as one:
            one.train_source()


def test_data_without_things_or_without_objects(recipe, tmp_path):
    stuff = tuple(replace(one, is_thing=False) for one in CATEGORIES)
    for name in ("masks", "detect"):
        with pytest.raises(TrainError, match="none of its categories has instances"):  # noqa: SIM117
            with recipe(name, data(tmp_path, categories=stuff)):
                pass
    empty = data(tmp_path, change=lambda one: replace(one, annotations=()))
    for name in TASKS:
        with pytest.raises(TrainError, match="no picture has an object of a class"), recipe(name, empty):
            pass


def test_more_queries_than_the_fullest_picture_has_objects(recipe, tmp_path):
    mask = to_rle(np.eye(SIDE, dtype=bool))

    def crowded(one):
        return replace(one, annotations=tuple(Annotation(f"{one.id}/{n}", "disc", mask=mask) for n in range(60)))

    with recipe("masks", data(tmp_path, change=crowded)) as one:
        assert one.options["queries"] == 90
        assert one.head.content.num_embeddings == 90


@pytest.mark.parametrize("mode", ["frozen", "full"])
@pytest.mark.parametrize("name", TASKS)
def test_what_is_written_answers_as_what_was_trained(recipe, tmp_path, session, tiny_vit, name, mode):
    small = {"width": 16} if name != "semantic" else {}
    with recipe(name, data(tmp_path), transfer__mode=mode, head__options=small) as one:
        fit(one, steps=3)
        pixels = torch.rand(2, 3, SIDE, SIDE)
        with torch.no_grad():
            expected = one.head(one.backbone.eval()(pixels), (SIDE, SIDE))
        folder = tmp_path / "model"
        folder.mkdir()
        one.save(folder)
    files = {path.name: path for path in folder.iterdir()}
    spec = Spec.read(files, "run")
    assert (
        spec.architecture
        == {"semantic": "AdaptedSegmenter", "masks": "AdaptedMasks", "detect": "AdaptedDetector"}[name]
    )
    with session.module(str(tiny_vit)) as trainable:
        network = bundle.assemble(spec, trainable, files, "run")
        with torch.no_grad():
            found = network(pixels)
    for key, value in found.items():
        torch.testing.assert_close(value, expected[key], atol=1e-5, rtol=1e-5)


def test_what_the_loss_adds_to_the_answer_is_written_too(recipe, tmp_path, session, tiny_vit):
    with recipe("semantic", data(tmp_path), imbalance__loss="post_hoc") as one:
        fit(one, steps=3)
        pixels = torch.rand(1, 3, SIDE, SIDE)
        before = one.head.classes.bias.detach().clone()
        with torch.no_grad():
            plain = one.head(one.backbone.eval()(pixels), (SIDE, SIDE))["logits"]
        expected = one.criterion.answer(plain)
        assert not torch.equal(expected, plain)
        folder = tmp_path / "model"
        folder.mkdir()
        one.save(folder)
        assert torch.equal(one.head.classes.bias, before)
    files = {path.name: path for path in folder.iterdir()}
    with session.module(str(tiny_vit)) as trainable, torch.no_grad():
        found = bundle.assemble(Spec.read(files, "run"), trainable, files, "run")(pixels)
    torch.testing.assert_close(found["logits"], expected, atol=1e-5, rtol=1e-5)


def test_blocks_that_do_not_run_are_no_features(session, tiny_vit):
    with session.module(str(tiny_vit)) as trainable:
        assert blocks_that_run(trainable) == 4
        extra = replace(trainable, blocks=[*trainable.blocks, torch.nn.Identity()])
        assert blocks_that_run(extra) == 4
        assert usual_features(extra, 1) == ("dense",)
        assert usual_features(extra, 2) == ("block.2", "dense")
        assert usual_features(extra, 4) == ("block.0", "block.1", "block.2", "block.3")
        assert usual_features(extra, 5) == usual_features(replace(extra, patch=0), 2) == ("dense",)
