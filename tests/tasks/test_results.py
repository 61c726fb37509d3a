import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.errors import UserError
from manylens.media import to_rle
from manylens.tasks import (
    Answer,
    Classification,
    Embedding,
    Evidence,
    Frame,
    Label,
    Provenance,
    Reading,
    TextLine,
    Tracked,
    Tracks,
    detections,
    to_json,
    with_provenance,
)
from manylens.tasks.parse import from_json
from manylens.tasks.results import LOW_RES, Depth

PROVENANCE = Provenance(task="x", model="m", weights="w", prompt={"points": [[1.0, 2.0]]}, seconds=0.5, inputs=("a",))


def _masks() -> np.ndarray:
    masks = np.zeros((3, 20, 30), bool)
    masks[0, 2:9, 3:12] = masks[1, 10:, :] = masks[2, 0, 0] = True
    return masks


def test_detections_are_ordered_by_score_with_all_their_columns():
    found = detections(
        [[0, 0, 1, 1], [1, 1, 2, 2], [2, 2, 3, 3]],
        [0.2, 0.9, 0.5],
        masks=_masks(),
        names=["low", "high", "mid"],
        objects=[0, 1, 2],
        levels=["whole", "part", "subpart"],
    )
    assert found.confidence.tolist() == pytest.approx([0.9, 0.5, 0.2])
    assert list(found.data["class_name"]) == ["high", "mid", "low"]
    assert found.data["object"].tolist() == [1, 2, 0]
    assert list(found.data["level"]) == ["part", "subpart", "whole"]
    assert found.xyxy[0].tolist() == [1, 1, 2, 2]
    assert (found.mask[0] == _masks()[1]).all()


def test_no_detections_is_a_result_too():
    assert to_json(detections([], [])) == {"type": "detections", "detections": [], "provenance": None}


@pytest.mark.parametrize(
    "result",
    [
        Classification((Label("cat", 0.75), Label("dog", 0.25)), provenance=PROVENANCE),
        Answer("two", kind="count", score=0.5, evidence=(Evidence("box", "cat", 0.9, (1.0, 2.0, 3.0, 4.0), "detect"),)),
        Reading((TextLine("OPEN", 0.9, (1.0, 2.0, 3.0, 4.0), ((1.0, 2.0), (3.0, 2.0), (3.0, 4.0), (1.0, 4.0))),)),
    ],
)
def test_json_round_trip(result):
    assert from_json(json.loads(json.dumps(to_json(result)))) == result


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=20))
def test_vectors_round_trip(values):
    vector = np.asarray(values, np.float32)
    again = from_json(json.loads(json.dumps(to_json(Embedding(vector, "s")))))
    assert (again.vector == vector).all()
    assert again.vector.dtype == np.float32


def test_detections_round_trip_with_masks_and_provenance():
    found = detections(
        [[0, 0, 9, 9]] * 3, [0.9, 0.5, 0.25], masks=_masks(), names=["a", "b", "c"], things=[True, False, True]
    )
    with_provenance(found, PROVENANCE)
    again = from_json(json.loads(json.dumps(to_json(found))))
    assert (again.mask == found.mask).all()
    assert again.confidence.tolist() == found.confidence.tolist()
    assert {key: list(value) for key, value in again.data.items()} == {
        key: list(value) for key, value in found.data.items()
    }
    assert again.metadata["provenance"] == PROVENANCE


def test_what_json_does_not_hold_is_refused():
    with pytest.raises(UserError, match="'depth' cannot be read back"):
        from_json(to_json(Depth(np.zeros((4, 4), np.float32))))


def _tracks() -> Tracks:
    masks = _masks()
    rows = [Tracked(2, (0, 10, 30, 20), 0.5, to_rle(masks[1]), "dog"), Tracked(1, (3, 2, 12, 9), 0.9, to_rle(masks[0]))]
    return Tracks((Frame(0, tuple(rows)), Frame(1), Frame(2, (rows[0],))), width=30, height=20, fps=12.5)


def test_tracks_give_detections_frame_by_frame():
    tracks = _tracks()
    first, empty, last = tracks
    assert (len(tracks), tracks.ids) == (3, (1, 2))
    assert list(first.tracker_id) == [1, 2]  # the best first
    assert list(first.data["object"]) == [0, 1]
    assert list(first.data["class_name"]) == ["", "dog"]
    assert (first.mask == _masks()[:2]).all()
    assert len(empty) == 0
    assert empty.mask.shape == (0, 20, 30)
    assert list(last.tracker_id) == list(tracks[2].tracker_id) == [2]


def test_tracks_come_back_from_json():
    tracks = with_provenance(_tracks(), PROVENANCE)
    assert from_json(json.loads(json.dumps(to_json(tracks)))) == tracks


def test_low_resolution_masks_follow_the_order_of_scores():
    low = np.arange(3, dtype=np.float32)[:, None, None] * np.ones((3, 2, 2), np.float32)
    found = detections([[0, 0, 1, 1]] * 3, [0.2, 0.9, 0.5], low_res=low)
    assert found.metadata[LOW_RES][:, 0, 0].tolist() == [1, 2, 0]
    assert "low_res" not in detections([], []).metadata
