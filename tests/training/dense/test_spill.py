import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.training.dense.spill import Spill


@given(st.lists(st.binary(max_size=12), max_size=30), st.integers(0, 40))
def test_what_goes_in_comes_out(texts, in_memory):
    spill = Spill(in_memory)
    for number, text in enumerate(texts):
        spill.add(text)
        assert spill.get(number // 2) == texts[number // 2]  # while more is still added
    assert len(spill) == len(texts)
    assert [spill.get(number) for number in range(len(texts))] == texts
    spill.flush()
    assert [spill.get(number) for number in range(len(texts))] == texts
    assert spill.lengths().tolist() == [len(text) for text in texts]
    assert spill.size == sum(map(len, texts))


@pytest.mark.parametrize("in_memory", [10, 10_000])
def test_a_copy_reads_the_same(in_memory):
    spill = Spill(in_memory)
    for number in range(50):
        spill.add(bytes([number]) * 3)
    other = pickle.loads(pickle.dumps(spill))
    assert [other.get(number) for number in range(50)] == [spill.get(number) for number in range(50)]


def test_few_stay_in_memory_and_many_do_not(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    few = Spill(1000)
    few.add(b"x" * 900)
    assert not list(tmp_path.iterdir())
    many = Spill(1000)
    for _ in range(100):
        many.add(b"x" * 100)
        assert len(many._held) <= 1000
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size >= 9000
    del many
    assert not path.exists()  # nothing is left behind


def test_a_copy_that_goes_does_not_take_the_file_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    spill = Spill(0)
    spill.add(b"here")
    other = pickle.loads(pickle.dumps(spill))
    files = len(list(Path("/proc/self/fd").iterdir()))
    del other
    assert len(list(Path("/proc/self/fd").iterdir())) == files - 1
    assert spill.get(0) == b"here"
