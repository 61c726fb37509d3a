"""Labels carried through frames: against a slow version, through a session, and on a real encoder."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens import models
from manylens.data.problems import DataError, Problems
from manylens.data.records import Annotation, Record
from manylens.errors import UnsupportedError
from manylens.evaluation.measures.boundaries import outline_agreement, region_overlap
from manylens.evaluation.measures.propagation import Propagation, run
from manylens.evaluation.measures.tracks import JFMeasure
from manylens.evaluation.tally import Tally
from manylens.media import to_rle
from manylens.tasks import Embedding
from tests.evaluation import scripted
from tests.evaluation.scripted import Scripted, annotation, record, rectangle

SIZE = (64, 48)


def slowly(features, labels, how):
    """The published procedure, patch by patch: affinities, neighbourhood, top k, shares, weighted labels."""
    rows, columns, _ = labels.shape
    unit = [f / np.linalg.norm(f, axis=2, keepdims=True) for f in features]
    done = [labels]
    for t in range(1, len(features)):
        context = sorted({0, *range(max(1, t - how.context), t)})
        made = np.zeros(labels.shape)
        for y, x in np.ndindex(rows, columns):
            found = []
            for s in context:
                for v, u in np.ndindex(rows, columns):
                    if how.radius is None or max(abs(v - y), abs(u - x)) <= how.radius:
                        found.append((np.exp(unit[t][y, x] @ unit[s][v, u] / how.temperature), done[s][v, u]))
            found.sort(key=lambda pair: -pair[0])
            best = found[: how.neighbours]
            made[y, x] = sum(w * label for w, label in best) / sum(w for w, _ in best)
        done.append(made)
    return done[1:]


@settings(max_examples=15, deadline=None)
@given(
    st.integers(2, 4),
    st.integers(2, 4),
    st.sampled_from([None, 0, 1, 2]),
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(0, 2**16),
)
def test_it_is_the_published_procedure(rows, columns, radius, neighbours, context, seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(5, rows, columns, 4))
    labels = rng.dirichlet(np.ones(3), (rows, columns))
    how = Propagation(neighbours=neighbours, radius=radius, context=context)
    expected = slowly(features, labels, how)
    for found, wanted in zip(how.through(iter(features), labels), expected, strict=True):
        assert found == pytest.approx(wanted, abs=1e-4)


def test_memory_is_bounded_and_changes_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(4, 6, 5, 3)), rng.dirichlet(np.ones(2), (6, 5))
    whole = list(Propagation(radius=2).through(features, labels))
    monkeypatch.setattr("manylens.models.dense.propagation._CELLS", 100)
    assert np.array(list(Propagation(radius=2).through(features, labels))) == pytest.approx(np.array(whole))


class TestMasks:
    def test_the_largest_label_is_taken_at_each_pixel(self):
        labels = np.zeros((3, 4, 2), np.float32)
        labels[:, :2, 0] = labels[:, 2:, 1] = 1
        assert (Propagation().masks(labels, (40, 30)) == (np.arange(40) >= 20)).all()

    def test_a_weak_label_is_stretched_as_published(self):
        labels = np.full((2, 2, 2), 0.5, np.float32)
        labels[0, 0] = [0.6, 0.4]
        labels[..., 0] += 0.1
        assert Propagation(sharpen=False).masks(labels, (2, 2)).tolist() == [[0, 0], [0, 0]]
        assert Propagation().masks(labels, (2, 2)).tolist() == [[0, 1], [1, 1]]


# ---------------------------------------------------------------------- a video through a session


def square(t, x=8):
    return rectangle(SIZE, (x + 4 * t, 8, x + 16 + 4 * t, 28))


@pytest.fixture
def frames(tmp_path):
    """Two videos of five frames: one object that moves right by a patch a frame; two that stand still."""
    made = []
    for t in range(5):
        moves = annotation(f"m{t}", square(t), "box", columns={"track": 0, "speed": "fast"})
        made.append(record(tmp_path, f"moves{t}", moves, size=SIZE, columns={"video": "moves", "frame": t}))
        both = [annotation(f"s{t}{x}", square(0, x), "box", columns={"track": x}) for x in (4, 32)]
        made.append(record(tmp_path, f"stands{t}", *both, size=SIZE, columns={"video": "stands", "frame": t}))
    return [made[i] for i in np.random.default_rng(1).permutation(len(made))]


@pytest.fixture
def session(make_session, monkeypatch, frames):
    """Patch features of 4 x 4 pixels that tell the object from all else, and places of it apart."""
    monkeypatch.setitem(models.FAMILIES, "scripted", scripted.FAMILY)
    shown = {one.image().id: one for one in frames}
    rng = np.random.default_rng(0)
    codes = {(name, part): rng.normal(size=32) for name in ("0", "4", "32") for part in range(20)}
    ground = rng.normal(size=(SIZE[1] // 4, SIZE[0] // 4, 32))

    def answer(request):
        one = shown[request.image.id]
        dense = ground.copy()
        t = one.columns["frame"]
        for name in [str(a.columns["track"]) for a in one.annotations]:
            mask = square(t) if name == "0" else square(0, int(name))
            cells = np.argwhere(mask[::4, ::4])
            for part, (y, x) in enumerate(cells):
                dense[y, x] = codes[name, part]
        return Embedding(vector=np.ones(2, np.float32), space="test", dense=dense.astype(np.float32))

    Scripted.answer, Scripted.asked = staticmethod(answer), []
    return make_session(scripted.row(tasks="embed = ['image', 'dense']"))


def test_features_that_tell_patches_apart_carry_masks_without_loss(session, frames):
    kept = {}
    tally = run(frames, session, problems=Problems(), columns=["speed"], on_unit=kept.__setitem__)
    assert tally.units.ids == ["moves/0", "stands/32", "stands/4"]
    assert tally.units.clusters == ["moves", "stands", "stands"]
    assert tally.units.columns == {"speed": ["fast", None, None], "class": ["box"] * 3, "size": ["small"] * 3}
    figures = tally.all()
    assert figures["J"] > 0.95
    assert figures["F"] > 0.95
    assert figures["J&F"] == pytest.approx((figures["J"] + figures["F"]) / 2)
    assert all(request.dense for request in Scripted.asked)

    Scripted.asked.clear()
    again = run(frames, session, problems=Problems(), done={"moves/0": kept["moves/0"]})
    assert again.all() == figures
    assert len(Scripted.asked) == 5
    assert run(frames, None, problems=Problems(), done=kept).all() == figures


def test_a_radius_too_small_loses_what_moves(session, frames):
    tally = run(frames, session, problems=Problems(), how=Propagation(radius=0, context=0))
    overlap = dict(zip(tally.units.ids, tally.numerators[:, 1], strict=True))
    assert overlap["moves/0"] < 0.7
    assert overlap["stands/4"] > 0.95


def test_what_cannot_be_judged_is_told(session, frames, tmp_path):
    (tmp_path / "moves2.png").unlink()
    late = annotation("late", square(0, 40), "box", columns={"track": "late"})
    lost = Record("lost", frames[0].path, *SIZE, annotations=(late,))
    bare = [
        record(tmp_path, f"bare{t}", *([] if t == 0 else [late]), size=SIZE, columns={"video": "bare", "frame": t})
        for t in range(3)
    ]
    mixed = [*frames, lost, *bare]
    at = next(i for i, one in enumerate(mixed) if one.id == "stands2")
    mixed[at] = replace(mixed[at], annotations=(*mixed[at].annotations, late))
    problems = Problems()
    tally = run(mixed, session, problems=problems)
    assert tally.units.ids == ["moves/0", "stands/32", "stands/4"]
    assert {(p.kind, p.id) for p in problems} == {
        ("missing image", "moves2"),
        ("no frame", "lost"),
        ("no first mask", "bare0"),
        ("late object", "stands/late"),
    }
    assert tally.all()["J"] > 0.95


def test_a_video_begins_with_what_is_followed(session, frames):
    cut = [one for one in frames if one.columns["video"] == "moves"]
    first = next(one for one in cut if one.columns["frame"] == 0)
    broken = Annotation("x", "box", mask={"size": [48, 64], "counts": [7]}, columns={"track": 0})
    problems = Problems()
    cut[cut.index(first)] = Record(first.id, first.path, *SIZE, annotations=(broken,), columns=first.columns)
    assert len(run(cut, session, problems=problems).units) == 0
    assert [(p.kind, p.id) for p in problems] == [("no first mask", "moves0")]
    with pytest.raises(DataError):
        run(cut, session, problems=Problems(strict=True))


def test_a_model_without_patch_features_ends_the_run_in_one_line(make_session, session, frames):
    with pytest.raises(UnsupportedError, match="dense"):
        run(frames, make_session(scripted.row(tasks="embed = ['image']")), problems=Problems())


# ---------------------------------------------------------------------- tracks that somebody made


def saved(frames, **options):
    """A measure that was given each frame's own truth, less what ``drop`` leaves away, or changed by ``change``."""
    change = options.pop("change", lambda one, name, mask: mask)
    measure = JFMeasure(**options)
    for one in frames:
        masks = {str(a.columns["track"]): change(one, str(a.columns["track"]), a.mask) for a in one.annotations}
        measure.add(one, {name: mask for name, mask in masks.items() if mask is not None})
    return measure


class TestSavedTracks:
    def test_truth_scores_1_and_nothing_0(self, frames):
        assert saved(frames).tally().all() == {"J&F": 1, "J": 1, "F": 1}
        nothing = saved(frames, change=lambda one, name, mask: None).tally()
        assert nothing.all() == {"J&F": 0, "J": 0, "F": 0}
        assert nothing.units.ids == ["moves/0", "stands/32", "stands/4"]

    @pytest.mark.parametrize(("last", "judged"), [(False, [1, 2, 3]), (True, [1, 2, 3, 4])])
    def test_the_mean_over_the_frames_between(self, frames, last, judged):
        wrong = {t: square(t, 8 + t) for t in range(5)}
        tally = saved(
            frames, last=last, change=lambda one, name, mask: wrong[one.columns["frame"]] if name == "0" else mask
        ).tally()
        overlaps = [region_overlap(wrong[t], square(t)) for t in judged]
        outlines = [outline_agreement(wrong[t], square(t)) for t in judged]
        assert tally.numerators[0, 1:].tolist() == pytest.approx([np.mean(overlaps), np.mean(outlines)])
        assert tally.all()["J"] == pytest.approx((np.mean(overlaps) + 2) / 3)

    def test_the_order_of_frames_is_nothing(self, frames):
        change = lambda one, name, mask: dict(to_rle(square(one.columns["frame"], 10)))  # noqa: E731
        assert saved(frames, change=change).tally().all() == saved(frames[::-1], change=change).tally().all()

    def test_out_of_sight_and_frames_without_labels(self, tmp_path):
        here = annotation("a", square(0), "box")
        shows = {0: [here], 1: [], 2: [annotation("b", square(1), "cup")], 3: [here], 4: [here]}
        measure = JFMeasure(last=True)
        for t, shown in shows.items():
            one = record(tmp_path, f"f{t}", *shown, size=SIZE, columns={"video": "v", "frame": t})
            measure.add(one, {"box": square(0)} if t in (1, 2, 3) else {})
        tally = measure.tally()
        # Frame 1 has no labels. The box is not there in 2 but said to be, right in 3, missed in 4; the cup is missed
        # in 2 and rightly not seen in 3 and 4.
        assert tally.units.ids == ["v/box", "v/cup"]
        assert tally.numerators[:, 1].tolist() == pytest.approx([1 / 3, 2 / 3])

    def test_bad_predictions_are_told(self, frames):
        def change(one, name, mask):
            return np.ones((3, 3), bool) if (one.id, name) == ("moves1", "0") else mask

        measure = saved(frames, change=change)
        measure.add(frames[0], {"ghost": square(0)})
        measure.tally()
        kinds = sorted((p.kind, p.id) for p in measure.problems)
        assert kinds == [("bad mask", "moves1"), ("unknown object", f"{frames[0].columns['video']}/ghost")]
        measure.tally()
        assert len(measure.problems) == 2

    def test_a_tally_comes_back_from_its_file(self, frames, tmp_path):
        tally = saved(frames, change=lambda one, name, mask: square(one.columns["frame"], 10)).tally()
        assert Tally.load(tally.save(tmp_path / "tally.npz")).all() == tally.all()
