import numpy as np
import pytest
import skimage.metrics

from manylens.audit.corruptions import SEVERITIES, named, table
from manylens.errors import UserError
from manylens.media import Image
from tests.models.conftest import EXAMPLES

CAT = np.asarray(Image.of(EXAMPLES / "cat.jpg").array)[::2, ::2].copy()
NAMES = list(table())
STANDARD = [one.name for one in named(["standard"])]


def test_the_standard_ones_are_the_fifteen_of_the_benchmark() -> None:
    assert len(STANDARD) == 15
    groups = {name: table()[name].group for name in STANDARD}
    assert sorted(groups.values()) == ["blur"] * 4 + ["digital"] * 4 + ["noise"] * 3 + ["weather"] * 4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(40, 60), (61, 33), (8, 8), (1, 5)])
def test_a_corrupted_picture_is_a_picture_of_the_same_size(name: str, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    before = pixels.copy()
    for severity in SEVERITIES:
        made = table()[name].apply(pixels, severity, seed=1)
        assert (made.shape, made.dtype) == (pixels.shape, np.uint8)
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_picture(name: str) -> None:
    one = table()[name]
    assert np.array_equal(one.apply(CAT, 3, 5), one.apply(CAT, 3, 5))


RANDOM = ["gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "snow", "frost", "fog"]


@pytest.mark.parametrize("name", [*RANDOM, "elastic_transform"])
def test_another_seed_gives_another_picture(name: str) -> None:
    one = table()[name]
    assert not np.array_equal(one.apply(CAT, 3, 5), one.apply(CAT, 3, 6))


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    return float(skimage.metrics.structural_similarity(one, other, channel_axis=2))


# The benchmark's own severities are not monotonous for these: flakes grow as they get fewer, warps get finer.
UNEVEN = {"snow", "elastic_transform", "glass_blur", "frost", "motion_blur", "zoom_blur", "pixelate"}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in UNEVEN])
def test_each_severity_is_worse_than_the_one_before(name: str) -> None:
    found = [likeness(CAT, table()[name].apply(CAT, severity, 0)) for severity in SEVERITIES]
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.9


@pytest.mark.parametrize("name", sorted(UNEVEN - {"elastic_transform"}))  # that one is five different warps
def test_the_worst_severity_is_worse_than_the_mildest(name: str) -> None:
    mild, worst = (likeness(CAT, table()[name].apply(CAT, severity, 0)) for severity in (1, 5))
    assert worst < mild < 0.99


@pytest.mark.parametrize(
    ("name", "severity", "deviation"),
    [("gaussian_noise", 1, 0.08), ("gaussian_noise", 3, 0.18), ("shot_noise", 2, 0.1414)],
)
def test_noise_is_as_strong_as_the_benchmark_says(name: str, severity: int, deviation: float) -> None:
    gray = np.full((200, 200, 3), 127, np.uint8)
    noise = table()[name].apply(gray, severity, 0) / 255.0 - 127 / 255
    assert noise.std() == pytest.approx(deviation, rel=0.03)
    assert abs(noise.mean()) < 0.005


def test_impulse_noise_hits_its_share_of_values() -> None:
    gray = np.full((200, 200, 3), 127, np.uint8)
    hit = table()["impulse_noise"].apply(gray, 4, 0)
    assert (hit != 127).mean() == pytest.approx(0.17, abs=0.01)
    assert set(np.unique(hit)) == {0, 127, 255}


def test_brightness_and_contrast_on_gray() -> None:
    gray = np.full((4, 4, 3), 100, np.uint8)
    assert table()["brightness"].apply(gray, 2)[0, 0, 0] == pytest.approx(100 + 0.2 * 255, abs=1)
    halves = np.zeros((4, 4, 3), np.uint8)
    halves[:2] = 200
    flat = table()["contrast"].apply(halves, 1)  # 40 % of the distance to the mean, which is 100
    assert (flat[0, 0, 0], flat[3, 0, 0]) == (140, 60)


@pytest.mark.parametrize("name", [one.name for one in table().values() if one.moves])
def test_a_mask_moves_with_what_it_shows(name: str) -> None:
    mask = np.zeros((120, 160), dtype=bool)
    mask[30:80, 50:110] = True
    shown = np.where(mask[..., None], 255, 0).repeat(3, 2).astype(np.uint8)
    for severity in SEVERITIES:
        moved = table()[name].move(mask, severity, 9)
        drawn = table()[name].apply(shown, severity, 9)[..., 0] > 127
        inside = np.zeros_like(mask)
        inside[12:-12, 12:-12] = True  # at the border the picture is mirrored, the mask is not
        union = ((moved | drawn) & inside).sum()
        assert (moved & drawn & inside).sum() / union > 0.97


@pytest.mark.parametrize("name", [one.name for one in table().values() if not one.moves])
def test_a_mask_stays_where_nothing_moves(name: str) -> None:
    mask = np.random.default_rng(0).random((20, 20)) < 0.5
    assert np.array_equal(table()[name].move(mask, 5, 0), mask)


def test_a_turn_goes_about_the_centre() -> None:
    mask = np.zeros((101, 101), dtype=bool)
    mask[48:53, 90:95] = True  # right of the centre
    moved = table()["rotation"].move(mask, 5)  # 45 degrees
    rows, columns = np.nonzero(moved)
    assert np.hypot(rows.mean() - 50, columns.mean() - 50) == pytest.approx(42, abs=1)
    assert abs(abs(rows.mean() - 50) - (columns.mean() - 50)) < 1


@pytest.mark.parametrize(
    ("names", "count"),
    [([], 15), (["noise"], 3), (["noise", "fog"], 4), (["extra"], 3), (["all"], 18), (["fog", "fog"], 1)],
)
def test_names_and_groups(names: list[str], count: int) -> None:
    assert len(named(names)) == count


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(UserError, match="rain: no corruption of that name; choose of: standard, all, noise"):
        named(["rain"])


@pytest.mark.parametrize("severity", [0, 6, -1])
def test_severities_go_from_one_to_five(severity: int) -> None:
    with pytest.raises(UserError, match=f"severity {severity}"):
        table()["fog"].apply(CAT, severity)
