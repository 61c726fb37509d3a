"""The training-free segmenter on made pictures: shapes of known colour, with features and edges made from the truth."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest

from manylens.models.regions.solver import Candidate, Scene, encode_scene, solve

HEIGHT, WIDTH = 120, 160
DISC = (50, 60, 28)  # x, y, radius
SQUARE = (100, 35, 140, 85)


def _regions() -> np.ndarray:
    """0 background, 1 disc, 2 square, 3 a spot inside the disc."""
    regions = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.circle(regions, DISC[:2], DISC[2], 1, -1)
    x0, y0, x1, y1 = SQUARE
    regions[y0:y1, x0:x1] = 2
    cv2.circle(regions, (56, 60), 9, 3, -1)
    return regions


def _encode(regions: np.ndarray, grid: tuple[int, int] = (17, 23)) -> Scene:
    rng = np.random.default_rng(0)
    rgb = np.array([[90, 140, 90], [200, 60, 50], [60, 60, 200], [220, 190, 60]], np.uint8)[regions]
    tone = rng.normal(size=(4, 24)).astype(np.float32)
    tone[3] = tone[1] + 0.5 * tone[3]  # the spot belongs to the disc
    shares = [cv2.resize((regions == k).astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA) for k in range(4)]
    patches = np.stack(shares, axis=-1) @ tone + 0.05 * rng.normal(size=(*grid, 24)).astype(np.float32)
    strength = np.zeros(regions.shape, np.float32)
    for here, there in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        differs = regions[here] != regions[there]
        inner = (np.minimum(regions[here], regions[there]) == 1) & (np.maximum(regions[here], regions[there]) == 3)
        strength[here] = np.maximum(strength[here], np.where(differs, np.where(inner, 0.4, 0.95), 0))
    edges = np.clip(cv2.GaussianBlur(strength, (0, 0), 1.0) * 2, 0, 1)
    saliency = np.array([0.2, 0.7, 0.5, 0.9], np.float32)[regions]
    return encode_scene(rgb, patches, edges, saliency)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return _encode(_regions())


def _truth(*values: int) -> np.ndarray:
    return np.isin(_regions(), values)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def _check(found: list[Candidate], shape: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    """What holds for every answer."""
    assert 1 <= len(found) <= 3
    scores = [c.score for c in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= s <= 1 for s in scores)
    for c in found:
        assert c.mask.dtype == bool
        assert c.mask.shape == shape
        assert c.mask.any()
    by_size = sorted(found, key=lambda c: -int(c.mask.sum()))
    assert [c.level for c in by_size] == ["whole", "part", "subpart"][: len(found)]


@pytest.mark.parametrize(
    ("prompt", "truth", "least"),
    [
        pytest.param({"points": [(120, 60)], "labels": [1]}, (2,), 0.9, id="click-on-the-square"),
        pytest.param({"points": [(10, 110)], "labels": [1]}, (0,), 0.9, id="click-on-the-background"),
        pytest.param({"box": (22, 32, 79, 89)}, (1, 3), 0.9, id="box-around-the-disc"),
        pytest.param({"box": SQUARE}, (2,), 0.9, id="box-around-the-square"),
        pytest.param(
            {"points": [(35, 60), (120, 60)], "labels": [1, 1]}, (1, 2, 3), 0.8, id="clicks-on-two-things-join-them"
        ),
        pytest.param({"points": [(35, 60), (56, 60)], "labels": [1, 1]}, (1, 3), 0.9, id="disc-and-its-spot"),
        pytest.param({"points": [(35, 60), (56, 60)], "labels": [1, 0]}, (1,), 0.85, id="disc-without-its-spot"),
        pytest.param({"box": (22, 32, 79, 89), "points": [(56, 60)], "labels": [0]}, (1,), 0.85, id="box-without-spot"),
        pytest.param(
            {"box": (22, 32, 141, 89), "points": [(120, 60)], "labels": [0]}, (1, 3), 0.8, id="wide-box-without-square"
        ),
    ],
)
def test_prompts_find_what_they_mean(scene: Scene, prompt: dict, truth: tuple[int, ...], least: float) -> None:
    found = solve(scene, **prompt)
    _check(found)
    assert _iou(found[0].mask, _truth(*truth)) >= least


def test_the_answers_to_a_click_cover_part_and_whole(scene: Scene) -> None:
    found = solve(scene, points=[(56, 60)], labels=[1])
    _check(found)
    assert max(_iou(c.mask, _truth(3)) for c in found) > 0.75
    assert max(_iou(c.mask, _truth(1, 3)) for c in found) > 0.9


def test_a_coarse_mask_is_made_better(scene: Scene) -> None:
    coarse = np.zeros((HEIGHT, WIDTH), bool)
    coarse[30:80, 94:136] = True
    found = solve(scene, mask=coarse)
    _check(found)
    assert _iou(coarse, _truth(2)) < 0.75
    assert _iou(found[0].mask, _truth(2)) > 0.9


def test_a_mask_and_a_background_click(scene: Scene) -> None:
    both = _truth(1, 2, 3)
    found = solve(scene, mask=both, points=[(120, 60)], labels=[0])
    _check(found)
    assert _iou(found[0].mask, _truth(1, 3)) > 0.85


def test_only_background_clicks_leave_the_rest(scene: Scene) -> None:
    found = solve(scene, points=[(120, 60)], labels=[0])
    _check(found)
    assert all(not c.mask[60, 120] for c in found)
    assert found[0].mask[60, 50]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("with_box", [False, True])
def test_every_mask_obeys_every_click(scene: Scene, seed: int, with_box: bool) -> None:
    rng = np.random.default_rng(seed)
    spots = rng.permutation(HEIGHT * WIDTH)[:6]
    points = [(int(p % WIDTH), int(p // WIDTH)) for p in spots]
    labels = [1, 0, *rng.integers(0, 2, 4).tolist()]
    found = solve(scene, points=points, labels=labels, box=(20, 20, 100, 100) if with_box else None)
    _check(found)
    for c in found:
        assert [bool(c.mask[y, x]) for x, y in points] == [bool(v) for v in labels]


def test_clicks_of_both_kinds_inside_one_superpixel(scene: Scene) -> None:
    points, labels = [(120, 60), (122, 60), (120, 62)], [1, 0, 0]
    for c in solve(scene, points=points, labels=labels):
        assert [bool(c.mask[y, x]) for x, y in points] == [True, False, False]


def test_a_background_click_changes_more_than_a_dot(scene: Scene) -> None:
    before = solve(scene, points=[(35, 60), (120, 60)], labels=[1, 1])[0].mask
    after = solve(scene, points=[(35, 60), (120, 60)], labels=[1, 0])[0].mask
    assert (before & ~after)[_truth(2)].mean() > 0.9


def test_contours_have_no_specks(scene: Scene) -> None:
    for c in solve(scene, points=[(120, 60)], labels=[1]):
        count, _, stats, _ = cv2.connectedComponentsWithStats(c.mask.astype(np.uint8))
        assert stats[1:count, cv2.CC_STAT_AREA].min() > 10


def test_the_same_prompt_gives_the_same_answer() -> None:
    first, second = (solve(_encode(_regions()), points=[(50, 40)], labels=[1]) for _ in range(2))
    assert [c.score for c in first] == [c.score for c in second]
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(first, second, strict=True))


def test_a_scene_survives_the_disk(scene: Scene) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **scene.to_arrays())
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as file:
        again = Scene.from_arrays(dict(file))
    assert isinstance(again.height, int)
    assert again.to_arrays().keys() == scene.to_arrays().keys()
    for prompt in ({"points": [(50, 40)], "labels": [1]}, {"box": SQUARE}):
        for a, b in zip(solve(scene, **prompt), solve(again, **prompt), strict=True):
            assert a.score == b.score
            assert np.array_equal(a.mask, b.mask)


def test_a_scene_of_a_usual_picture_is_small() -> None:
    scene = _encode(cv2.resize(_regions(), (640, 480), interpolation=cv2.INTER_NEAREST), (28, 37))
    assert sum(a.nbytes for a in scene.to_arrays().values()) < 4e6
    found = solve(scene, points=[(480, 240)], labels=[1])
    _check(found, (480, 640))
    assert found[0].mask[240, 480]


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 5), (5, 1), (5, 5), (2, 300), (300, 2), (3, 20_000), (40, 6_000), (1500, 1100)]
)
def test_tiny_and_extreme_pictures(height: int, width: int) -> None:
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[:, width // 2 :] = 255
    edges = np.zeros((max(1, height // 2), max(1, width // 2)), np.float32)
    edges[:, edges.shape[1] // 2] = 0.9
    patches = np.zeros((1 + (height > 100), 1 + (width > 100), 8), np.float32)
    patches[:, -1] = 1
    scene = encode_scene(rgb, patches, edges, edges)
    for prompt in (
        {"points": [(width - 1, height - 1)], "labels": [1]},
        {"points": [(0, 0)], "labels": [0]},
        {"points": [(0, 0), (width - 1, height - 1)], "labels": [0, 1]},
        {"box": (0, 0, width, height)},
        {"box": (width - 1, height - 1, width, height)},
        {"mask": np.ones((height, width), bool)},
    ):
        found = solve(scene, **prompt)
        assert 1 <= len(found) <= 3
        for c in found:
            assert c.mask.shape == (height, width)
            if (height, width) != (1, 1):  # one pixel cannot be both
                for (x, y), label in zip(prompt.get("points", []), prompt.get("labels", []), strict=True):
                    assert bool(c.mask[y, x]) == bool(label)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({}, "prompt is needed"),
        ({"points": [(1, 1)], "labels": []}, "1 points but 0 labels"),
    ],
)
def test_bad_prompts_are_refused(scene: Scene, prompt: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve(scene, **prompt)


def test_points_and_boxes_outside_the_picture_are_clipped(scene: Scene) -> None:
    _check(solve(scene, points=[(WIDTH + 50, -3)], labels=[1]))
    _check(solve(scene, box=(-20, -20, WIDTH + 20, HEIGHT + 20)))
    _check(solve(scene, mask=np.ones((HEIGHT, WIDTH), bool), box=(90, 30, 150, 90)))
