"""The same picture twice: found through what copies go through, and nothing else is; against all pairs by hand."""

import io
import os

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.data import duplicates
from manylens.data.looks import KeptLooks, Look
from manylens.media import Image
from tests.data.helpers import picture


def scene(seed: int, size: tuple[int, int] = (120, 90)) -> PIL.Image.Image:
    """A smooth picture that no other seed gives."""
    rng = np.random.default_rng(seed)
    blobs = PIL.Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    return blobs.resize(size, PIL.Image.Resampling.BICUBIC)


def cells(*pictures: PIL.Image.Image) -> np.ndarray:
    return np.stack([Look.of(Image.of(one)).cells for one in pictures])


def jpeg(one: PIL.Image.Image) -> PIL.Image.Image:
    file = io.BytesIO()
    one.save(file, "JPEG", quality=30)
    return PIL.Image.open(file).convert("RGB")


COPIES = {
    "jpeg": jpeg,
    "smaller": lambda one: one.resize((40, 30), PIL.Image.Resampling.LANCZOS),
    "larger": lambda one: one.resize((300, 225), PIL.Image.Resampling.BICUBIC),
    "squeezed": lambda one: one.resize((100, 100)),
    "darker": lambda one: PIL.ImageEnhance.Brightness(one).enhance(0.5),
    "flatter": lambda one: PIL.ImageEnhance.Contrast(one).enhance(0.6),
    "mirrored": lambda one: one.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT),
    "cut a little": lambda one: one.crop((1, 1, 119, 89)),
}


def pairs(found) -> list[tuple[int, int, bool]]:
    return sorted(
        (int(a), int(b), bool(m)) for one in found for a, b, m in zip(one.one, one.other, one.mirrored, strict=True)
    )


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_found_among_strangers(name):
    held = cells(*[scene(i) for i in range(40)], COPIES[name](scene(17)))
    limit = duplicates.limit_of(held)
    assert pairs(duplicates.near(held, limit)) == [(17, 40, name == "mirrored")]


def test_strangers_are_none_and_the_limit_follows_the_pictures():
    strangers = cells(*[scene(i) for i in range(60)])
    assert duplicates.limit_of(strangers) > 0.25
    assert pairs(duplicates.near(strangers, duplicates.limit_of(strangers))) == []
    # Pictures of one kind: a common ground, and little of their own. What parts photographs would call them all one.
    ground = np.asarray(scene(0), np.float64)
    alike = [
        PIL.Image.fromarray(np.clip(0.9 * ground + 0.1 * np.asarray(scene(i), np.float64), 0, 255).astype(np.uint8))
        for i in range(1, 40)
    ]
    held = cells(*alike)
    assert len(pairs(duplicates.near(held, duplicates.MOST))) > 300
    assert duplicates.limit_of(held) == duplicates.NEAR_EXACT
    assert len(pairs(duplicates.near(held, duplicates.limit_of(held)))) < 40


def test_the_limit_is_not_drawn_down_by_copies():
    each_twice = [one for i in range(30) for one in (scene(i), jpeg(scene(i)))]
    held = cells(*each_twice)
    assert duplicates.limit_of(held) == duplicates.NEAR_EXACT  # nothing but copies: only what is certain
    held = cells(*each_twice, *[scene(i) for i in range(30, 50)])
    assert duplicates.limit_of(held) > 0.25
    assert len(pairs(duplicates.near(held, duplicates.limit_of(held)))) == 30


def test_a_pair_that_is_near_both_ways_is_one_pair():
    half = np.asarray(scene(3))
    even = PIL.Image.fromarray(np.concatenate([half, half[:, ::-1]], axis=1))
    held = cells(even, *[scene(i) for i in range(5)], even.resize((50, 40)))
    assert [(a, b) for a, b, _ in pairs(duplicates.near(held, 0.3))] == [(0, 6)]


def reference(held: np.ndarray, limit: float) -> dict[tuple[int, int], tuple[float, bool]]:
    """All pairs, one by one, in float64."""

    def vector(one):
        one = one.astype(np.float64).ravel()
        return (one - one.mean()) / np.linalg.norm(one - one.mean())

    found = {}
    for i in range(len(held)):
        for j in range(i + 1, len(held)):
            if min(held[i].std(), held[j].std()) < 1.5:
                continue
            apart = [np.linalg.norm(vector(one) - vector(held[j])) for one in (held[i], held[i][:, ::-1])]
            if min(apart) <= limit:
                found[i, j] = (min(apart), apart[1] < apart[0])
    return found


@given(st.integers(0, 10_000), st.floats(0.1, 0.9), st.integers(3, 40), st.booleans())
@settings(max_examples=15, deadline=None)
def test_the_search_finds_what_all_pairs_by_hand_find(seed, limit, block, alike):
    rng = np.random.default_rng(seed)
    count = 60
    base = rng.normal(128, 40, (6, 16, 16, 3))
    held = base[rng.integers(0, 6, count)] + rng.normal(0, 8 if alike else 40, (count, 16, 16, 3))
    turn = rng.random(count) < 0.3
    held[turn] = held[turn, :, ::-1]
    held = np.clip(held, 0, 255).astype(np.uint8)
    held[3] = 7
    wanted = reference(held, limit)
    before = duplicates._BLOCK
    duplicates._BLOCK = block
    try:
        blocks = list(duplicates.near(held, limit))
    finally:
        duplicates._BLOCK = before
    found = {
        (int(a), int(b)): (float(d), bool(m))
        for one in blocks
        for a, b, d, m in zip(one.one, one.other, one.distance, one.mirrored, strict=True)
    }
    assert sum(len(one.one) for one in blocks) == len(found)  # no pair twice
    edge = 1e-3
    missing = {pair for pair in wanted.keys() - found.keys() if wanted[pair][0] < limit - edge}
    extra = {pair for pair in found.keys() - wanted.keys() if found[pair][0] < limit - edge}
    assert not missing
    assert not extra
    for pair in wanted.keys() & found.keys():
        assert found[pair][0] == pytest.approx(wanted[pair][0], abs=edge)


def test_equal_pixels_and_flat_pictures(tmp_path):
    one, other = picture(tmp_path / "a.png", 1), picture(tmp_path / "b.png", 1)
    PIL.Image.open(one).save(tmp_path / "c.bmp")
    looks = [Look.of(Image.of(path)) for path in (one, picture(tmp_path / "d.png", 2), other, tmp_path / "c.bmp")]
    assert duplicates.first_of([look.digest for look in looks]).tolist() == [0, 1, 0, 0]
    assert (looks[0].width, looks[0].height) == (20, 10)
    black = np.zeros((2, 16, 16, 3), np.uint8)
    assert duplicates.flat(black).all()
    assert pairs(duplicates.near(black, 0.35)) == []
    assert duplicates.first_of([]).tolist() == []
    assert duplicates.flat(black[:0]).tolist() == []
    assert duplicates.limit_of(black[:0]) == duplicates.NEAR_EXACT
    assert pairs(duplicates.near(black[:0], 0.35)) == []


def test_looks_are_kept_until_the_file_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path / "home"))
    path = picture(tmp_path / "a.png", 1)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    with KeptLooks() as kept:
        assert kept.get(path) is None
        kept.put(kept.stamp(path), Look.of(Image.of(path)))
        kept.put(kept.stamp(tmp_path / "none.png"), Look.of(Image.of(path)))
    with KeptLooks() as kept:
        again = kept.get(path)
        assert again is not None
        assert again.digest == Look.of(Image.of(path)).digest
        assert (again.cells == Look.of(Image.of(path)).cells).all()
        assert (again.width, again.height) == (20, 10)
        os.utime(path, (1_000_000_001, 1_000_000_001))
        assert kept.get(path) is None
        assert kept.get(tmp_path / "none.png") is None
        # A file that was written just now may change again without a later time of change.
        young = picture(tmp_path / "young.png")
        kept.put(kept.stamp(young), again)
        assert kept.get(young) is None


def test_without_a_folder_for_caches_looks_stay_in_memory(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path / "file"))
    with KeptLooks() as kept:
        assert kept.get(picture(tmp_path / "a.png")) is None
