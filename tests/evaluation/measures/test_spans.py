import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from manylens.errors import MediaError
from manylens.evaluation.measures.spans import Spans
from manylens.media import to_rle

seeds = st.integers(0, 2**32 - 1)


def drawn(rng, size, count):
    """Masks of every kind: empty, full, dotted, in blobs."""
    kinds = rng.choice([0, 1, 0.1, 0.5, 0.9], count)
    masks = rng.random((count, *size)) < kinds[:, None, None]
    blobs = rng.random(count) < 0.5
    masks[blobs] = np.kron(masks[blobs][:, ::3, ::3], np.ones((3, 3), bool))[:, : size[0], : size[1]]
    return masks


def tiled(rng, size, count):
    """Masks of which no two share a pixel; some may be empty, and some pixels are in none."""
    ids = rng.integers(0, count + 1, size) if rng.random() < 0.5 else np.sort(rng.integers(0, count + 1, size), axis=0)
    return ids == np.arange(1, count + 1)[:, None, None]


def spans_of(masks, size):
    return Spans.of([to_rle(mask) for mask in masks], size)


@settings(max_examples=50, deadline=None)
@given(seeds)
def test_spans_are_the_pixels_that_pycocotools_decodes(seed):
    rng = np.random.default_rng(seed)
    size = tuple(int(side) for side in rng.integers(1, 40, 2))
    rles = [coco.encode(np.asfortranarray(mask, np.uint8)) for mask in drawn(rng, size, int(rng.integers(0, 6)))]
    spans = Spans.of(rles, size)
    flat = np.zeros((len(rles), size[0] * size[1]), np.uint8)
    for start, end, owner in zip(spans.starts, spans.ends, spans.owners, strict=True):
        assert start < end
        flat[owner, start:end] += 1
    decoded = [coco.decode(one) for one in rles]
    assert all((one == row.reshape(size[::-1]).T).all() for row, one in zip(flat, decoded, strict=True))
    assert spans.pixels == sum(int(one.sum()) for one in decoded)
    assert spans.empty().tolist() == [i for i, one in enumerate(decoded) if not one.any()]


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_a_table_is_the_count_of_pixels(seed):
    rng = np.random.default_rng(seed)
    size = tuple(int(side) for side in rng.integers(1, 30, 2))
    sides = [tiled(rng, size, int(rng.integers(0, 5))) for _ in range(2)]
    # Row 0 of each side is what none of its masks holds.
    one, other = (np.concatenate([~side.any(axis=0)[None], side]).astype(np.int64) for side in sides)
    table = spans_of(sides[0], size).table(spans_of(sides[1], size))
    assert (table == np.einsum("ihw,jhw->ij", one, other)).all()


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_there_is_no_table_exactly_where_masks_overlap(seed):
    rng = np.random.default_rng(seed)
    size = tuple(int(side) for side in rng.integers(1, 9, 2))
    draws = [(tiled, drawn)[int(rng.integers(2))](rng, size, int(rng.integers(0, 4))) for _ in range(2)]
    overlap = [bool((masks.sum(axis=0) > 1).any()) for masks in draws]
    one, other = (spans_of(masks, size) for masks in draws)
    assert [one.overlap, other.overlap] == overlap
    assert (one.table(other) is None) == any(overlap)


@pytest.mark.parametrize(
    "runs", [[0, 20], [20], [3, 4, 13], [0, 1, 19], [0, 0, 5, 15], [3, 0, 4, 13], [1, 2, 3, 4, 10]]
)
def test_counts_may_be_a_list(runs):
    spans = Spans.of([{"size": [4, 5], "counts": runs}], (4, 5))
    stops = np.cumsum(runs)
    expected = [(stop - run, stop) for run, stop in zip(runs[1::2], stops[1::2], strict=True) if run]
    assert list(zip(spans.starts.tolist(), spans.ends.tolist(), strict=True)) == expected


@pytest.mark.parametrize(
    "counts",
    [
        "",
        "0",  # no pixel at all
        "e0",  # 21 off
        "64",  # 6 off, 4 on, and no more
        "6N`0",  # 6 off, -2 on, 16 off
        "123M<",  # 1, 2, 3, then 2 - 3 on and 3 + 12 off
        "0?",
        "P",  # another character should follow
        "oooooooooooo?",
        "6\x7f",
        "6é",
    ],
)
def test_what_is_no_rle_of_the_size_is_refused(counts):
    good = to_rle(np.ones((4, 5)))
    for masks in ([{"size": [4, 5], "counts": counts}], [good, {"size": [4, 5], "counts": counts}, good]):
        with pytest.raises(MediaError):
            Spans.of(masks, (4, 5))


@pytest.mark.parametrize("mask", [{}, {"size": [5, 4], "counts": "d0"}, {"size": 20, "counts": "d0"}])
def test_what_has_not_the_size_is_refused(mask):
    with pytest.raises(MediaError):
        Spans.of([mask], (4, 5))


def test_runs_that_would_come_back_to_0_in_64_bits_are_refused():
    huge, less = "P" * 11 + "8", "d" + "P" * 10 + "H"  # 2^58 and 20 - 2^58: 64 runs of 2^58, one of 20
    with pytest.raises(MediaError):
        Spans.of([{"size": [4, 5], "counts": huge * 3 + "0" * 61 + less}], (4, 5))
