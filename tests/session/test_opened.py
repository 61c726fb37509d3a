"""What the door opens for work that keeps state."""

from contextlib import ExitStack

import numpy as np
import pytest

from manylens import models
from manylens.errors import UnsupportedError
from manylens.media import Image, Video
from manylens.session import Clicks
from manylens.tasks import detections
from tests.session.fakes import Fake, row

FRAMES = [np.full((8, 12, 3), value, np.uint8) for value in range(3)]


class Follower(Fake):
    """Keeps the video that it is given."""

    def open(self, media, ctx):
        return media, ctx.rng().integers(1000)


@pytest.fixture
def session(make_session, monkeypatch):
    monkeypatch.setitem(models.FAMILIES, "follower", f"{__name__}:Follower")
    return make_session(
        row("follower", "track = ['points']", family="follower"),
        row("masks", "track = ['mask']", family="follower"),
        row("words", "classify = ['closed']"),
    )


def test_a_video_is_opened_without_saying_yet_what_to_follow(session):
    with session.open("track", FRAMES, model="manylens/follower", seed=3) as opened:
        video, number = opened.state
        assert isinstance(video, Video)
        assert video.count == 3
        assert number == np.random.default_rng(3).integers(1000)
    assert opened.closed


def test_a_model_that_takes_no_clicks_cannot_be_opened_for_them(session):
    with pytest.raises(UnsupportedError, match="cannot track with points; it takes mask"):
        session.open("track", FRAMES, model="manylens/masks")


class TestClicksRefine:
    """Each click brings the low-resolution mask of the one before it."""

    def session(self, seen):
        class Fake:
            def run(self, request, *, model, seed):
                seen.append(request.previous)
                return detections([[0, 0, 1, 1]], [0.9], low_res=np.full((1, 2, 2), len(seen), np.float32))

        return Fake()

    def test_the_mask_of_the_click_before_goes_in(self):
        seen: list = []
        image = Image.of(np.zeros((9, 9, 3), np.uint8))
        with Clicks(self.session(seen), image, None, 0, ExitStack()) as clicks:
            clicks.click(1, 1)
            clicks.click(2, 2)
            clicks.undo()  # asks for the first click again
            clicks.click(3, 3)
            clicks.reset()
            clicks.click(4, 4)
        assert [None if one is None else float(one[0, 0]) for one in seen] == [None, 1, None, 3, None]
