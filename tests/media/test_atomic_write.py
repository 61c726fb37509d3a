from __future__ import annotations

import errno
import os
import resource
import stat

import pytest

from manylens.errors import OutputError
from manylens.media import atomic_write


@pytest.mark.parametrize("content", [b"new", lambda file: file.write(b"new")], ids=["bytes", "function"])
def test_writes_whole_and_leaves_nothing_else(tmp_path, folder_of, content):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    assert atomic_write(path, content) == path
    assert path.read_bytes() == b"new"
    assert folder_of() == {"a.bin"}


def test_makes_missing_folders(tmp_path):
    atomic_write(tmp_path / "a" / "b" / "c.bin", b"x")
    assert (tmp_path / "a" / "b" / "c.bin").read_bytes() == b"x"


def test_full_disk_leaves_what_stood_there(tmp_path, folder_of, disk_full):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match=r"a\.bin: the disk is full; free some space") as caught:
        atomic_write(path, b"new")
    assert caught.value.exit_code == 1
    assert path.read_bytes() == b"old"
    assert folder_of() == {"a.bin"}


def test_a_disk_that_really_takes_no_more(tmp_path, folder_of):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"a\.bin: the file is too large for this disk"):
            atomic_write(path, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"
    assert folder_of() == {"a.bin"}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.EACCES, "no permission to write here"),
        (errno.EROFS, "this disk can only be read"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EIO, "cannot be written"),
    ],
)
def test_a_folder_that_cannot_be_written_to(tmp_path, folder_of, monkeypatch, code, reason):
    # Simulated, as the tests may run as root, who may write anywhere.
    def refuse(self, mode="r", *rest):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(OutputError, match=f"a.bin: {reason}"):
        atomic_write(tmp_path / "a.bin", b"new")
    assert folder_of() == set()


def test_a_folder_in_the_way(tmp_path):
    with pytest.raises(OutputError, match="this is a folder"):
        atomic_write(tmp_path, b"")


def test_a_file_where_a_folder_is_needed(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(OutputError, match="a part of this path is a file"):
        atomic_write(tmp_path / "a" / "b", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_writer_leaves_nothing(tmp_path, folder_of, error):
    def stop(file):
        file.write(b"half")
        raise error

    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(error):
        atomic_write(path, stop)
    assert path.read_bytes() == b"old"
    assert folder_of() == {"a.bin"}


def test_keeps_permissions_and_writes_through_links(tmp_path):
    path, link = tmp_path / "a.bin", tmp_path / "link"
    path.write_bytes(b"old")
    path.chmod(0o640)
    link.symlink_to(path)
    atomic_write(link, b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_new_file_has_the_usual_permissions(tmp_path):
    mask = os.umask(0o027)
    try:
        atomic_write(tmp_path / "a.bin", b"")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o640


def test_the_longest_name_works(tmp_path, folder_of):
    atomic_write(tmp_path / ("a" * 255), b"x")
    assert folder_of() == {"a" * 255}


def test_the_content_is_on_disk_before_the_rename(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr("manylens.media.files.os.fsync", lambda descriptor: order.append("flush"))
    replace = type(tmp_path).replace
    monkeypatch.setattr("pathlib.Path.replace", lambda self, to: (order.append("rename"), replace(self, to)))
    atomic_write(tmp_path / "a.bin", b"x")
    assert order == ["flush", "rename"]
