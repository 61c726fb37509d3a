"""Run lengths against pycocotools."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from manylens.data import rle

masks = hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


@given(masks)
def test_area_and_bounds_are_those_of_pycocotools(mask):
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    lengths = rle.runs(encoded)
    assert rle.area(lengths) == coco.area(encoded) == mask.sum()
    if mask.any():
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert rle.bounds(encoded, lengths) == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    uncompressed = {"size": list(mask.shape), "counts": lengths.tolist()}
    assert rle.packed(uncompressed) == {"size": list(mask.shape), "counts": encoded["counts"].decode()}
    assert rle.packed(encoded) == rle.packed(uncompressed)


@pytest.mark.parametrize("run", [1, 31, 32, 1000, 10**6, 5 * 10**8])
def test_long_runs(run):
    given_counts = [run, 3, run // 2, 1, 7, run]
    size = [1, sum(given_counts)]
    packed = coco.frPyObjects({"size": size, "counts": given_counts}, *size)
    assert rle.runs(packed).tolist() == given_counts


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({}, "no size"),
        ({"size": [2, 2]}, "no size"),
        ({"size": [2], "counts": "04"}, "no size"),
        ({"size": [0, 2], "counts": "04"}, "size 0 x 2"),
        ({"size": [2, 2], "counts": "05"}, "do not fill"),
        ({"size": [2, 2], "counts": ""}, "do not fill"),
        ({"size": [2, 2], "counts": "0\x7f"}, "not COCO's string"),
        ({"size": [2, 2], "counts": "0é"}, "do not fill|not COCO's"),
        ({"size": [2, 2], "counts": "0T"}, "cut short"),
        ({"size": [2, 2], "counts": "P" * 20 + "0"}, "not COCO's string"),
        ({"size": [2, 2], "counts": [1.5, 2.5]}, "whole numbers"),
        ({"size": [2, 2], "counts": [[1], [2, 3]]}, "whole numbers"),
        ({"size": [2, 2], "counts": [6, -2]}, "do not fill"),
        ({"size": [2, 2], "counts": [2**62, 2**62, 2**62, 2**62, 4]}, "do not fill"),  # 4 in 64 bits
        ({"size": [2, 2], "counts": None}, "whole numbers"),
    ],
)
def test_broken(broken, said):
    with pytest.raises(ValueError, match=said):
        rle.runs(broken)
