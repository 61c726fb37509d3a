"""What happens with each kind of image file, good and bad: the table of docs/media.md."""

from __future__ import annotations

import io
import struct
import sys
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manylens.errors import MediaError, UserError
from manylens.media import Image

FORMATS = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM", "QOI"]


def one_line(error):
    assert "\n" not in str(error)
    assert error.exit_code == 2
    return str(error)


def png_header(width, height):
    """A PNG that says how large it is and holds no pixels: nobody can decode it, only look at its header."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + b"\0\0\0\1IDAT"


# Files that are no pictures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"just words\n" * 9, "it holds text"),
        ("Zür".encode() * 2000, "it holds text"),
        (b"%PDF-1.7\n", "it is a PDF.*save the page as PNG first"),
        (b'<?xml version="1.0"?>\n<!-- a -->\n<svg xmlns="http://www.w3.org/2000/svg"/>', "it is an SVG drawing"),
        (b"<!DOCTYPE html><html>", "it is a web page"),
        (b"\0\0\0\x20ftypheic\0\0\0\0mif1heic", "it is HEIC.*convert it to JPEG or PNG"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "it is a video"),
        (b"RIFF\0\0\0\0WAVEfmt ", "it is sound"),
        (b"PK\3\4\0\0", "it is an archive"),
        (b"\x93NUMPY\1\0", "it is a numpy array"),
        (bytes(range(256)) * 4, "its format is not known"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "the JPEG file is cut short or broken"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "the PNG file is cut short or broken"),
        (b"GIF89a", "the GIF file is cut short or broken"),
        (b"II*\0\x08\0\0\0", "the TIFF file is cut short or broken"),
    ],
)
def test_no_picture(tmp_path, content, message):
    path = tmp_path / "cat.jpg"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=f"cat.jpg: .*{message}") as caught:
        Image.of(path)
    assert str(path) in one_line(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none/cat.jpg", "none/cat.jpg: no such file"),
        (".", r"\.: is a folder; give one of the files in it"),
        ("/dev/null", "/dev/null: is not a regular file"),
        ("https://example.org/cat.jpg", "https://example.org/cat.jpg: https addresses are not opened; download it"),
        ("", "an empty path"),
        ("a\0b", "cannot be read"),
        ("x" * 9000, r"x{40}: cannot be read \(file name too long\)"),
        ("data:image/png;base64", "data URI: has no comma"),
        ("data:image/png;base64,???", "data URI: its base64 is broken"),
        ("data:,", "data URI: the file is empty"),
        ("data:,hello", "data URI: not an image that can be read"),
    ],
)
def test_no_file(source, message):
    with pytest.raises(MediaError, match=message) as caught:
        Image.of(source)
    assert len(one_line(caught.value)) < 300


def test_no_permission(tmp_path, pixels, encode, monkeypatch):
    path = tmp_path / "cat.png"
    path.write_bytes(encode(pixels, "PNG"))

    def refuse(self, *mode):  # simulated, as the tests may run as root, who may read anything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(MediaError, match=r"cat\.png: no permission to read it"):
        Image.of(path)


@pytest.mark.parametrize("format_name", FORMATS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_truncated_anywhere(encode, format_name, data):
    """Cut at any place, a file either gives the whole picture (only its tail was lost) or a MediaError."""
    pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)
    whole = encode(pixels, format_name)
    cut = data.draw(st.integers(1, len(whole) - 1))
    try:
        array = Image.of(whole[:cut]).array
    except MediaError as error:
        one_line(error)
    else:
        assert cut > 0.95 * len(whole)
        np.testing.assert_array_equal(array, Image.of(whole).array)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_anywhere(encode, data):
    """Whatever bytes are flipped, there is a picture or a MediaError."""
    format_name = data.draw(st.sampled_from(FORMATS))
    damaged = bytearray(encode(np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8), format_name))
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert Image.of(damaged).array.dtype == np.uint8
    except MediaError as error:
        one_line(error)


# The pixel limit -----------------------------------------------------------------------------------------------------


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(60_000, 60_000))
    with pytest.raises(
        MediaError, match=r"bomb\.png: 60000 x 60000 is 3600 million pixels, the limit is 200"
    ) as caught:
        Image.of(path)
    assert "MANYLENS_MAX_PIXELS=3600000000" in one_line(caught.value)


@pytest.mark.parametrize(("limit", "works"), [("35", True), ("34", False), ("1_000", True), ("", True)])
def test_the_limit_is_set_by_the_environment(pixels, encode, monkeypatch, limit, works):
    monkeypatch.setenv("MANYLENS_MAX_PIXELS", limit)
    png = encode(pixels, "PNG")
    if works:
        assert Image.of(png).array.shape == (5, 7, 3)
    else:
        with pytest.raises(MediaError, match="7 x 5"):
            Image.of(png)


@pytest.mark.parametrize("limit", ["abc", "0", "-5", "1e6"])
def test_a_limit_that_is_no_number(pixels, encode, monkeypatch, limit):
    monkeypatch.setenv("MANYLENS_MAX_PIXELS", limit)
    with pytest.raises(UserError, match=f"MANYLENS_MAX_PIXELS: '{limit}' is not a number of pixels"):
        Image.of(encode(pixels, "PNG"))


@pytest.mark.filterwarnings("error")
def test_the_limit_is_ours_not_pillows(pixels, encode, monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 3)
    assert Image.of(encode(pixels, "PNG")).width == 7
    assert PIL.Image.MAX_IMAGE_PIXELS == 3


# Odd sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_name", FORMATS)
def test_one_pixel(encode, format_name):
    assert Image.of(encode(np.full((1, 1, 3), 200, np.uint8), format_name)).size == (1, 1)


@pytest.mark.parametrize("size", [(20_000, 3), (3, 20_000), (20_000, 1)])
@pytest.mark.parametrize("format_name", ["PNG", "JPEG"])
def test_20000_pixels_wide(encode, format_name, size):
    image = Image.of(encode(np.zeros((size[1], size[0], 3), np.uint8), format_name))
    assert image.size == size
    assert image.resized(1024).size == (1024, 1) or image.resized(1024).size == (1, 1024)


# Colour models and depths --------------------------------------------------------------------------------------------


def test_cmyk_jpeg_is_converted(encode):
    """Pillow writes CMYK JPEG inverted, as Adobe does; read without inverting it would come out black."""
    data = encode(PIL.Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
    assert b"Adobe" in data
    image = Image.of(data)
    assert image.array[4, 4].tolist() == pytest.approx([255, 0, 0], abs=3)
    assert image.info.mode == "CMYK"
    assert image.info.notes == ("CMYK converted to RGB",)


def test_cmyk_tiff_is_converted(encode):
    image = Image.of(encode(PIL.Image.new("CMYK", (8, 8), (255, 0, 255, 0)), "TIFF"))
    assert image.array[0, 0].tolist() == [0, 255, 0]


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0, 257, 65535]], [0, 1, 255]),
        ([[0, 2048, 4095]], [0, 128, 255]),
        ([[0, 16383]], [0, 255]),
        ([[7, 255]], [7, 255]),
        ([[0, 0]], [0, 0]),
    ],
    ids=["16 bits", "12 bits", "14 bits", "8 bits", "black"],
)
def test_16_bit_gray_is_scaled_by_the_bits_it_uses(encode, format_name, values, expected):
    image = Image.of(encode(np.array(values, np.uint16), format_name))
    assert image.array[0].tolist() == [[value] * 3 for value in expected]
    assert image.info.bits == 16
    assert "scaled to 8 bit" in image.info.notes[0]


def test_16_bit_and_8_bit_of_the_same_picture_are_one(encode, pixels):
    gray = pixels[:, :, 0]
    gray[0, 0] = 255
    assert Image.of(encode(gray.astype(np.uint16) * 257, "PNG")) == Image.of(encode(gray, "PNG"))


def test_16_bit_colour_keeps_the_upper_byte():
    rows = b"".join(b"\0" + struct.pack(">6H", 65535, 32768, 255, 256, 0, 511) for _ in range(2))
    body = b"IHDR" + struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    chunks = [body, b"IDAT" + zlib.compress(rows), b"IEND"]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )
    image = Image.of(png)
    assert image.array[1].tolist() == [[255, 128, 0], [1, 0, 1]]
    assert image.info.bits == 16


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.2, 0.4], [51, 102]),
        ([-10.0, 0.0, 10.0], [0, 128, 255]),
        ([0.0, 1.0, np.nan, np.inf], [0, 255, 0, 0]),
        ([5.0, 5.0], [0, 0]),
    ],
    ids=["0..1", "inside 0..1", "signed", "not finite", "all the same"],
)
def test_float_tiff(encode, values, expected):
    image = Image.of(encode(PIL.Image.fromarray(np.array([values], np.float32)), "TIFF"))
    assert image.array[0, :, 0].tolist() == expected
    assert image.info.bits == 32


def test_float_tiff_without_a_value(encode):
    data = encode(PIL.Image.fromarray(np.full((2, 2), np.nan, np.float32)), "TIFF")
    with pytest.raises(MediaError, match="bytes: holds no finite value"):
        _ = Image.of(data).array


def test_32_bit_integers_run_from_the_smallest_to_the_largest(encode):
    image = Image.of(encode(PIL.Image.fromarray(np.array([[-100, 0, 100]], np.int32)), "TIFF"))
    assert image.array[0, :, 0].tolist() == [0, 128, 255]


def test_1_bit(encode):
    image = Image.of(encode(PIL.Image.fromarray(np.array([[True, False]])), "PNG"))
    assert image.array[0].tolist() == [[255] * 3, [0] * 3]
    assert image.info.bits == 1


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGBA", (200, 100, 0, 255), [200, 100, 0]),
        ("RGBA", (200, 100, 0, 0), [255, 255, 255]),
        ("RGBA", (255, 0, 0, 51), [255, 204, 204]),
        ("LA", (0, 0), [255, 255, 255]),
        ("LA", (90, 255), [90, 90, 90]),
    ],
)
@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_alpha_is_flattened_on_white(encode, format_name, mode, colour, expected):
    image = Image.of(encode(PIL.Image.new(mode, (2, 2), colour), format_name))
    assert image.array[0, 0].tolist() == expected
    assert (image.info.notes == ("alpha flattened on white",)) == (colour[-1] < 255)


@pytest.mark.parametrize("transparency", [None, 1, b"\xff\x00"])
def test_palette(encode, transparency):
    palette = PIL.Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    options = {} if transparency is None else {"transparency": transparency}
    image = Image.of(encode(palette, "PNG", **options))
    assert image.array[0].tolist() == [[10, 20, 30], [40, 50, 60] if transparency is None else [255, 255, 255]]
    assert image.info.mode == "P"


def test_transparent_colour_of_a_png_without_alpha(encode):
    image = Image.of(encode(PIL.Image.new("RGB", (1, 1), (1, 2, 3)), "PNG", transparency=(1, 2, 3)))
    assert image.array[0, 0].tolist() == [255, 255, 255]


def test_lab_is_converted(encode):
    image = Image.of(encode(PIL.Image.new("LAB", (2, 2), (255, 128, 128)), "TIFF"))
    assert image.array.min() >= 250


def test_a_colour_model_that_is_not_read():
    with pytest.raises(MediaError, match="PIL image: its colour model La is not read; save it as RGB"):
        Image.of(PIL.Image.new("La", (2, 2)))


def test_avif_and_webp_are_read(encode, pixels):
    for format_name in ("AVIF", "WEBP"):
        image = Image.of(encode(np.full((16, 16, 3), 100, np.uint8), format_name))
        assert image.info.format == format_name
        assert image.array.mean() == pytest.approx(100, abs=2)


def test_pfm_is_read_as_float():
    assert Image.of(b"Pf\n2 1\n-1.0\n" + struct.pack("<2f", 0.0, 1.0)).array[0, :, 0].tolist() == [0, 255]


def test_heic_is_read_where_a_plugin_is_registered(monkeypatch, pixels, encode):
    from PIL.PngImagePlugin import PngImageFile

    class Heif(PngImageFile):  # stands for pillow-heif: a plugin that knows the mark
        def __init__(self, file, name):
            file.seek(16)
            super().__init__(io.BytesIO(file.read()), name)

    data = b"\0\0\0\x20ftypheic\0\0\0\0" + encode(pixels, "PNG")
    with pytest.raises(MediaError, match="it is HEIC"):
        Image.of(data)
    monkeypatch.setitem(PIL.Image.OPEN, "HEIF", (Heif, lambda prefix: prefix[4:12] == b"ftypheic"))
    assert Image.of(data) == Image.of(pixels)


# Orientation ---------------------------------------------------------------------------------------------------------

# What the EXIF standard says of row 0 and column 0 of the stored picture, as what undoes it.
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored),
}


@pytest.mark.parametrize("format_name", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(tmp_path, encode, pixels, format_name, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format_name == "WEBP" else {}
    path = tmp_path / "a"
    path.write_bytes(encode(pixels, format_name, exif=exif, **options))
    image = Image.of(path)
    if format_name != "JPEG":
        np.testing.assert_array_equal(image.array, UPRIGHT[orientation](pixels))
    with PIL.Image.open(path) as opened:
        np.testing.assert_array_equal(image.array, np.asarray(PIL.ImageOps.exif_transpose(opened)))
    assert image.info.turned == (orientation > 1)
    assert image.size == ((5, 7) if orientation > 4 else (7, 5))


@pytest.mark.parametrize("orientation", [0, 9, 600])
def test_an_orientation_that_does_not_exist(encode, pixels, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    image = Image.of(encode(pixels, "PNG", exif=exif))
    np.testing.assert_array_equal(image.array, pixels)
    assert not image.info.turned


def test_a_broken_exif_block_does_not_cost_the_picture(encode, pixels):
    image = Image.of(encode(pixels, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff"))
    np.testing.assert_array_equal(image.array, pixels)


# Frames and pages ----------------------------------------------------------------------------------------------------

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


@pytest.fixture(params=["GIF", "TIFF", "PNG", "WEBP"])
def three(request, encode):
    """A file of three frames: red, green, blue."""
    frames = [PIL.Image.new("RGB", (4, 3), colour) for colour in COLOURS]
    lossless = {"lossless": True} if request.param == "WEBP" else {}
    timed = {} if request.param == "TIFF" else {"duration": 250}
    return encode(frames[0], request.param, save_all=True, append_images=frames[1:], **lossless, **timed)


def test_first_frame_or_the_page_asked_for(three):
    image = Image.of(three)
    assert image.array[0, 0].tolist() == list(COLOURS[0])
    assert (image.info.frames, image.info.frame) == (3, 0)
    assert "first of 3 frames" in image.info.notes
    for page, colour in enumerate(COLOURS):
        assert Image.of(three, page=page).array[0, 0].tolist() == list(colour)
        assert Image.of(three, page=page).info.frame == page


def test_all_frames(three):
    frames = list(Image.frames(three))
    assert [frame.array[0, 0].tolist() for frame in frames] == [list(colour) for colour in COLOURS]
    assert [frame.info.frame for frame in frames] == [0, 1, 2]


@pytest.mark.parametrize("page", [3, -1])
def test_a_page_that_does_not_exist(three, page):
    with pytest.raises(MediaError, match=f"bytes: has no page {page}; give a page from 0 to 2"):
        _ = Image.of(three, page=page).array


def test_only_files_have_pages(pixels):
    with pytest.raises(MediaError, match="only a file has pages"):
        Image.of(pixels, page=1)


def test_frames_of_one_picture(encode, pixels):
    (image,) = Image.frames(encode(pixels, "PNG"))
    assert image == Image.of(pixels)


def test_pages_of_several_sizes(encode):
    pages = [PIL.Image.new("L", size) for size in ((4, 3), (9, 2))]
    data = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert [page.size for page in Image.frames(data)] == [(4, 3), (9, 2)]


# DICOM ---------------------------------------------------------------------------------------------------------------


def test_dicom_without_pydicom(tmp_path, monkeypatch):
    path = tmp_path / "slice.dcm"
    path.write_bytes(bytes(128) + b"DICM" + bytes(64))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(
        MediaError, match=r"slice\.dcm: reading DICOM needs pydicom; run: pip install 'manylens\[dicom\]'"
    ):
        Image.of(path)


def dicom(path, values, **tags):
    pydicom = pytest.importorskip("pydicom")
    values = np.asarray(values, np.int16)
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.Rows, dataset.Columns = values.shape[-2:]
    if values.ndim == 3:
        dataset.NumberOfFrames = len(values)
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.PixelData = values.tobytes()
    for key, value in tags.items():
        setattr(dataset, key, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


WINDOW = {"WindowCenter": 40, "WindowWidth": 400}  # shows -160 to 240


@pytest.mark.parametrize(
    ("values", "tags", "expected"),
    [
        ([[-1000, -160, 40, 240, 3000]], WINDOW, [0, 0, 128, 255, 255]),
        ([[0, 864, 1064, 1264, 4000]], WINDOW | {"RescaleIntercept": -1024, "RescaleSlope": 1}, [0, 0, 128, 255, 255]),
        ([[-1000, 40, 3000]], WINDOW | {"PhotometricInterpretation": "MONOCHROME1"}, [255, 127, 0]),
        ([[-100, 0, 100]], {}, [0, 128, 255]),
        ([[7, 7]], {}, [0, 0]),
    ],
    ids=["window", "rescaled", "inverted", "no window", "flat"],
)
def test_dicom_window(tmp_path, values, tags, expected):
    image = Image.of(dicom(tmp_path / "slice.dcm", values, **tags))
    assert image.array[0, :, 0].tolist() == pytest.approx(expected, abs=1)
    assert (image.array[:, :, 0] == image.array[:, :, 2]).all()
    assert image.info.format == "DICOM"


def test_dicom_frames(tmp_path):
    path = dicom(tmp_path / "scan.dcm", [[[0, 10]], [[10, 0]]])
    assert [frame.array[0, :, 0].tolist() for frame in Image.frames(path)] == [[0, 255], [255, 0]]
    assert "first of 2 frames" in Image.of(path).info.notes
    with pytest.raises(MediaError, match="has no page 2"):
        _ = Image.of(path, page=2).array


def test_dicom_cut_short(tmp_path):
    path = dicom(tmp_path / "slice.dcm", np.zeros((40, 40)))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(MediaError, match=r"slice\.dcm: the DICOM pixels cannot be decoded"):
        _ = Image.of(path).array


def test_dicom_over_the_pixel_limit(tmp_path, monkeypatch):
    path = dicom(tmp_path / "slice.dcm", np.zeros((40, 40)))
    monkeypatch.setenv("MANYLENS_MAX_PIXELS", "1000")
    with pytest.raises(MediaError, match=r"slice\.dcm: 40 x 40"):
        Image.of(path)
