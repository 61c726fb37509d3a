from __future__ import annotations

import json

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from manylens.errors import MediaError, OutputError
from manylens.media import Image, Mask, from_rle, made_by, save_cutout_png, save_image, save_mask_png, to_rle

masks = arrays(np.bool_, st.tuples(st.integers(1, 30), st.integers(1, 30)))

HALF = np.array([[True, False], [True, True], [False, False]])


# Run-length encoding -------------------------------------------------------------------------------------------------


@given(masks)
def test_rle_round_trip(mask):
    rle = json.loads(json.dumps(to_rle(mask)))
    assert rle["size"] == list(mask.shape)
    np.testing.assert_array_equal(from_rle(rle), mask)
    np.testing.assert_array_equal(Mask.of(rle), mask)


@given(masks)
def test_rle_is_what_pycocotools_reads(mask):
    np.testing.assert_array_equal(coco.decode(to_rle(mask)), mask)


def test_rle_of_a_large_mask():
    mask = np.zeros((3000, 2000), bool)  # runs of millions take several characters, and differences are negative
    mask[5:2000, 7] = True
    mask[2999, 1999] = True
    np.testing.assert_array_equal(from_rle(to_rle(mask)), mask)


@pytest.mark.parametrize("counts", [[1, 2, 3], (0, 6), [6]])
def test_counts_as_a_list(counts):
    mask = from_rle({"size": [3, 2], "counts": counts})
    expected = np.zeros(6, bool)
    position = 0
    for index, run in enumerate(counts):
        expected[position : position + run] = index % 2
        position += run
    np.testing.assert_array_equal(mask, expected.reshape(2, 3).T)


@pytest.mark.parametrize(
    "rle",
    [
        {},
        {"size": [3, 2]},
        {"counts": "06"},
        {"size": [3], "counts": "06"},
        {"size": 6, "counts": "06"},
        {"size": ["a", 2], "counts": "06"},
        {"size": [0, 2], "counts": ""},
        {"size": [-3, -2], "counts": [6]},
        {"size": [3, 2], "counts": [7]},
        {"size": [3, 2], "counts": [5]},
        {"size": [3, 2], "counts": [9, -3]},
        {"size": [3, 2], "counts": [1.5, 4.5]},
        {"size": [3, 2], "counts": ""},
        {"size": [3, 2], "counts": "06\x01"},
        {"size": [3, 2], "counts": "0V"},
        {"size": [3, 2], "counts": "ü"},
        {"size": [3, 2], "counts": "o" * 100},
        {"size": [3, 2], "counts": None},
        {"size": [10**6, 10**6], "counts": [10**12]},
    ],
)
def test_broken_rle(rle):
    with pytest.raises(MediaError, match="RLE: "):
        Mask.of(rle)


@given(st.binary(max_size=40), st.integers(1, 50), st.integers(1, 50))
def test_any_bytes_are_an_rle_or_an_error(counts, height, width):
    try:
        mask = from_rle({"size": [height, width], "counts": counts})
    except MediaError:
        return
    assert mask.shape == (height, width)
    np.testing.assert_array_equal(coco.decode({"size": [height, width], "counts": counts}), mask)


# What a mask is made of ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        HALF,
        HALF.astype(np.uint8),
        HALF.astype(np.int64) * 7,
        HALF[None],
        HALF[:, :, None],
        PIL.Image.fromarray(HALF),
        PIL.Image.fromarray(HALF.astype(np.uint8)),
        PIL.Image.fromarray(HALF.astype(np.uint16) * 300),
        PIL.Image.fromarray(np.where(HALF, 0.25, np.nan).astype(np.float32)),
        PIL.Image.fromarray(np.dstack([HALF * 0, HALF * 0, HALF * 1]).astype(np.uint8)),
        PIL.Image.fromarray(np.dstack([HALF * 9, HALF * 0, HALF * 1, HALF * 0 + 255]).astype(np.uint8)),
        PIL.Image.fromarray(np.dstack([HALF * 0 + 9] * 3 + [np.where(HALF, 128, 127)]).astype(np.uint8)),
        PIL.Image.fromarray(np.dstack([HALF * 0 + 9, HALF * 200]).astype(np.uint8)),
    ],
    ids=["bool", "uint8", "int64", "first", "last", "1", "L", "I;16", "F", "RGB", "opaque", "RGBA", "LA"],
)
def test_non_zero_is_object(source):
    mask = Mask.of(source, (2, 3))
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, HALF)


def test_palette_index_0_is_background(tmp_path):
    labels = PIL.Image.fromarray(HALF.astype(np.uint8) * 2, "P")
    labels.putpalette([255, 255, 255, 1, 1, 1, 0, 0, 0])  # colours the other way round: only the index counts
    labels.save(tmp_path / "labels.png")
    np.testing.assert_array_equal(Mask.of(tmp_path / "labels.png"), HALF)


@pytest.mark.parametrize("orientation", [1, 3])
def test_a_jpeg_is_split_at_half(encode, orientation):
    big = np.kron(HALF, np.ones((13, 13), bool))
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    data = encode((big if orientation == 1 else np.rot90(big, 2)).astype(np.uint8) * 255, "JPEG", quality=30, exif=exif)
    assert len(np.unique(np.asarray(Image.of(data).array))) > 2  # its black is not black everywhere
    np.testing.assert_array_equal(Mask.of(data), big)


def test_a_mask_file_is_turned_upright(encode):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    data = encode(HALF.astype(np.uint8), "PNG", exif=exif)
    np.testing.assert_array_equal(Mask.of(data), np.rot90(HALF, -1))


def test_the_mask_is_read_only_and_leaves_its_source_free():
    source = HALF.copy()
    mask = Mask.of(source)
    with pytest.raises(ValueError, match="read-only"):
        mask[0, 0] = False
    source[:] = False
    assert mask.any()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (HALF.astype(float), r"mask: its type is float64; make it bool with a threshold"),
        (np.zeros((2, 3, 4), bool), "mask: its shape is 2x3x4"),
        (np.zeros((0, 3), bool), "mask: its shape is 0x3"),
        (3, "int: not a mask"),
        ("none.png", r"none\.png: no such file"),
        (b"words", "bytes: not an image that can be read"),
    ],
)
def test_refuses_what_is_no_mask(source, message):
    with pytest.raises(MediaError, match=message):
        Mask.of(source)


def test_another_size_than_the_image(tmp_path):
    save_mask_png(HALF, tmp_path / "m.png")
    with pytest.raises(MediaError, match=r"m\.png: the mask is 2 x 3 pixels, the image 3 x 2"):
        Mask.of(tmp_path / "m.png", (3, 2))


# Files ---------------------------------------------------------------------------------------------------------------


@given(mask=masks)
def test_mask_png_round_trip(tmp_path_factory, mask):
    path = save_mask_png(mask, tmp_path_factory.mktemp("m") / "m.png")
    np.testing.assert_array_equal(Mask.of(path), mask)
    with PIL.Image.open(path) as picture:
        assert set(np.unique(np.asarray(picture))) <= {0, 255}


def test_cutout(tmp_path, pixels):
    mask = np.zeros((5, 7), bool)
    mask[1:4, 2] = mask[2, 2:6] = True
    image = Image.of(pixels)
    for cropped, window in ((False, np.s_[:, :]), (True, np.s_[1:4, 2:6])):
        path = save_cutout_png(image, mask, tmp_path / "cut.png", cropped=cropped)
        written = np.asarray(PIL.Image.open(path))
        np.testing.assert_array_equal(written[..., 3] > 0, mask[window])
        np.testing.assert_array_equal(written[mask[window]][:, :3], pixels[window][mask[window]])
        assert not written[~mask[window]].any()  # what was cut away is gone, not hidden
        np.testing.assert_array_equal(Mask.of(path), mask[window])


def test_cutout_refuses(tmp_path, folder_of, pixels):
    image = Image.of(pixels)
    with pytest.raises(MediaError, match="the mask is 2 x 3 pixels, the image 7 x 5"):
        save_cutout_png(image, HALF, tmp_path / "cut.png")
    with pytest.raises(MediaError, match="array: the mask is empty"):
        save_cutout_png(image, np.zeros((5, 7), bool), tmp_path / "cut.png", cropped=True)
    assert folder_of() == set()


def test_nothing_half_written_on_a_full_disk(tmp_path, folder_of, pixels, disk_full):
    image = Image.of(pixels)
    for write in (
        lambda path: save_mask_png(HALF, path),
        lambda path: save_cutout_png(image, np.ones((5, 7), bool), path),
        lambda path: save_image(image, path),
    ):
        with pytest.raises(OutputError, match=r"out\.png: the disk is full"):
            write(tmp_path / "out.png")
    assert folder_of() == set()


# Made pictures -------------------------------------------------------------------------------------------------------


def test_a_made_picture_says_so(tmp_path, pixels):
    made = {"model": "m/1", "prompt": "ein Käfer, 虫", "seed": 7, "steps": [1, 2]}
    path = save_image(Image.of(pixels), tmp_path / "made.png", made)
    assert made_by(path) == made
    assert Image.of(path) == Image.of(pixels)
    with PIL.Image.open(path) as picture:
        picture.load()
        assert picture.text["prompt"] == "ein Käfer, 虫"
        assert picture.text["seed"] == "7"
        assert "digitalsourcetype/trainedAlgorithmicMedia" in picture.text["XML:com.adobe.xmp"]


def test_a_photograph_does_not(tmp_path, pixels):
    path = save_image(Image.of(pixels), tmp_path / "photo.png")
    assert made_by(path) is None
    assert Image.of(path) == Image.of(pixels)
    assert b"trainedAlgorithmicMedia" not in path.read_bytes()


def test_pictures_are_png(tmp_path, folder_of, pixels):
    with pytest.raises(MediaError, match=r"out\.jpg: pictures are written as PNG"):
        save_image(Image.of(pixels), tmp_path / "out.jpg")
    assert folder_of() == set()
