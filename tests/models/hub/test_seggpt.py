"""SegGPT against plain transformers, on noisy checkpoints of the true architecture at a small size."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.hub import kit
from transformers import SegGptConfig, SegGptForImageSegmentation
from transformers.models.seggpt.image_processing_pil_seggpt import SegGptImageProcessorPil

from manylens.catalog import Catalog
from manylens.errors import CancelledError, MediaError, PromptError, UnsupportedError, WeightsError
from manylens.media import Image
from manylens.models.dense.matching import masks
from manylens.models.seggpt import colours
from manylens.models.seggpt.passes import Prompt, passes
from manylens.models.seggpt.video import track
from manylens.runtime.context import Context
from manylens.runtime.store import EmbeddingStore
from manylens.session import Session
from manylens.tasks.regions import SegmentRequest, TrackRequest

SIDE = 32
CONFIG = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": [2 * SIDE, SIDE],
    "patch_size": 8,
    "pretrain_image_size": 24,
    "decoder_hidden_size": 8,
    "merge_index": 1,
    "intermediate_hidden_state_indices": [1, 2],
}
PROCESSOR = {
    "size": {"height": SIDE, "width": SIDE},
    "resample": 3,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "rescale_factor": 1 / 255,
}
EXAMPLES = Path(__file__).parents[3] / "examples"
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """A home of its own: a compiled form kept by an earlier run would hide what the code computes now."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MANYLENS_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model = kit.noisy(SegGptForImageSegmentation(SegGptConfig(**CONFIG)), seed=1)
    with torch.no_grad():  # so that what is painted fills the cube of colours, and not its middle only
        model.decoder.decoder_pred.head.weight *= 3
    return kit.save(model, tmp_path_factory.mktemp("seggpt"), preprocessor_config=PROCESSOR)


@pytest.fixture(scope="module")
def ours(folder):
    return kit.opened(folder)


@pytest.fixture(scope="module")
def reference(folder):
    return SegGptForImageSegmentation.from_pretrained(folder), SegGptImageProcessorPil(**PROCESSOR)


def picture(seed, size=(SIDE, SIDE)):
    """Smooth noise, ``size`` as ``(width, height)``."""
    from PIL import Image as Pil

    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return np.asarray(Pil.fromarray(small).resize(size, Pil.Resampling.BICUBIC))


def left(size=(SIDE, SIDE), share=0.5):
    mask = np.zeros(size[::-1], bool)
    mask[:, : max(1, round(size[0] * share))] = True
    return mask


def right(size=(SIDE, SIDE)):
    return ~left(size, 0.6)


def example(seed, mask=None, name=None, size=(SIDE, SIDE)):
    return {"image": picture(seed, size), "mask": left(size) if mask is None else mask, "name": name}


def painted_by_reference(reference, query, pictures, planes):
    """``pred_masks`` of transformers for painted masks uint8 ``(H, W, 3)``."""
    model, processor = reference
    count = len(pictures)
    prepared = processor(
        images=[query] * count, prompt_images=pictures, prompt_masks=planes, do_convert_rgb=False, return_tensors="pt"
    )
    with torch.no_grad():
        return model(**prepared, feature_ensemble=count > 1)


def painted_by_us(model, query, pictures, planes):
    networks = model._networks
    tokens = lambda rgb: networks.tokens([networks.processor.pixels(one) for one in rgb])  # noqa: E731
    return networks.paint(tokens(pictures), tokens(planes), tokens([query])[0])


def of_reference(found, processor):
    """What transformers' output says of the asked half, as colours of 0..255: ``(3, h, w)``."""
    half = found.pred_masks[0, :, found.pred_masks.shape[2] // 2 :]
    std, mean = (torch.tensor(values)[:, None, None] for values in (processor.image_std, processor.image_mean))
    return ((half * std + mean) * 255).clip(0, 255).numpy()


def planes_of(mask, colour=(255, 255, 255)):
    return (mask[..., None] * np.array(colour, np.uint8)).astype(np.uint8)


# ------------------------------------------------------------------ parity with transformers


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("engine", "precision", "tolerance"),
    [("torch", "f32", 2e-3), ("openvino", "f32", 2e-3), ("torch", "bf16", 20), ("openvino", "bf16", 20)],
)
def test_what_is_painted_is_what_transformers_paints(folder, reference, engine, precision, tolerance, count):
    model = kit.opened(folder, engine=engine, precision=precision)
    query, pictures = picture(9), [picture(seed) for seed in range(count)]
    planes = [planes_of(left(share=0.2 + 0.1 * number), colours.palette(3)[number % 3]) for number in range(count)]
    expected = of_reference(painted_by_reference(reference, query, pictures, planes), reference[1])
    found = painted_by_us(model, query, pictures, planes)
    assert expected.std() > 50
    assert np.abs(found - expected).max() < tolerance  # of 255 levels
    model.close()


def test_no_group_of_parameters_is_without_effect(folder, tmp_path):
    query, pictures = picture(9), [picture(1), picture(2)]
    planes = [planes_of(left()), planes_of(right())]

    def outputs(path):
        model = kit.opened(path)
        return {
            "one": painted_by_us(model, query, pictures[:1], planes[:1]),
            "two": painted_by_us(model, query, pictures, planes),
        }

    # Semantic and instance are two embeddings of which each run has one: instance, the reference's default.
    assert kit.unnoticed(folder, tmp_path, outputs, 2e-3, skip="type_token_semantic") == []


@pytest.mark.parametrize("size", [(SIDE, SIDE), (50, 41), (20, 90)])
@pytest.mark.parametrize("count", [1, 3])
def test_pictures_are_prepared_as_transformers_prepares_them(ours, reference, size, count):
    processor = ours._networks.processor
    rgb = picture(3, size)
    expected = reference[1](images=rgb, return_tensors="np")["pixel_values"][0]
    assert np.abs(processor.normalised(processor.pixels(rgb)) - expected).max() < 1e-6
    masks = (left(size, 0.3), right(size), ~left(size, 0.3) & ~right(size))[:count]
    plane = colours.painted(Prompt(Image.of(rgb), masks), count, (SIDE, SIDE))
    coloured = np.zeros((*rgb.shape[:2], 3), np.uint8)
    for mask, colour in zip(masks, colours.palette(count), strict=True):
        coloured[mask] = colour
    expected = reference[1](
        images=rgb, prompt_images=rgb, prompt_masks=coloured, do_convert_rgb=False, return_tensors="np"
    )
    assert np.abs(processor.normalised(plane) - expected["prompt_masks"][0]).max() < 1e-6


def test_one_class_is_painted_as_transformers_palette_of_one(ours, reference):
    rgb, mask = picture(3), left()
    plane = colours.painted(Prompt(Image.of(rgb), (mask,)), 1, (SIDE, SIDE))
    expected = reference[1](
        images=rgb, prompt_images=rgb, prompt_masks=mask.astype(np.uint8), num_labels=1, return_tensors="np"
    )
    assert np.abs(ours._networks.processor.normalised(plane) - expected["prompt_masks"][0]).max() < 1e-6


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_mask_of_one_class_is_transformers_semantic_map(ours, reference, count):
    like = [example(seed, left(share=0.3 + 0.1 * seed)) for seed in range(count)]
    query = picture(20 + count)
    found = kit.run(ours, SegmentRequest.of(image=query, like=like))
    planes = [planes_of(one["mask"]) for one in like]
    outputs = painted_by_reference(reference, query, [one["image"] for one in like], planes)
    (expected, *_) = reference[1].post_process_semantic_segmentation(
        outputs, target_sizes=[(SIDE, SIDE)] * count, num_labels=1
    )
    expected = expected.numpy() == 1
    assert 0.02 < expected.mean() < 0.98
    assert (found.mask[0] == expected).mean() > 0.999  # a pixel midway may fall to either side
    assert len(found) == 1


@pytest.mark.parametrize("classes", [2, 3, 7, 13])
def test_several_classes_in_one_pass_are_transformers_with_the_same_colours(ours, reference, classes):
    rgb, query = picture(1), picture(30)
    bounds = np.linspace(0, SIDE, classes + 2).round().astype(int)
    masks = np.zeros((classes, SIDE, SIDE), bool)
    for number in range(classes):
        masks[number, :, bounds[number] : bounds[number + 1]] = True
    like = [{"image": rgb, "mask": mask, "name": f"class {number}"} for number, mask in enumerate(masks)]
    found = kit.run(ours, SegmentRequest.of(image=query, like=like))
    palette = colours.palette(classes)
    plane = sum(planes_of(mask, colour) for mask, colour in zip(masks, palette, strict=True))
    painted = of_reference(painted_by_reference(reference, query, [rgb], [plane]), reference[1])
    known = np.concatenate([np.zeros((1, 3)), palette])
    nearest = ((np.moveaxis(painted, 0, -1)[:, :, None] - known) ** 2).sum(-1).argmin(-1)
    present = [number for number in range(classes) if (nearest == number + 1).any()]
    assert len(present) >= 2
    assert sorted(found.class_id) == present
    for mask, number, name in zip(found.mask, found.class_id, found.data["class_name"], strict=True):
        assert name == f"class {number}"
        assert (mask == (nearest == number + 1)).mean() > 0.999
    assert found.mask.sum(axis=0).max() == 1


def test_classes_of_different_pictures_are_painted_apart_and_joined_by_likeness(ours):
    alike, other = example(1, left(), "a"), example(2, right(), "b")
    query = picture(31)
    found = kit.run(ours, SegmentRequest.of(image=query, like=[alike, other]))
    apart = []
    for one in (alike, other):
        painted = painted_by_us(ours, query, [one["image"]], [planes_of(one["mask"])])
        white, black = (np.linalg.norm(painted - level, axis=0) for level in (255, 0))
        apart.append(black / (black + white))
    best = np.argmax(apart, axis=0)
    expected = {name: (best == number) & (apart[number] > 0.5) for number, name in enumerate("ab")}
    assert all(mask.any() for mask in expected.values())
    for mask, name, score in zip(found.mask, found.data["class_name"], found.confidence, strict=True):
        assert (mask == expected[name]).all()
        assert score == pytest.approx(apart["ab".index(name)][mask].mean(), abs=1e-5)
    assert list(found.confidence) == sorted(found.confidence, reverse=True)


@pytest.mark.parametrize("size", [(70, 45), (31, 100), (20, 24)])
def test_likeness_is_brought_to_the_photos_size_before_the_decision(ours, reference, size):
    one, query = example(4), picture(23, size)
    found = kit.run(ours, SegmentRequest.of(image=query, like=[one]))
    outputs = painted_by_reference(reference, query, [one["image"]], [planes_of(one["mask"])])
    painted = torch.from_numpy(of_reference(outputs, reference[1]))
    white, black = (torch.linalg.norm(painted - level, dim=0) for level in (255, 0))
    likeness = (black / (black + white))[None, None]
    expected = torch.nn.functional.interpolate(likeness, size[::-1], mode="bilinear", align_corners=False)[0, 0] > 0.5
    assert found.mask.shape == (1, *size[::-1])
    assert (found.mask[0] == expected.numpy()).mean() > 0.999


def test_an_outline_is_followed_better_than_by_repeating_pixels():
    rows, columns = np.mgrid[:320, :320]
    truth = (rows - 150) ** 2 + (columns - 170) ** 2 < 100**2
    painted = np.repeat(255 * truth.reshape(SIDE, 10, SIDE, 10).mean(axis=(1, 3))[None], 3, axis=0)
    likeness = colours.likeness(painted, 1)
    (smooth,), _ = masks(likeness, (320, 320), colours.NEARER)
    repeated = np.kron(likeness[0] > 0.5, np.ones((10, 10))) > 0
    wrong = [int((found != truth).sum()) for found in (smooth, repeated)]
    assert wrong[0] < 0.5 * wrong[1]


# ------------------------------------------------------------------ passes and colours


def shown(pictures, classes):
    """``classes`` as words of picture letters: ``["ab", "a"]``."""
    return [[(pictures[letter], left()) for letter in word] for word in classes]


@pytest.mark.parametrize(
    ("classes", "most", "expected"),
    [
        (["a"], 13, [((0,), "a")]),
        (["abc"], 13, [((0,), "abc")]),
        (["aa"], 13, [((0,), "a")]),
        (["a", "a"], 13, [((0, 1), "a")]),
        (["ab", "ba"], 13, [((0, 1), "ab")]),
        (["a", "b"], 13, [((0,), "a"), ((1,), "b")]),
        (["ab", "a", "ab", "a"], 13, [((0, 2), "ab"), ((1, 3), "a")]),
        (["a"] * 5, 3, [((0, 1), "a"), ((2, 3, 4), "a")]),
        (["a"] * 14, 13, [(tuple(range(7)), "a"), (tuple(range(7, 14)), "a")]),
    ],
)
def test_classes_that_lie_in_the_same_pictures_share_a_pass(classes, most, expected):
    pictures = {letter: Image.of(picture(ord(letter))) for letter in "abc"}
    letters = {image.id: letter for letter, image in pictures.items()}
    found = passes(shown(pictures, classes), most)
    assert [(run.classes, "".join(letters[one.image.id] for one in run.prompts)) for run in found] == expected
    assert all(len(prompt.masks) == len(run.classes) for run in found for prompt in run.prompts)


def test_masks_of_one_class_in_one_picture_are_one():
    image, masks = Image.of(picture(1)), [left(share=0.2), right()]
    (run,) = passes([[(image, mask) for mask in masks]], 13)
    assert (run.prompts[0].masks[0] == masks[0] | masks[1]).all()


@pytest.mark.parametrize(("count", "least"), [(1, 441), (2, 360), (3, 360), (4, 255), (7, 255), (8, 179), (13, 179)])
def test_colours_are_far_apart(count, least):
    known = np.concatenate([np.zeros((1, 3)), colours.palette(count)])
    apart = np.linalg.norm(known[:, None] - known, axis=-1) + 1e3 * np.eye(count + 1)
    assert colours.palette(count).shape == (count, 3)
    assert apart.min() >= least


@settings(max_examples=30, deadline=None)
@given(st.integers(1, colours.MOST), st.integers(0, 2**32 - 1))
def test_a_pixel_is_of_the_nearest_colour_black_included(count, seed):
    painted = np.random.default_rng(seed).uniform(0, 255, (3, 6, 7)).astype(np.float32)
    likeness = colours.likeness(painted, count)
    known = np.concatenate([np.zeros((1, 3)), colours.palette(count)])
    nearest = np.linalg.norm(np.moveaxis(painted, 0, -1)[:, :, None] - known, axis=-1).argmin(-1)
    assert (np.where(likeness.max(0) > 0.5, likeness.argmax(0) + 1, 0) == nearest).all()
    exact = colours.likeness(np.moveaxis(colours.coloured(np.arange(count + 1)[None], count), -1, 0), count)[:, 0]
    assert (exact[:, 0] == 0).all()
    assert (np.diag(exact[:, 1:]) == 1).all()


def test_of_masks_that_lie_over_each_other_the_smaller_is_on_top():
    whole, part = np.ones((SIDE, SIDE), bool), left(share=0.25)
    for stacked, expected in (((whole, part), (1, 0)), ((part, whole), (0, 1))):
        plane = colours.painted(Prompt(Image.of(picture(1)), stacked), 2, (SIDE, SIDE))
        assert (plane[0, 0] == colours.palette(2)[expected[0]]).all()
        assert (plane[0, -1] == colours.palette(2)[1 - expected[0]]).all()


def test_more_classes_than_colours_are_painted_in_several_passes(ours):
    side = np.arange(SIDE)
    like = [{"image": picture(1), "mask": np.tile(side == n, (SIDE, 1)), "name": f"{n}"} for n in range(20)]
    found = kit.run(ours, SegmentRequest.of(image=picture(31), like=like))
    assert len(found) > 2
    assert found.mask.sum(axis=0).max() == 1


# ------------------------------------------------------------------ what is kept


@pytest.fixture
def counted(ours, monkeypatch):
    """How many planes were made tokens and how many masks were painted: ``counted["tokens"]``, ``counted["paint"]``."""
    counts = {"tokens": 0, "paint": 0}
    tokens, paint = ours._networks.tokens, ours._networks.paint

    def counting_tokens(planes):
        counts["tokens"] += len(planes)
        return tokens(planes)

    def counting_paint(*parts):
        counts["paint"] += 1
        return paint(*parts)

    monkeypatch.setattr(ours._networks, "tokens", counting_tokens)
    monkeypatch.setattr(ours._networks, "paint", counting_paint)
    return counts


def test_an_answer_and_the_tokens_of_examples_are_kept(ours, counted, tmp_path):
    store, like = EmbeddingStore(tmp_path), [example(1), example(2, right())]

    def ask(seed, like=like, store=store):
        before, ctx = dict(counted), Context(store=store)
        found = next(ours.run([SegmentRequest.of(image=picture(seed), like=like)], ctx))
        return found, ctx.notes["cache"], counted["tokens"] - before["tokens"], counted["paint"] - before["paint"]

    first, *counts = ask(30)
    assert counts == ["miss", 5, 1]  # two examples with their masks, and the picture
    again, *counts = ask(30)
    assert counts == ["memory", 0, 0]
    assert (again.mask == first.mask).all()
    assert ask(31)[1:] == ("miss", 1, 1)  # of a new picture its own tokens only
    assert ask(30, [example(1, left(share=0.3)), example(2, right())])[1:] == ("miss", 1, 1)  # a new mask
    later, *counts = ask(30, store=EmbeddingStore(tmp_path))  # as in a new process
    assert counts == ["disk", 0, 0]
    assert (later.confidence == first.confidence).all()


def test_a_second_visit_does_not_load_the_checkpoint(folder, ours, tmp_path, monkeypatch):
    request = SegmentRequest.of(image=picture(30), like=[example(1)])
    first = kit.run(ours, request, store=EmbeddingStore(tmp_path))
    fresh = kit.opened(folder)
    monkeypatch.setattr(fresh._networks, "_built", lambda: pytest.fail("the network is loaded"))
    assert (kit.run(fresh, request, store=EmbeddingStore(tmp_path)).mask == first.mask).all()


# ------------------------------------------------------------------ video

FRAMES = [picture(seed) for seed in range(40, 46)]


def colour_mask(painted):
    return np.linalg.norm(painted, axis=0) > np.linalg.norm(painted - 255, axis=0)


@pytest.mark.parametrize("memory", [0, 1, 3])
def test_a_video_is_followed_as_with_transformers_frame_by_frame(ours, reference, memory):
    first = left(share=0.4)
    expected, kept = [], []
    for number, frame in enumerate(FRAMES):
        pictures, planes = zip((FRAMES[0], planes_of(first)), *kept, strict=True)
        painted = of_reference(painted_by_reference(reference, frame, pictures, planes), reference[1])
        mask = colour_mask(painted)
        expected.append(first if number == 0 else mask)
        if number and memory:  # the marked frame is the example already
            kept = [*kept, (frame, planes_of(mask))][-memory:]
    request = TrackRequest.of(video=FRAMES, mask=first)
    found = track(ours._answers, request, Context(), memory=memory, sure=0)
    assert len(found) == len(FRAMES)
    for seen, mask in zip(found, expected, strict=True):
        assert 0.05 < mask.mean() < 0.95
        assert (seen.mask[0] == mask).mean() > 0.999
        assert list(seen.tracker_id) == [1]


def test_the_memory_changes_what_is_found_and_only_sure_frames_enter_it(ours):
    request = TrackRequest.of(video=FRAMES, mask=left(share=0.4))
    none, some, doubtful = (
        np.stack([one.mask[0] for one in track(ours._answers, request, Context(), memory=memory, sure=sure)])
        for memory, sure in ((0, 0.0), (3, 0.0), (3, 1.0))
    )
    assert (none[:2] == some[:2]).all()  # nothing is remembered before the second frame is answered
    assert (none != some).any()
    assert (none == doubtful).all()


def test_several_objects_and_classes_are_followed_under_their_numbers(ours):
    objects = [{"mask": left(share=0.3)}, {"mask": right()}]
    request = TrackRequest.of(video=FRAMES, objects=objects, like=[example(3, name="cup")], frame=2)
    steps = []
    found = kit.run(ours, request, progress=lambda share, message: steps.append((share, message)))
    assert [share for share, _ in steps] == pytest.approx([(n + 1) / len(FRAMES) for n in range(len(FRAMES))])
    assert steps[-1][1] == "frame 6 of 6"
    assert set(found.ids) <= {1, 2, 3}
    assert {1, 2} <= {one.tracker_id for one in found.frames[2].objects}
    given = {one.tracker_id: one for one in found.frames[2].objects}
    assert given[1].score == given[2].score == 1
    shown = dict(zip(found[2].tracker_id, found[2].mask, strict=True))
    assert (shown[1] == objects[0]["mask"]).all()
    assert found[2].mask.sum(axis=0).max() == 1  # what is given is no other class's
    assert {one.name for frame in found.frames for one in frame.objects if one.tracker_id == 3} <= {"cup"}
    assert any(one.tracker_id == 3 for frame in found.frames for one in frame.objects)


def test_frames_are_not_kept(ours, tmp_path):
    store = EmbeddingStore(None)
    kit.run(ours, TrackRequest.of(video=FRAMES, mask=left()), store=store)
    assert store.stats().memory_items == 2  # the marked frame and its mask


def test_a_cancelled_video_stops_at_the_next_frame(ours):
    ctx = Context()
    ctx.progress = lambda share, message: ctx.cancel.set()
    with pytest.raises(CancelledError):
        next(ours.run([TrackRequest.of(video=FRAMES, mask=left())], ctx))


# ------------------------------------------------------------------ bad input, and the rest of a model


@pytest.mark.parametrize(
    ("request_of", "message"),
    [
        (lambda: SegmentRequest.of(image=picture(1), like=[example(2, np.zeros((SIDE, SIDE), bool))]), "is empty"),
        (lambda: SegmentRequest.of(image=picture(1), like=[example(2, left((9, 9)))]), "is 9x9 pixels"),
        (lambda: SegmentRequest.of(image=picture(1), like=[example(2, name="a"), example(3)]), "without a name"),
        (lambda: SegmentRequest.of(image=picture(1), like=[example(2), example(2, name="a")]), "without a name"),
        (
            lambda: SegmentRequest.of(image=picture(1), like=[example(2, name="a"), example(2, name="b")]),
            "lies wholly under the masks of other classes",
        ),
        (
            lambda: SegmentRequest.of(
                image=picture(1), like=[example(2, np.eye(300, dtype=bool) & (np.arange(300) == 2), size=(300, 300))]
            ),
            "is too small",
        ),
        (lambda: TrackRequest.of(video=[], mask=left()), "has no frames"),
        (lambda: TrackRequest.of(video=FRAMES, mask=left(), frame=6), "has no frame 6"),
        (lambda: TrackRequest.of(video=[FRAMES[0], picture(1, (9, 9))], mask=left()), "frame 1 is 9 x 9"),
        (lambda: TrackRequest.of(video=FRAMES, mask=np.zeros((SIDE, SIDE), bool)), "is empty"),
    ],
)
def test_bad_input_is_one_clear_line(ours, request_of, message):
    with pytest.raises((PromptError, MediaError)) as failure:
        kit.run(ours, request_of())
    assert message in str(failure.value)
    assert "\n" not in str(failure.value)


def damage(folder, target, config=None, processor=None, drop=()):
    from safetensors.torch import load_file, save_file

    target.mkdir()
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in tensors.items() if k not in drop}, target / "model.safetensors", metadata={"format": "pt"}
    )
    told = json.loads((folder / "config.json").read_text()) | (config or {})
    (target / "config.json").write_text(json.dumps(told))
    (target / "preprocessor_config.json").write_text(json.dumps(PROCESSOR | (processor or {})))
    return target


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"config": {"image_size": [72, 32]}}, UnsupportedError, "72x32"),
        ({"config": {"image_size": "large"}}, WeightsError, "image_size large"),
        ({"processor": {"size": {"height": 64, "width": 64}}}, WeightsError, "(64, 64)"),
        ({"processor": {"size": {"shortest_edge": 64}}}, WeightsError, "preprocessor_config.json"),
        ({"drop": ["decoder.decoder_embed.bias"]}, WeightsError, "decoder.decoder_embed.bias"),
        ({"config": {"hidden_size": 64}}, WeightsError, "of another shape"),
    ],
)
def test_a_bad_checkpoint_is_one_clear_line(folder, tmp_path, changes, error, message):
    with pytest.raises(error) as failure:
        kit.run(
            kit.opened(damage(folder, tmp_path / "bad", **changes)),
            SegmentRequest.of(image=picture(1), like=[example(2)]),
        )
    assert message in str(failure.value)


@pytest.mark.parametrize("size", [(1, 1), (2, 900), (900, 3), (40, 31)])
def test_pictures_of_any_size_and_shape_are_taken(ours, size):
    mask = np.ones(size[::-1], bool)
    found = kit.run(ours, SegmentRequest.of(image=picture(5, size), like=[example(6, mask, size=size)]))
    assert found.mask.shape[1:] == size[::-1]


def test_a_picture_without_the_class_has_no_detections(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    black = damage(folder, tmp_path / "black")
    tensors = load_file(black / "model.safetensors")
    tensors["decoder.decoder_pred.head.bias"] -= 100
    save_file(tensors, black / "model.safetensors", metadata={"format": "pt"})
    ctx = Context()
    request = SegmentRequest.of(image=picture(5, (20, 10)), like=[example(6)])
    found = next(kit.opened(black).run([request], ctx))
    assert len(found) == 0
    assert found.mask.shape == (0, 10, 20)
    assert ctx.notes["notes"] == ["nothing in the picture is like the examples"]
    followed = kit.run(kit.opened(black), TrackRequest.of(video=FRAMES[:2], like=[example(6)]))
    assert followed.ids == ()


def test_the_threshold_holds_for_the_score_of_a_mask(ours):
    like = [example(1, left(), "a"), example(1, right(), "b")]
    found = kit.run(ours, SegmentRequest.of(image=picture(31), like=like))
    assert len(found) == 2
    least = float(found.confidence.mean())
    fewer = kit.run(ours, SegmentRequest.of(image=picture(31), like=like, threshold=least))
    assert list(fewer.class_id) == [found.class_id[0]]


def test_examples_answer_by_class_by_instance_or_panoptic(ours):
    like = [example(1, left(), "sky"), example(1, right(), "b")]
    found = {
        mode: kit.run(ours, SegmentRequest.of(image=picture(31), like=like, mode=mode))
        for mode in ("prompt", "semantic", "panoptic")
    }
    things = {mode: dict(zip(one.data["class_name"], one.data["is_thing"], strict=True)) for mode, one in found.items()}
    assert things["prompt"] == {"sky": True, "b": True}
    assert things["semantic"] == things["panoptic"] == {"sky": False, "b": True}
    assert np.array_equal(found["semantic"].mask, found["prompt"].mask)
    assert found["panoptic"].mask.sum(axis=0).max() == 1
    assert any("sky" in note for note in notes_of(ours, like))


def notes_of(model, like) -> list[str]:
    ctx = Context()
    (_,) = model.run([SegmentRequest.of(image=picture(31), like=like, mode="panoptic")], ctx)
    return ctx.notes["notes"]


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_a_session_serves_it_from_a_folder(folder, tmp_path, engine):
    photo = Image.of(EXAMPLES / "cat.jpg")
    like = [example(1, left(), "left"), example(1, right(), "right")]
    with Session(home=tmp_path, engine=engine) as session:
        found = session.run(SegmentRequest.of(image=photo, like=like), model=str(folder))
        again = session.run(SegmentRequest.of(image=photo, like=like), model=str(folder))
    assert found.mask.shape[1:] == (photo.height, photo.width)
    assert set(found.data["class_name"]) <= {"left", "right"}
    assert len(found) > 0
    provenance = found.metadata["provenance"]
    assert (provenance.engine, provenance.cache) == (engine, "miss")
    assert again.metadata["provenance"].cache == "memory"


def test_it_opens_for_training(ours, reference):
    opened = ours.trainable()
    images = [Image.of(picture(seed, (40, 30))) for seed in (1, 2)]
    pixels = opened.preprocess(images)
    found = opened.forward(pixels)
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "image": (2, 32),
        "vector": (2, 32),
        "dense": (2, 4, 4, 32),
    }
    assert torch.allclose(found["image"].norm(dim=-1), torch.ones(2))
    found["dense"].sum().backward()
    assert opened.parts["encoder"].embeddings.patch_embeddings.projection.weight.grad.abs().sum() > 0
    names = [name for name, _ in opened.module.named_modules()]
    assert all(any(name.endswith(target) for name in names) for target in opened.lora_targets)
    prepared = reference[1](images=[one.array for one in images], return_tensors="pt")["pixel_values"]
    assert torch.allclose(pixels, prepared, atol=1e-6)
    expected = opened.module(pixels, pixels, torch.zeros_like(pixels), labels=torch.zeros_like(pixels)).loss
    assert torch.isfinite(expected)


def test_the_probe_runs_the_network(folder, ours):
    right = ours.probe()()
    found = kit.opened(folder, engine="openvino").probe()()
    assert right.shape == (SIDE, SIDE, 3)
    assert np.abs(found - right).max() < 1e-4


# ------------------------------------------------------------------ the published checkpoint

PUBLISHED = "BAAI/seggpt-vit-large"


def test_the_published_checkpoint_has_the_tensors_that_are_needed():
    told = json.loads((Path(__file__).parent / "configs" / f"{PUBLISHED.replace('/', '--')}.json").read_text())
    with torch.device("meta"):
        model = SegGptForImageSegmentation(SegGptConfig(**told))
    found = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    width, cells = 1024, 14 * 14 + 1
    pair = lambda name, *shape: {f"{name}.weight": shape, f"{name}.bias": shape[:1]}  # noqa: E731
    expected = {
        **{
            f"model.embeddings.{name}": (1, 1, 1, width)
            for name in (
                "mask_token",
                "segment_token_input",
                "segment_token_prompt",
                "type_token_semantic",
                "type_token_instance",
            )
        },
        "model.embeddings.position_embeddings": (1, cells, width),
        **pair("model.embeddings.patch_embeddings.projection", width, 3, 16, 16),
        **pair("model.encoder.layernorm", width),
        **pair("decoder.decoder_embed", 16 * 16 * 64, 4 * width),
        **pair("decoder.decoder_pred.conv", 64, 64, 3, 3),
        **pair("decoder.decoder_pred.layernorm", 64),
        **pair("decoder.decoder_pred.head", 3, 64, 1, 1),
    }
    for number in range(24):
        layer = f"model.encoder.layers.{number}"
        expected |= {
            f"{layer}.attention.rel_pos_h": (2 * 56 - 1, 64),
            f"{layer}.attention.rel_pos_w": (2 * 28 - 1, 64),
            **pair(f"{layer}.attention.qkv", 3 * width, width),
            **pair(f"{layer}.attention.proj", width, width),
            **pair(f"{layer}.mlp.lin1", 4 * width, width),
            **pair(f"{layer}.mlp.lin2", width, 4 * width),
            **pair(f"{layer}.layernorm_before", width),
            **pair(f"{layer}.layernorm_after", width),
        }
    assert found == expected
    row = Catalog.load().resolve(PUBLISHED)
    assert row.bytes == pytest.approx(4 * sum(int(np.prod(shape)) for shape in found.values()), rel=0.001)
