"""Each change of a picture is held to Pillow's, or to a loop over pixels."""

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageOps
import pytest
import torch

from manylens.training.augment import changes
from manylens.training.augment.rand import OPERATIONS, rand


def pixels(seed: int = 0, height: int = 24, width: int = 32) -> np.ndarray:
    small = np.random.default_rng(seed).integers(20, 230, (6, 8, 3), dtype=np.uint8)
    return np.asarray(PIL.Image.fromarray(small).resize((width, height), PIL.Image.Resampling.BICUBIC))


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array)).permute(2, 0, 1).float() / 255


def array(picture: torch.Tensor) -> np.ndarray:
    return (picture.permute(1, 2, 0) * 255).numpy()


PILLOW = {
    "flip": (changes.flip, PIL.ImageOps.mirror),
    "brightness": (lambda one: changes.brightness(one, 1.4), lambda one: PIL.ImageEnhance.Brightness(one).enhance(1.4)),
    "contrast": (lambda one: changes.contrast(one, 0.6), lambda one: PIL.ImageEnhance.Contrast(one).enhance(0.6)),
    "more contrast": (lambda one: changes.contrast(one, 1.7), lambda one: PIL.ImageEnhance.Contrast(one).enhance(1.7)),
    "saturation": (lambda one: changes.saturation(one, 1.5), lambda one: PIL.ImageEnhance.Color(one).enhance(1.5)),
    "gray": (lambda one: changes.saturation(one, 0.0), lambda one: PIL.ImageEnhance.Color(one).enhance(0.0)),
    "sharper": (lambda one: changes.sharpness(one, 1.9), lambda one: PIL.ImageEnhance.Sharpness(one).enhance(1.9)),
    "smooth": (lambda one: changes.sharpness(one, 0.1), lambda one: PIL.ImageEnhance.Sharpness(one).enhance(0.1)),
    "posterize": (lambda one: changes.posterize(one, 3), lambda one: PIL.ImageOps.posterize(one, 3)),
    "solarize": (lambda one: changes.solarize(one, 128 / 255), lambda one: PIL.ImageOps.solarize(one, 128)),
    "autocontrast": (changes.autocontrast, PIL.ImageOps.autocontrast),
    "equalize": (lambda one: OPERATIONS["equalize"](one, 0.5, 1.0), PIL.ImageOps.equalize),
}


@pytest.mark.parametrize("name", PILLOW)
def test_colours_are_those_of_pillow(name):
    ours, theirs = PILLOW[name]
    given = pixels()
    wanted = np.asarray(theirs(PIL.Image.fromarray(given)), np.float32)
    found = array(ours(tensor(given)))
    # Pillow rounds to whole levels before it multiplies, its equalize computes with integers throughout.
    assert np.abs(found - wanted).max() <= (3 if name == "equalize" else 2)
    assert np.abs(found - wanted).mean() < (1.5 if name == "equalize" else 0.6)
    assert np.abs(wanted - given).max() > 10


def sampled(given: np.ndarray, place) -> np.ndarray:
    """Each pixel taken bilinearly from ``place(x, y)``, x and y from the centre, the outside mirrored at the border."""
    height, width, _ = given.shape

    def mirrored(i: int, size: int) -> int:
        i %= 2 * size
        return i if i < size else 2 * size - 1 - i

    made = np.zeros(given.shape)
    for row in range(height):
        for column in range(width):
            x, y = place(column + 0.5 - width / 2, row + 0.5 - height / 2)
            x, y = x + width / 2 - 0.5, y + height / 2 - 0.5
            x0, y0 = int(np.floor(x)), int(np.floor(y))
            for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
                share = abs(1 - dy - (y - y0)) * abs(1 - dx - (x - x0))
                made[row, column] += share * given[mirrored(y0 + dy, height), mirrored(x0 + dx, width)]
    return made


TURN = np.deg2rad(25)
PLACES = {
    "rotate": (
        lambda one: changes.rotate(one, 25),
        lambda x, y: (x * np.cos(TURN) + y * np.sin(TURN), -x * np.sin(TURN) + y * np.cos(TURN)),
    ),
    "shear-x": (lambda one: changes.shear(one, x=0.3), lambda x, y: (x + 0.3 * y, y)),
    "shear-y": (lambda one: changes.shear(one, y=-0.2), lambda x, y: (x, y - 0.2 * x)),
    "translate": (lambda one: changes.translate(one, 0.25, -0.125), lambda x, y: (x - 8, y + 3)),
    "crop": (
        lambda one: changes.crop(one, (0.25, 0.5, 1.0, 1.0)),
        lambda x, y: (0.75 * x + 0.125 * 32, 0.5 * y + 0.25 * 24),
    ),
    "mirrored crop": (
        lambda one: changes.crop(one, (0.25, 0.5, 1.0, 1.0), mirrored=True),
        lambda x, y: (-0.75 * x + 0.125 * 32, 0.5 * y + 0.25 * 24),
    ),
}


@pytest.mark.parametrize("name", PLACES)
def test_places_are_those_of_a_loop_over_pixels(name):
    ours, place = PLACES[name]
    given = pixels()
    assert array(ours(tensor(given))) == pytest.approx(sampled(given.astype(float), place), abs=0.05)


def test_a_quarter_turn_is_clockwise():
    given = tensor(pixels(height=24, width=24))
    assert changes.rotate(given, 90).numpy() == pytest.approx(given.rot90(-1, (1, 2)).numpy(), abs=1e-4)


def test_a_crop_of_the_whole_is_the_picture():
    given = tensor(pixels())
    assert changes.crop(given, (0, 0, 1, 1)).numpy() == pytest.approx(given.numpy(), abs=1e-5)
    assert changes.crop(given, (0, 0, 1, 1), mirrored=True).numpy() == pytest.approx(given.flip(-1).numpy(), abs=1e-5)


def test_a_picture_of_one_colour_survives_all():
    flat = torch.full((3, 16, 16), 0.5)
    for name, operation in OPERATIONS.items():
        made = operation(flat, 0.7, 1.0)
        assert made.isfinite().all(), name
        assert made.shape == flat.shape


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"identity", "autocontrast", "equalize"}))
def test_a_magnitude_of_none_changes_nothing_and_more_changes_more(name):
    given = tensor(pixels())
    before = given.clone()
    apart = [float((OPERATIONS[name](given, strength, 1.0) - given).abs().mean()) for strength in (0.0, 0.3, 1.0)]
    assert apart[0] < 1e-3  # posterising to 8 bits rounds
    assert apart[0] <= apart[1] < apart[2]
    assert (given == before).all()


def test_all_fourteen_are_drawn_evenly():
    seen = []
    given = torch.zeros(3, 2, 2)
    names = list(OPERATIONS)
    spied = {name: (lambda picture, strength, sign, name=name: seen.append((name, sign)) or picture) for name in names}
    before = dict(OPERATIONS)
    OPERATIONS.update(spied)
    try:
        random = np.random.default_rng(0)
        for _ in range(2800):
            rand(given, random, 0.5, 2)
    finally:
        OPERATIONS.update(before)
    counts = np.array([[sum(1 for one in seen if one == (name, sign)) for sign in (-1.0, 1.0)] for name in names])
    assert counts.sum() == 5600
    assert np.abs(counts - 200).max() < 75  # five standard deviations
