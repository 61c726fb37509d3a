"""The Image type: what it is made of, that it never changes, and how it is known."""

from __future__ import annotations

import base64
import copy
import io
import pickle
import threading

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from manylens.errors import MediaError, PromptError
from manylens.media import Image, formats, without_paths

ID_OF_0_TO_11 = "e7e0982d513e78285fa30ad31621c55c6f611bde"
LOSSLESS = ["PNG", "BMP", "TIFF", "PPM", "QOI"]

pictures = arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3)))


def encoded(pixels, format_name, **options):
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, format_name, **options)
    return file.getvalue()


def test_all_ways_in_give_the_same_picture(tmp_path, pixels, encode):
    path = tmp_path / "a.png"
    path.write_bytes(png := encode(pixels, "PNG"))
    ways = [
        str(path),
        path,
        png,
        bytearray(png),
        "data:image/png;base64," + base64.b64encode(png).decode(),
        "data:image/png," + "".join(f"%{byte:02x}" for byte in png),
        pixels,
        PIL.Image.open(path),
        PIL.Image.fromarray(pixels),
        Image.of(pixels),
    ]
    images = [Image.of(way) for way in ways]
    for image in images:
        np.testing.assert_array_equal(image.array, pixels)
        assert image.size == (7, 5) == (image.width, image.height)
        assert image == images[0]
        assert hash(image) == hash(images[0])
    names = [image.name for image in images]
    assert names[:5] == ["a.png", "a.png", "bytes", "bytes", "data URI"]
    assert names[6:9] == ["array", "a.png", "PIL image"]
    assert images[0].path == path
    assert images[6].path is None


@given(pictures)
def test_of_is_idempotent(pixels):
    image = Image.of(pixels)
    assert Image.of(image) is image
    assert Image.of(image.array) == image
    assert Image.of(image.pil()) == image


@given(pictures, st.sampled_from(LOSSLESS))
def test_id_stays_under_lossless_encoding(pixels, format_name):
    assert Image.of(encoded(pixels, format_name)).id == Image.of(pixels).id


@given(pictures, st.data())
def test_id_differs_when_one_value_does(pixels, data):
    other = pixels.copy()
    spot = tuple(data.draw(st.integers(0, side - 1)) for side in pixels.shape)
    other[spot] ^= 1
    assert Image.of(other).id != Image.of(pixels).id
    assert Image.of(other) != Image.of(pixels)


def test_id_depends_on_the_shape():
    assert Image.of(np.zeros((2, 6, 3), np.uint8)).id != Image.of(np.zeros((3, 4, 3), np.uint8)).id


def test_id_is_the_same_on_every_machine():
    assert Image.of(np.arange(12, dtype=np.uint8).reshape(2, 2, 3)).id == ID_OF_0_TO_11


def test_is_never_changed(pixels):
    view = pixels.view()
    view.flags.writeable = False  # yet what it looks at can still change
    image = Image.of(view)
    before = pixels.copy()
    pixels[:] = 0
    image.pil().putpixel((0, 0), (1, 2, 3))
    np.testing.assert_array_equal(image.array, before)
    with pytest.raises(ValueError, match="read-only"):
        image.array[0, 0, 0] = 1
    with pytest.raises(ValueError):
        image.array.flags.writeable = True
    with pytest.raises(AttributeError):
        image.array = pixels


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.full((2, 3), 9, np.uint8), np.full((2, 3, 3), 9)),
        (np.full((2, 3, 1), 9, np.uint8), np.full((2, 3, 3), 9)),
        (np.full((2, 3, 4), (10, 20, 30, 255), np.uint8), np.full((2, 3, 3), (10, 20, 30))),
        (np.full((2, 3, 4), (10, 20, 30, 0), np.uint8), np.full((2, 3, 3), 255)),
        (np.zeros((6, 8, 3), np.uint8)[::2, ::-2], np.zeros((3, 4, 3))),
    ],
    ids=["gray", "gray with axis", "opaque", "transparent", "not contiguous"],
)
def test_arrays(array, expected):
    image = Image.of(array)
    np.testing.assert_array_equal(image.array, expected)
    with pytest.raises(ValueError):
        image.array.flags.writeable = True


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((2, 3, 3)), "array: its type is float64, a picture is uint8"),
        (np.zeros((2, 3, 3), np.uint16), "array: its type is uint16, a picture is uint8"),
        (np.zeros((2, 3), bool), "array: bool is a mask"),
        (np.zeros((3, 20, 30), np.uint8), "its shape is 3x20x30.*channels last"),
        (np.zeros((20, 30, 2), np.uint8), "its shape is 20x30x2"),
        (np.zeros((2, 20, 30, 3), np.uint8), "its shape is 2x20x30x3"),
        (np.zeros((0, 30, 3), np.uint8), "its shape is 0x30x3"),
        (np.zeros(5, np.uint8), "its shape is 5"),
        (3, "int: not an image"),
        (None, "NoneType: not an image"),
        (PIL.Image.new("RGB", (0, 4)), "PIL image: has no pixels"),
    ],
)
def test_refuses_what_is_no_picture(source, message):
    with pytest.raises(MediaError, match=message):
        Image.of(source)


def test_a_pil_image_is_turned_upright(pixels, encode):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    opened = PIL.Image.open(io.BytesIO(encode(pixels, "PNG", exif=exif)))
    image = Image.of(opened)
    np.testing.assert_array_equal(image.array, np.rot90(pixels, -1))
    assert image.info.turned


def test_a_broken_pil_image(pixels, encode):
    data = encode(np.tile(pixels, (40, 40, 1)), "JPEG")
    with pytest.raises(MediaError, match="cannot be decoded"):
        Image.of(PIL.Image.open(io.BytesIO(data[: len(data) // 2])))


def test_a_file_is_decoded_once_by_many_threads(tmp_path, pixels, encode, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(encode(pixels, "PNG"))
    calls = []
    decode = formats.decode
    monkeypatch.setattr(formats, "decode", lambda *given: (calls.append(1), decode(*given))[1])
    image = Image.of(path)
    assert not calls
    start = threading.Barrier(8)
    arrays = []

    def look():
        start.wait()
        arrays.append(image.array)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert all(array is arrays[0] for array in arrays)


def test_a_file_that_is_opened_keeps_no_descriptor(tmp_path, pixels, encode):
    path = tmp_path / "a.png"
    path.write_bytes(encode(pixels, "PNG"))
    many = [Image.of(path) for _ in range(2000)]  # more than a process may have open
    assert many[-1].width == 7


def test_a_file_that_goes_away(tmp_path, pixels, encode):
    path = tmp_path / "a.png"
    path.write_bytes(encode(pixels, "PNG"))
    image = Image.of(path)
    path.unlink()
    with pytest.raises(MediaError, match=r"a\.png: no such file"):
        _ = image.array


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda image: pickle.loads(pickle.dumps(image))])
def test_copies_are_equal(tmp_path, pixels, encode, way):
    path = tmp_path / "a.png"
    path.write_bytes(encode(pixels, "PNG"))
    image = Image.of(path)
    again = way(image)
    assert again == image
    assert (again.name, again.path, again.info) == (image.name, image.path, image.info)
    with pytest.raises(ValueError):
        again.array[0] = 0


@settings(max_examples=30)
@given(array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=60), st.integers(1, 80))
def test_resized(shape, max_side):
    image = Image.of(np.full((*shape, 3), 77, np.uint8))
    small = image.resized(max_side)
    assert max(small.size) == min(max_side, max(image.size))
    assert min(small.size) >= 1
    assert (small.array == 77).all()
    if max_side >= max(image.size):
        assert small is image
    else:
        assert small.info.notes == (f"resized from {image.width} x {image.height}",)


@pytest.mark.parametrize("max_side", [0, -1])
def test_resized_to_nothing(pixels, max_side):
    with pytest.raises(MediaError, match="max_side"):
        Image.of(pixels).resized(max_side)


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((1, 2, 4, 5), slice(2, 5), slice(1, 4)),
        ((1.2, 2.9, 3.1, 4.0), slice(2, 4), slice(1, 4)),
        ((-9, -9, 99, 99), slice(0, 5), slice(0, 7)),
        ((6, 4, 7, 5), slice(4, 5), slice(6, 7)),
    ],
)
def test_crop(pixels, box, rows, columns):
    np.testing.assert_array_equal(Image.of(pixels).crop(box).array, pixels[rows, columns])


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((4, 2, 1, 5), r"box \(4, 2, 1, 5\): is empty or inverted"),
        ((4, 2, 4, 5), "is empty or inverted"),
        ((7, 0, 9, 5), r"lies outside array \(7 x 5\)"),
        ((-3, 0, 0, 5), "lies outside"),
        ((0, 0, float("nan"), 5), "not four numbers"),
        ((0, 0, 5), "not four numbers"),
    ],
)
def test_crop_refuses(pixels, box, message):
    with pytest.raises(PromptError, match=message):
        Image.of(pixels).crop(box)


def test_summary(pixels):
    image = Image.of(pixels)
    assert image.summary() == {"name": "array", "width": 7, "height": 5, "id": image.id}


def test_paths_can_be_refused(tmp_path, pixels, encode):
    path = tmp_path / "a.png"
    path.write_bytes(png := encode(pixels, "PNG"))
    with without_paths():
        for way in (path, str(path), str(tmp_path / "none.png")):
            with pytest.raises(MediaError, match="paths are not accepted here"):
                Image.of(way)
        assert Image.of(png).width == 7
    assert Image.of(path).width == 7
