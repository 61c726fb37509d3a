import numpy as np
import pytest

from manylens.errors import WeightsError
from manylens.models.ppocr import MAX_PIXELS, _pipeline, in_reading_order, sheet_of
from manylens.runtime.engines import EngineSettings
from manylens.tasks import ReadRequest, TextLine

PPOCR = "manylens/ppocr"


def line(text, x0, y0, x1, y1):
    return TextLine(text, 1.0, (x0, y0, x1, y1))


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([], ""),
        ([("b", 0, 20, 10, 30), ("a", 0, 0, 10, 10)], "ab"),
        ([("b", 50, 2, 90, 12), ("a", 0, 0, 40, 10)], "ab"),
        ([("b", 50, 0, 90, 10), ("a", 0, 3, 40, 13), ("c", 0, 30, 9, 40)], "abc"),  # the left one hangs lower
        ([("c", 0, 8, 40, 18), ("a", 0, 0, 40, 7), ("b", 50, 1, 90, 8)], "abc"),
    ],
)
def test_reading_order(boxes, expected):
    assert "".join(found.text for found in in_reading_order([line(*box) for box in boxes])) == expected


def test_a_package_without_models_is_an_error_of_the_weights(tmp_path):
    with pytest.raises(WeightsError, match="install rapidocr again"):
        _pipeline(tmp_path, EngineSettings())


@pytest.mark.parametrize(
    ("shape", "sheet", "scale"),
    [
        ((600, 800), (600, 800), 1),
        ((1, 1), (32, 32), 1),
        ((5, 900), (300, 900), 1),
        ((900, 5), (900, 300), 1),
        ((2000, 20000), (731, 2191), 0.1095),
        ((3, 20000), (731, 2191), 0.1095),
        ((4000, 4000), (1265, 1265), 0.3162),
    ],
)
def test_no_sheet_is_large_or_thin(shape, sheet, scale):
    found, factor = sheet_of(np.full((*shape, 3), 7, np.uint8))
    assert found.shape == (*sheet, 3)
    assert found.shape[0] * found.shape[1] <= 1.01 * MAX_PIXELS
    assert factor == pytest.approx(scale, abs=1e-4)
    assert (found == 7).all()


@pytest.mark.weights
def test_boxes_are_in_pixels_of_the_picture_when_it_was_reduced(run, example):
    from PIL import Image

    small = Image.open(example("sign.png")).convert("RGB")
    large = small.resize((4800, 3600))
    notes = []
    read = [run(PPOCR, ReadRequest.of(image=picture), notes=notes).lines[0] for picture in (small, large)]
    assert read[1].text == read[0].text == "FRESH COFFEE"
    assert np.array(read[1].box) / 6 == pytest.approx(read[0].box, abs=6)
    assert notes == ["PIL image: read at 30% of its size; small letters may be lost"]


@pytest.mark.weights
def test_the_sign_is_read(run, example):
    found = run(PPOCR, ReadRequest.of(image=example("sign.png")))
    assert found.text == "FRESH COFFEE\nOPEN DAILY\n8 AM TO 6 PM"
    for read in found.lines:
        x0, y0, x1, y1 = read.box
        assert read.score > 0.9
        assert 0 <= x0 < x1 <= 800
        assert 0 <= y0 < y1 <= 600
        assert len(read.polygon) == 4
        assert {x for x, _ in read.polygon} >= {x0, x1}


@pytest.mark.weights
@pytest.mark.parametrize("turned", [False, True])
def test_drawn_words_are_read(run, turned):
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (640, 200), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((20, 20), "Hello World", fill="black", font=ImageFont.load_default(48))
    draw.text((380, 120), "Room 42", fill="navy", font=ImageFont.load_default(40))
    found = run(PPOCR, ReadRequest.of(image=picture.rotate(180) if turned else picture))
    assert {text.text for text in found.lines} == {"Hello World", "Room 42"}
    if not turned:
        assert found.text == "Hello World\nRoom 42"
        assert found.lines[1].box == pytest.approx((380, 125, 540, 165), abs=15)


@pytest.mark.weights
@pytest.mark.parametrize("shape", [(300, 400), (1, 1), (5, 900), (900, 5), (3, 20000), (20000, 3)])
def test_a_picture_without_text_has_no_lines(run, shape):
    found = run(PPOCR, ReadRequest.of(image=np.full((*shape, 3), 200, np.uint8)))
    assert found.lines == ()
    assert found.text == ""


@pytest.mark.weights
def test_nothing_is_fetched_or_logged(run, weights, example, monkeypatch, capfd):
    import socket

    def refuse(*args, **kwargs):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    from manylens import models
    from manylens.catalog import Catalog
    from manylens.runtime.context import Context

    model = models.load(Catalog.load()[PPOCR], weights(PPOCR), EngineSettings())
    assert next(model.run([ReadRequest.of(image=example("sign.png"))], Context())).lines
    assert capfd.readouterr() == ("", "")
