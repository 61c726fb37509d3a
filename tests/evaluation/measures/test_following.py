"""The protocol that judges a model's own ``track``."""

import pytest

from manylens import models
from manylens.data.problems import Problems
from manylens.errors import PromptError
from manylens.evaluation.measures.following import run
from manylens.media import bounds, to_rle
from manylens.tasks.results import Frame, Tracked, Tracks
from tests.evaluation import scripted
from tests.evaluation.scripted import Scripted, annotation, record, rectangle

SIZE = (64, 48)


def square(t, x=8):
    return rectangle(SIZE, (x + 4 * t, 8, x + 16 + 4 * t, 28))


@pytest.fixture
def frames(tmp_path):
    """A video of five frames with two objects, of which the second stands still."""
    made = []
    for t in (3, 0, 4, 1, 2):
        both = [
            annotation(f"a{t}", square(t), "box", columns={"track": "moves"}),
            annotation(f"b{t}", square(0, 40), "box", columns={"track": "a stone"}),
        ]
        made.append(record(tmp_path, f"f{t}", *both, size=SIZE, columns={"video": "clip", "frame": t}))
    return made


@pytest.fixture
def session(make_session, monkeypatch):
    monkeypatch.setitem(models.FAMILIES, "scripted", scripted.FAMILY)
    Scripted.answer, Scripted.asked = staticmethod(standing_still), []
    return make_session(scripted.row(tasks="track = ['mask']"))


def standing_still(request):
    objects = tuple(
        Tracked(number, bounds(prompt.mask), 1.0, dict(to_rle(prompt.mask)))
        for number, prompt in enumerate(request.prompts(), 1)
    )
    return Tracks(frames=tuple(Frame(t, objects) for t in range(request.video.count)), width=64, height=48)


def test_a_tracker_is_given_the_first_masks_and_judged_on_the_others(session, frames):
    kept = {}
    tally = run(frames, session, problems=Problems(), last=True, on_unit=kept.__setitem__)
    overlap = dict(zip(tally.units.ids, tally.numerators[:, 1], strict=True))
    assert overlap["clip/a stone"] == 1
    expected = [(16 - 4 * t) / (16 + 4 * t) for t in (1, 2, 3, 4)]
    assert overlap["clip/moves"] == pytest.approx(sum(max(0, j) for j in expected) / 4)
    assert len(Scripted.asked) == 1
    assert [prompt.kinds() for prompt in Scripted.asked[0].prompts()] == [{"mask"}, {"mask"}]
    assert run(frames, None, problems=Problems(), done=kept).all() == tally.all()


def test_a_video_that_cannot_be_followed_is_told_and_left_out(session, frames):
    def fails(request):
        raise PromptError("clip: nothing to follow")

    Scripted.answer = staticmethod(fails)
    problems = Problems()
    assert len(run(frames, session, problems=problems).units) == 0
    assert [(one.kind, one.id) for one in problems] == [("model failed", "f0")]
