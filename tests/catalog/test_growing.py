import threading
from pathlib import Path

from manylens.catalog.growing import file_sizes


def test_sizes_of_files_at_any_depth_without_links(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "x.whl").write_bytes(b"12345")
    (tmp_path / "a" / "b" / "y").write_bytes(b"1")
    (tmp_path / "link").symlink_to(tmp_path / "a" / "x.whl")
    assert sorted(file_sizes(tmp_path)) == [("x.whl", 5), ("y", 1)]


def test_a_folder_that_comes_and_goes_does_no_harm(tmp_path):
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            inner = tmp_path / "tracker"
            inner.mkdir(exist_ok=True)
            (inner / "f").write_bytes(b"1")
            (inner / "f").unlink()
            inner.rmdir()

    writer = threading.Thread(target=churn)
    writer.start()
    try:
        for _ in range(300):
            assert {size for _, size in file_sizes(Path(tmp_path))} <= {0, 1}
    finally:
        stop.set()
        writer.join()
