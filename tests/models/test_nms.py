import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from manylens.models.nms import iou_matrix, nms


def one_iou(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union > 0 else 0.0


def naive(boxes, scores, classes, iou, limit):
    kept = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if len(kept) < limit and all(classes[i] != classes[j] or one_iou(boxes[i], boxes[j]) <= iou for j in kept):
            kept.append(i)
    return kept


@st.composite
def cases(draw):
    count = draw(st.integers(0, 12))
    # Small whole numbers: many equal corners, touching boxes and empty ones, and exact arithmetic.
    corners = draw(arrays(np.float64, (count, 4), elements=st.integers(0, 6).map(float)))
    boxes = np.hstack([np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])])
    scores = draw(arrays(np.float64, count, elements=st.integers(0, 4).map(lambda n: n / 4)))
    return boxes, scores, draw(arrays(np.int64, count, elements=st.integers(0, 2)))


@given(cases(), st.sampled_from([0.0, 0.3, 0.6, 1.0]), st.sampled_from([1, 3, 100]))
def test_equals_the_naive_loop(case, iou, limit):
    boxes, scores, classes = case
    assert nms(boxes, scores, classes, iou=iou, limit=limit).tolist() == naive(boxes, scores, classes, iou, limit)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1.0),
        ([0, 0, 2, 2], [1, 0, 3, 2], 1 / 3),
        ([0, 0, 2, 2], [2, 0, 4, 2], 0.0),
        ([0, 0, 2, 2], [1, 1, 1, 1], 0.0),
        ([1, 1, 1, 1], [1, 1, 1, 1], 0.0),
    ],
)
def test_iou(a, b, expected):
    assert iou_matrix(np.array([a], float), np.array([b], float))[0, 0] == pytest.approx(expected)
