from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from manylens.training.errors import TrainError
from manylens.training.selfsupervised import crops, pixels
from manylens.training.selfsupervised.crops import NUMBERS, CropOptions, MultiCrop, crop_boxes
from manylens.training.selfsupervised.pixels import gaussian_blur

STILL = {"jitter": 0, "grey": 0, "blur": (0, 0, 0), "solarise": 0, "flip": 0}


def pictures(count: int = 3, height: int = 40, width: int = 56, seed: int = 0) -> torch.Tensor:
    """Smooth noise, uint8."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(count, 3, 7, 9, generator=generator)
    large = functional.interpolate(small, size=(height, width), mode="bicubic").clamp(0, 1)
    return (large * 255).round().byte()


def made(options: dict | None = None, seed: int = 0, batch: torch.Tensor | None = None) -> crops.Crops:
    batch = pictures() if batch is None else batch
    multi = MultiCrop(CropOptions(**{"side": 16, "local_side": 8, "locals": 3, **(options or {})}))
    return multi(batch, multi.numbers(len(batch), torch.Generator().manual_seed(seed)))


def test_views_have_their_sizes_and_levels():
    found = made()
    assert found.large.shape == (6, 3, 16, 16)
    assert found.small.shape == (9, 3, 8, 8)
    for views in found:
        assert views.dtype == torch.float32
        assert 0 <= float(views.min()) < 0.2
        assert 0.6 < float(views.max()) <= 1


def test_without_small_views_there_are_none():
    assert made({"locals": 0}).small.shape == (0, 3, 8, 8)


def test_a_view_depends_on_its_own_numbers_alone():
    """In another batch, and among others, it is the same; and other numbers give another."""
    multi = MultiCrop(CropOptions(side=16, local_side=8, locals=2))
    batch, numbers = pictures(), torch.stack([torch.from_numpy(multi.seeded(7, 0, i)) for i in range(3)])
    whole, alone = multi(batch, numbers), multi(batch[1:2], numbers[1:2])
    assert torch.allclose(whole.large[1::3], alone.large, atol=1e-6)
    assert torch.allclose(whole.small[1::3], alone.small, atol=1e-6)
    other = multi(batch[1:2], torch.from_numpy(multi.seeded(7, 1, 1))[None])
    assert not torch.allclose(other.large, alone.large, atol=0.02)


def test_the_large_views_of_a_picture_differ_and_the_small_ones_do():
    found = made()
    large, small = found.large.unflatten(0, (2, 3)), found.small.unflatten(0, (3, 3))
    assert (large[0] - large[1]).abs().mean() > 0.02
    assert (small[0] - small[1]).abs().mean() > 0.02


def test_a_view_is_a_resized_part_of_its_picture():
    """Held to PIL's antialiased bilinear resize of the same box."""
    batch = pictures()
    multi = MultiCrop(CropOptions(side=16, local_side=8, locals=2, **STILL))
    numbers = multi.numbers(3, torch.Generator().manual_seed(3))
    found = multi(batch, numbers)
    for view, scale in ((0, (0.4, 1.0)), (1, (0.4, 1.0))):
        boxes = crop_boxes(numbers[:, view], torch.tensor([[40, 56]] * 3), scale).tolist()
        for number, box in enumerate(boxes):
            picture = Image.fromarray(batch[number].permute(1, 2, 0).numpy())
            expected = np.asarray(picture.crop(box).resize((16, 16), Image.Resampling.BILINEAR)) / 255
            assert found.large[view * 3 + number].permute(1, 2, 0).numpy() == pytest.approx(expected, abs=0.012)


def test_bytes_floats_lists_and_one_product_give_the_same():
    batch = pictures()
    multi = MultiCrop(CropOptions(side=16, local_side=8, locals=2))
    numbers = multi.numbers(3, torch.Generator().manual_seed(0))
    of_bytes, of_floats = multi(batch, numbers), multi(batch.float() / 255, numbers)
    of_list = multi(list(batch), numbers)
    assert torch.allclose(of_bytes.large, of_floats.large, atol=0.02)
    assert torch.equal(of_bytes.small, of_list.small)
    flips = torch.tensor([True, False, True])
    for scale, side in (((0.3, 1.0), 16), ((0.02, 0.1), 24)):  # smaller and larger
        boxes = crop_boxes(numbers[:, 0], torch.tensor([[40, 56]] * 3), scale)
        one_by_one = pixels.resized(batch.float() / 255, boxes, flips, side)
        at_once = pixels.resized_at_once(batch, boxes, flips, side)
        assert torch.allclose(one_by_one, at_once, atol=1e-4)


def test_pictures_of_different_sizes_go_in_as_a_list():
    batch = [pictures(1, 30, 30)[0], pictures(1, 64, 20)[0]]
    multi = MultiCrop(CropOptions(side=16, local_side=8, locals=1))
    numbers = multi.numbers(2, torch.Generator().manual_seed(0))
    found = multi(batch, numbers)
    assert torch.allclose(found.large[1::2], multi(batch[1:], numbers[1:]).large, atol=1e-6)


@pytest.mark.parametrize("size", [(40, 56), (3, 200), (1, 1)])
@pytest.mark.parametrize("scale", [(0.4, 1.0), (0.05, 0.4), (1.0, 1.0)])
def test_boxes_lie_inside_and_have_their_share(size, scale):
    height, width = size
    numbers = torch.rand(500, NUMBERS, generator=torch.Generator().manual_seed(0))
    x0, y0, x1, y1 = crop_boxes(numbers, torch.tensor([size] * 500), scale).unbind(1)
    for low, high, extent in ((x0, x1, width), (y0, y1, height)):
        assert (low >= 0).all()
        assert (high > low).all()
        assert (high <= extent).all()
    if size == (40, 56):
        shares = ((x1 - x0) * (y1 - y0)).float() / (height * width)
        assert float(shares.max()) <= min(scale[1] * 1.05, 1)
        assert float(shares.mean()) == pytest.approx(sum(scale) / 2, abs=0.03)
        if scale[1] < 1:  # boxes reach every border
            assert (int(x0.min()), int(y0.min()), int(x1.max()), int(y1.max())) == (0, 0, width, height)


def test_flips_are_of_left_and_right_as_often_as_asked():
    never, always = made({**STILL}), made({**STILL, "flip": 1})
    assert torch.allclose(never.large.flip(3), always.large, atol=1e-6)
    multi = MultiCrop(CropOptions(side=16, locals=0, **{**STILL, "flip": 0.5}))
    numbers = multi.numbers(200, torch.Generator().manual_seed(0))
    assert float((numbers[:, 0, crops._FLIP] < 0.5).float().mean()) == pytest.approx(0.5, abs=0.1)


def by_steps(picture: np.ndarray, row: np.ndarray, options: CropOptions, order: Sequence[int]) -> np.ndarray:
    """The colours of one view changed one after the other, each in its plainest form, (3, h, w) without clipping."""
    grey = np.array([0.299, 0.587, 0.114])
    factors = (2 * row[10:14] - 1) * [options.brightness, options.contrast, options.saturation, options.hue]
    for which in order:
        if which == 0:
            picture = picture * (1 + factors[0])
        elif which == 1:
            middle = np.tensordot(grey, picture, 1).mean()
            picture = middle + (picture - middle) * (1 + factors[1])
        elif which == 2:
            level = np.tensordot(grey, picture, 1)[None]
            picture = level + (picture - level) * (1 + factors[2])
        else:
            yiq = np.array(pixels._YIQ)
            y, i, q = np.tensordot(yiq, picture, 1)
            turned = (i + 1j * q) * np.exp(2j * np.pi * factors[3])
            picture = np.tensordot(np.linalg.inv(yiq), np.stack([y, turned.real, turned.imag]), 1)
    return picture


def test_colours_are_those_of_single_steps_in_any_order():
    options = CropOptions(jitter=1, grey=0, brightness=0.2, contrast=0.3, saturation=0.2, hue=0.1)
    numbers = torch.rand(24, NUMBERS, generator=torch.Generator().manual_seed(5))
    views = 0.3 + 0.4 * torch.rand(24, 3, 6, 6, generator=torch.Generator().manual_seed(6))
    found = pixels.recoloured(views, *MultiCrop(options)._colours(numbers, views.mean(dim=(2, 3))))
    for number, order in enumerate(permutations(range(4))):
        expected = by_steps(views[number].double().numpy(), numbers[number].double().numpy(), options, order)
        assert found[number].numpy() == pytest.approx(expected.clip(0, 1), abs=1e-4)


def test_colours_change_as_often_as_asked():
    numbers = torch.rand(400, NUMBERS, generator=torch.Generator().manual_seed(5))
    matrices, added = MultiCrop(CropOptions(jitter=0.3, grey=0))._colours(numbers, torch.full((400, 3), 0.5))
    same = torch.isclose(matrices, torch.eye(3), atol=1e-5).all(dim=(1, 2)) & (added == 0)
    assert float(same.float().mean()) == pytest.approx(0.7, abs=0.06)


def test_grey_views_have_one_level_and_others_keep_their_colours():
    grey = made({**STILL, "grey": 1}).large
    assert (grey.max(dim=1).values - grey.min(dim=1).values).max() < 1e-5
    plain = made({**STILL}).large
    expected = torch.tensordot(plain, torch.tensor([0.299, 0.587, 0.114]), ([1], [0]))
    assert torch.allclose(grey[:, 0], expected, atol=1e-5)


def test_only_the_second_large_view_is_solarised():
    plain, inverted = made({**STILL}), made({**STILL, "solarise": 1})
    assert torch.equal(plain.large[:3], inverted.large[:3])
    assert torch.equal(plain.small, inverted.small)
    expected = torch.where(plain.large[3:] >= 0.5, 1 - plain.large[3:], plain.large[3:])
    assert torch.allclose(inverted.large[3:], expected, atol=1e-6)


def test_blur_is_that_of_a_gaussian():
    """Held to SciPy's, with the same reach and the same mirror at the border; each picture with its own sigma."""
    from scipy.ndimage import gaussian_filter1d

    views, sigmas = torch.rand(2, 3, 12, 15), torch.tensor([0.6, 1.7])
    found = gaussian_blur(views, sigmas, 2.0)
    for number, sigma in enumerate(sigmas.tolist()):
        expected = views[number].double().numpy()
        for axis in (1, 2):
            expected = gaussian_filter1d(expected, sigma, axis=axis, mode="mirror", radius=4)
        assert found[number].numpy() == pytest.approx(expected, abs=1e-5)


def test_blur_of_a_tiny_view_reaches_no_further_than_the_view():
    assert gaussian_blur(torch.rand(1, 3, 2, 2), torch.tensor([1.0]), 2.0).shape == (1, 3, 2, 2)
    one = torch.rand(1, 3, 1, 1)
    assert torch.equal(gaussian_blur(one, torch.tensor([1.0]), 2.0), one)


@pytest.mark.parametrize(
    ("side", "patch", "given", "expected"),
    [
        (224, 14, {}, (224, 98)),
        (224, 16, {}, (224, 96)),
        (32, 4, {}, (32, 12)),
        (50, 16, {}, (48, 32)),
        (16, 16, {}, (16, 16)),
        (64, 8, {"local_side": 40}, (64, 40)),
    ],
)
def test_views_fit_the_patches_of_a_network(side, patch, given, expected):
    found = CropOptions(**given).fitted(side, patch)
    assert (found.side, found.local_side) == expected
    assert found.sigma[1] == pytest.approx(2.0 * min(1, found.side / 224))


@pytest.mark.parametrize(
    ("batch", "numbers", "says"),
    [
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), None, "picture 0"),
        ([torch.zeros(3, 8, 8), torch.zeros(3, 8)], None, "picture 1"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), None, "int64"),
        (torch.zeros(2, 3, 8, 8), torch.rand(2, 4, NUMBERS), "random numbers"),
    ],
)
def test_what_is_no_picture_is_refused(batch, numbers, says):
    multi = MultiCrop(CropOptions(side=8, local_side=4, locals=1))
    with pytest.raises(TrainError, match=says):
        multi(batch, multi.numbers(2) if numbers is None else numbers)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"locls": 3}, "did you mean augment.options.locals"),
        ({"scale": (0.5, 0.2)}, "least and most"),
        ({"local_scale": (0.0, 0.2)}, "least and most"),
        ({"flip": 2}, "flip"),
    ],
)
def test_options_that_do_not_fit_are_named(values, says):
    with pytest.raises(TrainError, match=says):
        CropOptions.of(values, "augment.options")
