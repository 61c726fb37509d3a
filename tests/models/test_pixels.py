"""The whole picture as a network takes it, to the byte: features that are kept depend on it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from manylens.models import pixels
from manylens.models.adapted.picture import PREPROCESSING, square


@pytest.mark.parametrize(
    ("shape", "size", "how"),
    [
        ((300, 400), (224, 224), cv2.INTER_AREA),
        ((100, 400), (224, 224), cv2.INTER_AREA),  # one side grows
        ((224, 225), (224, 224), cv2.INTER_AREA),
        ((100, 224), (224, 224), cv2.INTER_CUBIC),
        ((30, 20), (224, 224), cv2.INTER_CUBIC),
        ((224, 224), (224, 224), cv2.INTER_CUBIC),
        ((300, 400), (560, 420), cv2.INTER_CUBIC),
        ((600, 800), (560, 420), cv2.INTER_AREA),
        ((420, 560), (560, 420), cv2.INTER_CUBIC),
    ],
)
def test_a_picture_is_squeezed_as_ever(shape, size, how):
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    expected = cv2.resize(rgb, size, interpolation=how)
    found = pixels.squeezed(rgb, size)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    if size == (224, 224):
        np.testing.assert_array_equal(square(rgb, 224), expected)


def test_the_version_in_the_keys_is_that_of_these_pixels():
    assert PREPROCESSING == "square-1"
