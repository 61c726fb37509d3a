import numpy as np
import pytest

from manylens.media import Image
from manylens.models.structure import hed, outlines, pose
from manylens.runtime.context import Context
from manylens.tasks import detections
from manylens.tasks.requests import StructureRequest

HED, LINES, POSE = "manylens/hed", "manylens/outlines", "manylens/movenet"


def square(size=120, low=40, high=200):
    picture = np.full((size, size, 3), low, np.uint8)
    picture[size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = high
    return picture


@pytest.mark.parametrize("values", [(40, 200), (0, 60), (180, 255), (255, 0)])
def test_canny_finds_the_outline_however_bright_the_photo_is(values):
    edges = outlines.canny(square(low=values[0], high=values[1]))
    assert edges.dtype == np.uint8
    assert set(np.unique(edges)) == {0, 255}
    rows, columns = np.nonzero(edges)
    assert np.abs(np.minimum(abs(rows - 29.5), abs(rows - 89.5))[(columns > 35) & (columns < 85)]).max() <= 1.5
    assert len(rows) > 200


@pytest.mark.parametrize(
    ("gray", "middle"), [(np.zeros((4, 4)), 30), (np.full((4, 4), 90), 90), (np.full((4, 4), 255), 170)]
)
def test_thresholds_lie_around_the_median(gray, middle):
    assert outlines.thresholds(gray) == pytest.approx((middle * 2 / 3, middle * 4 / 3))


def test_lines_are_the_sides_of_a_square():
    found = outlines.segments(square())
    sides = found[:4]
    assert np.hypot(sides[:, 2] - sides[:, 0], sides[:, 3] - sides[:, 1]) == pytest.approx([60] * 4, abs=3)
    middles = (sides[:, :2] + sides[:, 2:]) / 2
    assert sorted(map(tuple, middles.round(-1).tolist())) == [(30, 60), (60, 30), (60, 90), (90, 60)]
    drawn = outlines.drawn_lines(square()) > 0
    assert drawn[27:33, 60].any()
    assert drawn[60, 87:93].any()
    assert not drawn[45:75, 45:75].any()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 2), (50, 3)])
@pytest.mark.parametrize("make", [outlines.canny, outlines.drawn_lines])
def test_thin_pictures_have_maps(make, size):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    assert make(picture).shape == size


@pytest.mark.parametrize("size", [(1, 1), (1, 60), (80, 100)])
def test_scribbles_follow_strong_edges_only(size):
    edges = np.zeros(size, np.float32)
    assert not hed.scribble(edges).any()
    if size == (80, 100):
        edges[38:43], edges[10:12] = 1.0, 0.2
        strokes = hed.scribble(edges)
        assert strokes.dtype == np.uint8
        assert (strokes[39:42] == 255).all()
        assert not strokes[:30].any()
        assert not strokes[52:].any()


def test_a_skeleton_has_only_what_is_sure():
    person = np.zeros((1, 17, 3), np.float32)
    person[0, 5], person[0, 6], person[0, 7] = (20, 30, 0.9), (60, 30, 0.9), (20, 60, 0.1)
    drawn = pose.skeletons(person, (80, 90))
    assert drawn.shape == (90, 80, 3)
    assert drawn[30, 40].any()
    assert not drawn[50].any()
    assert not pose.seen(person[0])


@pytest.mark.weights
def test_edges_are_those_that_clicks_rest_on(load, weights, example):
    from manylens.models.regions.features import EdgeEncoder

    image = Image.of(example("coffee.jpg")).resized(480)
    (made,) = load(HED).run([StructureRequest.of(image=image, kind="edges")], Context())
    theirs = EdgeEncoder(weights("manylens/regions-s")["hed_bsds500.weights.h5"])(image.array)
    assert made.map.shape == (image.height, image.width)
    assert made.map.dtype == np.float32
    assert np.abs(made.map - theirs).max() < 1e-3  # kept in half precision


@pytest.mark.weights
@pytest.mark.parametrize("size", [(1, 1), (3, 200), (90, 70)])
def test_edges_have_the_photo_s_size(load, size):
    image = Image.of(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
    for kind, dtype in (("edges", np.float32), ("scribble", np.uint8)):
        (made,) = load(HED).run([StructureRequest.of(image=image, kind=kind)], Context())
        assert made.map.shape == size
        assert made.map.dtype == dtype


@pytest.mark.weights
def test_a_pose_lies_on_its_person_wherever_they_stand(load, example):
    image = Image.of(example("photographer.jpg"))
    wide = np.zeros((image.height + 60, 2 * image.width, 3), np.uint8)
    wide[60:, image.width :] = image.array
    box = (60.0, 50.0, 320.0, 480.0)
    poses = []
    for picture, shift in ((image, (0, 0)), (Image.of(wide), (image.width, 60))):
        moved = [box[0] + shift[0], box[1] + shift[1], box[2] + shift[0], box[3] + shift[1]]
        ctx = Context(call=lambda task, request, moved=moved: detections([moved], [0.9], names=["person"]))
        (made,) = load(POSE).run([StructureRequest.of(image=picture, kind="pose")], ctx)
        assert made.keypoints.shape == (1, 17, 3)
        assert made.map.shape == (picture.height, picture.width, 3)
        poses.append(made.keypoints[0] - [*shift, 0])
    sure = (poses[0][:, 2] > 0.4) & (poses[1][:, 2] > 0.4)
    assert sure.sum() >= 8
    assert np.abs(poses[0] - poses[1])[sure, :2].mean() < 12
    nose, hips = poses[0][0], poses[0][11:13].mean(0)
    assert nose[1] < hips[1]
    assert 190 < nose[0] < 290
    assert 90 < nose[1] < 190


@pytest.mark.weights
def test_a_picture_without_people_says_so(load):
    ctx = Context(call=lambda task, request: detections([], []))
    image = Image.of(square())
    (made,) = load(POSE).run([StructureRequest.of(image=image, kind="pose")], ctx)
    assert made.keypoints.shape == (0, 17, 3)
    assert not made.map.any()
    assert ctx.notes["notes"] == ["no person was found in array"]
