"""The embedded tracker: its parts, the whole with an encoder of plain colours, and with the real one on short clips."""

import numpy as np
import PIL.Image
import pytest
from tests.models import clips

from manylens.catalog import Catalog
from manylens.errors import CancelledError, MediaError, PromptError
from manylens.evaluation.measures.boundaries import outline_agreement, region_overlap
from manylens.media import Video, from_rle
from manylens.models.follow import Follow
from manylens.models.follow.memory import RECENT, Memory, Seen
from manylens.models.follow.model import backwards
from manylens.models.follow.outline import refined
from manylens.models.follow.views import LEAST, View
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.tasks import Provenance, TrackRequest, detections, with_provenance

FOLLOW = "manylens/follow-s"
SIZE = (160, 120)
RED, GREEN, BLUE = (200, 40, 40), (40, 180, 60), (40, 60, 200)


def colours(rgb, side=8):
    """A stand-in for the encoder: the mean colour of each patch, as a direction around gray."""
    import cv2

    grid = (max(1, rgb.shape[1] // side), max(1, rgb.shape[0] // side))
    small = cv2.resize(rgb, grid, interpolation=cv2.INTER_AREA).reshape(grid[1], grid[0], 3).astype(np.float32)
    return np.concatenate([small - 100, np.full((*small.shape[:2], 1), 20, np.float32)], axis=2)


@pytest.fixture
def model():
    made = Follow(Catalog.load()[FOLLOW], {}, EngineSettings())
    made._encoders = (colours, colours)
    return made


def box(x, y, width=32, height=28, size=SIZE):
    mask = np.zeros(size[::-1], bool)
    mask[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)] = True
    return mask


def scene(*things, size=SIZE, seed=0):
    """Coloured masks, from back to front, over gray noise."""
    rgb = np.random.default_rng(seed).integers(90, 110, (size[1], size[0], 3)).astype(np.uint8)
    for colour, mask in things:
        rgb[mask] = colour
    return rgb


def track(model, frames, ctx=None, **fields):
    (made,) = model.run([TrackRequest.of(video=frames, **fields)], ctx or Context())
    return made


def overlap(tracks, truth, id=1):
    """Intersection over union of an object in each frame with its true masks; None stands for out of sight."""
    found = []
    for frame, mask in zip(tracks.frames, truth, strict=True):
        seen = [from_rle(one.mask) for one in frame.objects if one.tracker_id == id]
        found.append((not seen) if mask is None else bool(seen) and region_overlap(seen[0], mask))
    return np.array(found, float)


# ---------------------------------------------------------------------- parts


@pytest.mark.parametrize("middle", [(0, 0), (50, 40), (99, 79), (-30, 200)])
@pytest.mark.parametrize("side", [1, 30, 300])
def test_a_view_lies_inside_the_frame(middle, side):
    x0, y0, x1, y1 = View(*middle, side, side).inside((100, 80))
    assert 0 <= x0 < x1 <= 100
    assert 0 <= y0 < y1 <= 80
    assert (x1 - x0, y1 - y0) == (min(side, 100), min(side, 80))


def test_places_are_those_of_the_thing_wherever_it_is():
    views = [View(50, 40, 20, 20), View(70, 60, 20, 20)]
    places = [view.places(view.inside((100, 80)), (4, 4)) for view in views]
    assert np.allclose(places[0], places[1])
    assert np.abs(places[0]).max() == pytest.approx(0.375)
    cut = View(0, 40, 20, 20)  # half of it is outside: it was moved inwards, and its places say so
    assert cut.places(cut.inside((100, 80)), (4, 4))[:, 0].min() > 0


def test_a_view_has_room_and_is_never_a_line():
    view = View.around(box(20, 10, 3, 60), room=2)
    assert (view.x, view.y, view.height) == (21.5, 40, 120)
    assert view.width >= LEAST


def test_labels_come_from_the_patches_most_alike_and_near():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 64))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    places = rng.uniform(-0.5, 0.5, (40, 2)).astype(np.float32)
    labels = (np.arange(40) < 20).astype(np.float32)
    memory = Memory(Seen(features, places, labels))
    assert np.array_equal(memory.labels(features, places, None) > 0.5, labels > 0.5)
    order = rng.permutation(40)
    assert np.array_equal(memory.labels(features[order], places[order], 0.1) > 0.5, labels[order] > 0.5)
    assert memory.margin(features[:20]) > 0.2 > 0 > memory.margin(features[20:])
    assert memory.margin(features[:0]) == -1
    for _ in range(20):
        memory.recent.append(Seen(features[20:], places[20:], np.ones(20, np.float32)))
    assert len(memory.recent) == RECENT
    assert (memory.labels(features, places, None) > 0.5).all()  # how it looks now counts as well


def test_colours_find_the_outline_that_patches_do_not_know():
    mask = box(53, 37, 45, 51)
    rgb = scene((RED, mask))
    shares = np.zeros((8, 10), np.float32)
    shares[3:5, 4:6] = 1  # a coarse guess
    shares[2:6, 3:7] = np.maximum(shares[2:6, 3:7], 0.6)
    assert region_overlap(refined(rgb, shares) > 0.5, mask) > 0.95
    assert np.array_equal(refined(rgb, shares), refined(rgb, shares))


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (60, 2)])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_an_outline_without_room_is_what_the_patches_say(size, share):
    soft = refined(np.zeros((*size, 3), np.uint8), np.full((1, 1), share, np.float32))
    assert soft.shape == size
    assert np.allclose(soft, share, atol=1e-5)


@pytest.mark.parametrize("stop", [0, 1, 16, 37])
def test_backwards_gives_every_frame_once_with_few_in_memory(stop):
    video = Video.of([np.full((2, 2, 3), n, np.uint8) for n in range(40)])
    found = list(backwards(video, stop))
    assert [index for index, _ in found] == list(range(stop))[::-1]
    assert [int(image.array[0, 0, 0]) for _, image in found] == list(range(stop))[::-1]


# ---------------------------------------------------------------------- the whole


def moving(count=10, step=7):
    truth = [box(8 + step * t, 40 + t) for t in range(count)]
    return [scene((RED, mask), seed=t) for t, mask in enumerate(truth)], truth


@pytest.mark.parametrize("start", [0, 4, 9])
def test_a_thing_is_followed_both_ways(model, start):
    frames, truth = moving()
    made = track(model, frames, mask=truth[start], frame=start)
    assert [frame.index for frame in made.frames] == list(range(10))
    assert (made.width, made.height, made.fps) == (*SIZE, None)
    assert overlap(made, truth).min() > 0.9
    assert made.frames[start].objects[0].score == 1
    assert made.ids == (1,)


def test_a_thing_that_hides_is_left_out_and_found_again(model):
    wall = box(70, 0, 40, 120)
    truth = [box(4 + 9 * t, 40, 24, 24) & ~wall for t in range(15)]
    frames = [scene((RED, box(4 + 9 * t, 40, 24, 24)), (BLUE, wall), seed=t) for t in range(15)]
    made = track(model, frames, mask=truth[0])
    hidden = [t for t, mask in enumerate(truth) if not mask.any()]
    assert hidden
    found = overlap(made, [mask if mask.any() else None for mask in truth])
    assert found[hidden].all()
    assert (found > 0.8).mean() > 0.85
    assert found[-1] > 0.9


def test_a_thing_that_leaves_comes_back_elsewhere(model):
    truth = [box(100 + 20 * t, 60) if t < 4 else None if t < 7 else box(10, 10 + 4 * t) for t in range(11)]
    truth = [None if mask is None or not mask.any() else mask for mask in truth]
    frames = [scene(*([] if mask is None else [(RED, mask)]), seed=t) for t, mask in enumerate(truth)]
    found = overlap(track(model, frames, mask=truth[0]), truth)
    assert found[4:7].all()
    assert found[-2:].min() > 0.9


def test_another_thing_in_its_place_is_not_taken_for_it(model):
    frames, truth = moving(6)
    purple = (135, 40, 150)  # more like red than like gray, and yet not red
    frames[3:5] = [scene((purple, mask), seed=9) for mask in truth[3:5]]
    found = overlap(track(model, frames, mask=truth[0]), [*truth[:3], None, None, truth[5]])
    assert found.min() > 0.9


def test_two_things_keep_their_numbers(model):
    red = [box(10 + 8 * t, 20) for t in range(8)]
    green = [box(100 - 8 * t, 66) for t in range(8)]
    frames = [scene((RED, a), (GREEN, b), seed=t) for t, (a, b) in enumerate(zip(red, green, strict=True))]
    made = track(model, frames, objects=[{"mask": red[0]}, {"mask": green[0]}])
    assert made.ids == (1, 2)
    assert overlap(made, red, 1).min() > 0.9
    assert overlap(made, green, 2).min() > 0.9
    for frame in made.frames:
        masks = [from_rle(one.mask) for one in frame.objects]
        assert not (masks[0] & masks[1]).any()


def test_clicks_boxes_and_words_become_masks_by_segment(model):
    frames, truth = moving(3)
    asked = []

    def call(task, request):
        asked.append((task, request.prompted()))
        names = ["cup"] if request.text else None
        return detections([[8, 40, 40, 68]], [0.8], masks=truth[0][None], names=names)

    for fields, kinds in (
        ({"points": [(20, 50)]}, {"points"}),
        ({"box": (8, 40, 40, 68)}, {"box"}),
        ({"text": "cup"}, {"text"}),
        ({"mask": truth[0], "points": [(20, 50)]}, {"points", "mask"}),
    ):
        made = track(model, frames, Context(call=call), **fields)
        assert overlap(made, truth).min() > 0.9
        assert asked[-1] == ("segment", frozenset(kinds))
        assert {one.name for frame in made.frames for one in frame.objects} == {"cup" if "text" in fields else ""}
    before = len(asked)
    track(model, frames, Context(call=call), mask=truth[0])  # taken as it is
    assert len(asked) == before


def test_what_was_asked_for_and_is_not_there_is_said(model):
    frames, truth = moving(2)

    def call(task, request):
        if request.text is None and request.prompts()[0].box == (100, 0, 110, 9):
            return nothing(task, request)
        cup = detections([[8, 40, 40, 68]], [0.8], masks=truth[0][None], names=["cup"])
        return with_provenance(cup, Provenance(task=task, model="words", notes=("no 'cat' was found in frame",)))

    ctx = Context(call=call)
    track(model, frames, ctx, text="cat, cup")
    assert ctx.notes["notes"] == ["no 'cat' was found in frame"]
    ctx = Context(call=call)
    made = track(model, frames, ctx, objects=[{"box": (100, 0, 110, 9)}, {"box": (8, 40, 40, 68)}])
    assert made.ids == (1,)
    assert ctx.notes["notes"] == ["object 1 was not found in frame 0; later ones move up by a number"]


def test_a_single_frame_is_a_video(model):
    frames, truth = moving(1)
    assert overlap(track(model, frames, mask=truth[0]), truth).tolist() == [1]


def test_progress_is_told_and_work_can_be_stopped(model):
    frames, truth = moving(4)
    told = []
    track(model, frames, Context(progress=lambda done, line: told.append(done)), mask=truth[1], frame=1)
    assert told == pytest.approx([1 / 3, 2 / 3, 1])
    ctx = Context()
    ctx.cancel.set()
    with pytest.raises(CancelledError):
        track(model, frames, ctx, mask=truth[0])


def nothing(task, request):
    return detections([], [], masks=np.zeros((0, *SIZE[::-1]), bool))


@pytest.mark.parametrize(
    ("change", "fields", "error", "words"),
    [
        (lambda f: [], {}, MediaError, "frames: has no frames"),
        (lambda f: [*f, f[0][:50]], {}, MediaError, "frame 3 is 160 x 50, the first 160 x 120"),
        (lambda f: f, {"frame": 3}, PromptError, "has no frame 3; give a frame from 0 to 2"),
        (lambda f: f, {"mask": np.zeros(SIZE[::-1], bool)}, PromptError, "is empty"),
        (lambda f: f, {"mask": np.ones((4, 4), bool)}, PromptError, "4x4 pixels but the picture is 160x120"),
        (lambda f: f, {"mask": None}, PromptError, "no prompt"),
        (lambda f: f, {"mask": None, "text": "unicorn"}, PromptError, "nothing to follow was found in frame 0"),
    ],
)
def test_bad_input_is_one_line(model, change, fields, error, words):
    frames, truth = moving(3)
    with pytest.raises(error, match=words) as caught:
        track(model, change(frames), Context(call=nothing), **({"mask": truth[0]} | fields))
    assert "\n" not in str(caught.value)


def test_a_video_cut_in_the_middle_is_one_line(model, tmp_path):
    frames, truth = moving(4)
    for number, frame in enumerate(frames):
        PIL.Image.fromarray(frame).save(tmp_path / f"{number}.png")
    whole = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MediaError, match=r"2\.png"):
        track(model, tmp_path, mask=truth[0])


# ---------------------------------------------------------------------- the real encoder

SHORT = {"moves and grows": 0.9, "passes behind": 0.75, "leaves and returns": 0.75}


@pytest.mark.weights
@pytest.mark.parametrize("script", [one for one in clips.SCRIPTS if one.name in SHORT], ids=lambda one: one.name)
def test_cut_outs_are_followed_over_photographs(load, script):
    clip = clips.made(script)
    at = range(0, len(clip.frames), 3)
    frames, truth = [clip.frames[i] for i in at], [clip.masks[i][0] for i in at]
    made = track(load(FOLLOW, precision="bf16"), frames, mask=truth[0])
    found = {frame.index: from_rle(one.mask) for frame in made.frames for one in frame.objects}
    empty = np.zeros_like(truth[0])
    judged = [
        (region_overlap(found.get(i, empty), mask) + outline_agreement(found.get(i, empty), mask)) / 2
        for i, mask in enumerate(truth)
    ][1:]
    assert np.mean(judged) > SHORT[script.name]
    assert judged[-1] > 0.9
