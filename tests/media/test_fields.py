"""Media as fields of pydantic models, and what importing them costs."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, TypeAdapter

from manylens.errors import MediaError
from manylens.media import Audio, Image, Mask, MaskInput, Series, Video, to_rle


class Ask(BaseModel):
    image: Image
    mask: MaskInput | None = None
    other: Mask | None = None


def test_a_field_takes_what_of_takes(tmp_path, pixels, encode):
    path = tmp_path / "a.png"
    path.write_bytes(encode(pixels, "PNG"))
    for source in (str(path), path, pixels, path.read_bytes(), Image.of(path)):
        assert Ask(image=source).image == Image.of(pixels)
    assert Ask.model_validate_json(json.dumps({"image": str(path)})).image.name == "a.png"


def test_a_bad_file_raises_its_own_error():
    with pytest.raises(MediaError, match=r"none\.png: no such file"):
        Ask(image="none.png")


def test_written_out_as_a_summary(pixels):
    image = Image.of(pixels)
    mask = np.eye(5, 7, dtype=bool)
    assert Ask(image=image, mask=mask).model_dump(mode="json") == {
        "image": image.summary(),
        "mask": to_rle(mask),
        "other": None,
    }


@pytest.mark.parametrize("field", ["mask", "other"])
def test_a_mask_is_an_array(pixels, field):
    mask = np.eye(5, 7, dtype=bool)
    for source in (mask, to_rle(mask), mask.astype(np.uint8)):
        value = getattr(Ask(image=pixels, **{field: source}), field)
        assert isinstance(value, np.ndarray)
        np.testing.assert_array_equal(value, mask)
    with pytest.raises(MediaError, match="mask: its type is float64"):
        Ask(image=pixels, **{field: mask * 0.5})


@pytest.mark.parametrize(
    ("kind", "format_name"), [(Image, "image"), (Audio, "audio"), (Video, "video"), (Series, "series")]
)
def test_json_schema(kind: Any, format_name):
    schema = TypeAdapter(kind).json_schema()
    assert (schema["type"], schema["format"]) == ("string", format_name)
    assert TypeAdapter(kind).json_schema(mode="serialization")["type"] == "object"


def test_json_schema_of_a_mask():
    path, rle = TypeAdapter(MaskInput).json_schema()["anyOf"]
    assert (path["type"], path["format"]) == ("string", "mask")
    assert rle["required"] == ["size", "counts"]


def test_equal_content_of_two_kinds_is_not_equal():
    assert Series([0.0], {"a": [1.0]}) != Image.of(np.zeros((1, 1, 3), np.uint8))
    assert Image.of(np.zeros((1, 1, 3), np.uint8)) != "picture"


def test_importing_media_loads_nothing_heavy():
    heavy = {"PIL.Image", "pydantic_core", "pycocotools", "av", "pydicom", "torch", "scipy", "cv2"}
    code = f"import sys, manylens.media; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
