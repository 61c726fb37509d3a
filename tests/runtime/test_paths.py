from pathlib import Path

import pytest

from manylens.runtime import paths


def test_home_is_the_named_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path / "here"))
    assert paths.home() == tmp_path / "here"
    assert not paths.home().exists()
    assert paths.compiled_folder() == paths.home() / "compiled"
    assert paths.engines_file().parent == paths.home()


def test_home_defaults_to_the_user_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MANYLENS_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert paths.home() == tmp_path / "manylens"


def test_a_relative_home_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MANYLENS_HOME", "cache")
    assert paths.home() == tmp_path / "cache"


@pytest.mark.parametrize(
    ("value", "expected"), [("1", True), ("true", True), ("YES", True), ("", False), ("0", False), ("no", False)]
)
def test_offline(monkeypatch: pytest.MonkeyPatch, value: str, expected: bool) -> None:
    monkeypatch.setenv("MANYLENS_OFFLINE", value)
    assert paths.offline() is expected


def test_replacing_leaves_the_old_file_when_the_block_fails(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with paths.replacing(target) as file:
        file.write(b"old")

    def fail() -> None:
        with paths.replacing(target) as file:
            file.write(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
