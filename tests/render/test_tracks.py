"""Tracks as words and as files."""

import importlib.util
import json

import numpy as np
import PIL.Image
import pytest

from manylens.media import Image, Mask, Video, from_rle, to_rle
from manylens.render import draw, say, tracks, write_result
from manylens.tasks.results import Frame, Picture, Provenance, StructureMap, Tracked, Tracks

SIZE = (61, 43)


def mask(x, width=12):
    made = np.zeros(SIZE[::-1], bool)
    made[10:30, x : x + width] = True
    return made


def tracked(id, x, name="", score=0.75):
    return Tracked(id, (float(x), 10.0, float(x + 12), 30.0), score, dict(to_rle(mask(x))), name)


@pytest.fixture
def video():
    rng = np.random.default_rng(0)
    return Video.of([rng.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8) for _ in range(5)], fps=10)


@pytest.fixture
def made():
    seen = [[tracked(1, 4 + 3 * t, "cat"), tracked(2, 40)] if t != 2 else [tracked(2, 40)] for t in range(5)]
    return Tracks(
        frames=tuple(Frame(t, tuple(objects)) for t, objects in enumerate(seen)), width=SIZE[0], height=SIZE[1], fps=10
    )


def test_tracks_are_said(made):
    assert say(made).splitlines() == [
        "5 frames of 61x43 pixels",
        "   0.75  1 cat          in 4 frames: 0-1, 3-4",
        "   0.75  2 object       in 5 frames: 0-4",
    ]
    assert say(Tracks(frames=(Frame(0),), width=4, height=3)) == "1 frame of 4x3 pixels; nothing followed"


def test_tracks_are_written(made, video, tmp_path):
    files = write_result(made, None, tmp_path, "clip-track", video)
    assert [file.name for file in files] == ["clip-track.png", "clip-track.mp4", "clip-track-masks", "clip-track.json"]
    film = Video.of(files[1])
    assert (film.count, film.fps) == (5, 10)
    assert film.width >= SIZE[0]
    for t, frame in enumerate(made.frames):
        picture = PIL.Image.open(files[2] / f"{t:05d}.png")
        assert picture.mode == "P"
        labels = np.asarray(picture)
        assert {one.tracker_id: int((labels == one.tracker_id).sum()) for one in frame.objects} == {
            one.tracker_id: 240 for one in frame.objects
        }
        assert (Mask.of(files[2] / f"{t:05d}.png") == (labels > 0)).all()
    body = json.loads(files[3].read_text())
    assert body["type"] == "tracks"
    assert from_rle(body["frames"][0]["objects"][0]["mask"]).sum() == 240
    again = write_result(Tracks(frames=made.frames[:2], width=61, height=43), None, tmp_path, "clip-track", video)
    assert sorted(path.name for path in again[2].iterdir()) == ["00000.png", "00001.png"]


def test_without_pyav_the_film_is_a_webp(made, video, tmp_path, monkeypatch):
    monkeypatch.setattr(tracks, "find_spec", lambda name: None if name == "av" else importlib.util.find_spec(name))
    film = write_result(made, None, tmp_path, "clip", video)[1]
    assert film.name == "clip.webp"
    assert PIL.Image.open(film).n_frames == 5


def test_an_object_has_one_colour_and_its_number_in_all_frames(made):
    plain = Image.of(np.full((480, 640, 3), 128, np.uint8))
    big = [Tracked(2, (100.0, 100.0, 300.0, 300.0), 0.5, dict(to_rle(_block())))]
    alone = tracks.drawn(Frame(0, tuple(big)), plain, 640)
    other = Tracked(1, (400.0, 100.0, 600.0, 300.0), 0.9, dict(to_rle(_block(400))))
    both = tracks.drawn(Frame(0, (*big, other)), plain, 640)
    assert np.array_equal(alone[200, 200], both[200, 200])
    assert not np.array_equal(both[200, 200], both[200, 500])
    assert np.array_equal(tracks.drawn(Frame(0), plain, 640), plain.array)


def test_labels_and_thin_masks_of_a_large_video_stay_readable():
    plain = Image.of(np.full((1080, 1920, 3), 128, np.uint8))
    large, thin = np.zeros((2, 1080, 1920), bool)
    large[300:900, 200:800] = thin[200:1000, 1500:1502] = True
    seen = [
        Tracked(1, (200.0, 300.0, 800.0, 900.0), 0.5, dict(to_rle(large)), "cat"),
        Tracked(2, (1500.0, 200.0, 1502.0, 1000.0), 0.5, dict(to_rle(thin))),
    ]
    scene = tracks.drawn(Frame(0, tuple(seen)), plain, 360)
    assert scene.shape == (202, 360, 3)
    painted = (scene != 128).any(axis=2)
    assert painted[60:165, 42:146].all()  # the mask, where it was
    assert painted[50:180, 279:284].any(axis=1).all()  # the thin one, all along
    label = np.flatnonzero((scene[:56, 36:120] == scene[57, 40]).all(axis=2).any(axis=1))
    assert np.ptp(label) >= 12  # a label's height does not shrink with the frame


def _block(x=100):
    block = np.zeros((480, 640), bool)
    block[100:300, x : x + 200] = True
    return block


def test_the_palette_is_that_of_davis():
    colours = np.array(tracks.palette()).reshape(-1, 3)
    assert colours[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert colours[255].tolist() == [224, 224, 192]


# ---------------------------------------------------------------------- structure and made pictures


@pytest.mark.parametrize(
    ("values", "middle"),
    [
        (np.full((4, 5), 0.5, np.float32), [128] * 3),
        (np.full((4, 5), 255, np.uint8), [255] * 3),
        (np.tile(np.array([1, 2, 3], np.uint8), (4, 5, 1)), [1, 2, 3]),
    ],
)
def test_a_structure_is_drawn_as_it_is(values, middle):
    shown = draw(Image.of(np.zeros((4, 5, 3), np.uint8)), StructureMap("edges", values))
    assert shown.dtype == np.uint8
    assert shown[2, 2].tolist() == middle


def test_keypoints_are_kept_beside_the_map(tmp_path):
    pose = StructureMap("pose", np.zeros((4, 5, 3), np.uint8), np.ones((2, 17, 3), np.float32))
    assert say(pose) == "2 people, pose map, 5x4 pixels"
    files = write_result(pose, Image.of(np.zeros((4, 5, 3), np.uint8)), tmp_path, "x")
    kept = np.load(next(file for file in files if file.suffix == ".npz"))
    assert kept["keypoints"].shape == (2, 17, 3)


def test_an_enlarged_picture_says_how_it_was_made(tmp_path):
    from manylens.media import made_by

    picture = Picture(
        Image.of(np.zeros((8, 8, 3), np.uint8)),
        provenance=Provenance("upscale", "manylens/realesrgan-x4", prompt={"scale": 4}),
    )
    (file, _) = write_result(picture, Image.of(np.zeros((2, 2, 3), np.uint8)), tmp_path, "x")
    made = made_by(file)
    assert (made["model"], made["prompt"]) == ("manylens/realesrgan-x4", {"scale": 4})
