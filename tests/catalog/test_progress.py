from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from manylens.catalog.progress import megabytes, terminal_progress

RUN = """
from manylens.catalog.progress import terminal_progress
with terminal_progress() as report:
    report("fetching things", 0, 2_000_000)
    report("fetching things", 1_000_000, 2_000_000)
"""


def test_a_terminal_gets_a_bar_that_goes_away() -> None:
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-c", RUN], stdout=subprocess.PIPE, stderr=slave, env=environment, check=True
    )
    os.close(slave)
    said = os.read(master, 100_000).decode()
    os.close(master)
    assert done.stdout == b""
    assert "fetching things" in said
    assert "1.0/2.0 MB" in said
    assert said.rstrip().endswith("\x1b[2K")  # The last thing is that the line is cleared.


def test_without_a_terminal_each_label_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal_progress() as report:
        report("one", 0, 2_000_000)
        report("one", 2_000_000, 2_000_000)
        report("two", 0, 0)
    assert capsys.readouterr().err == "one (2.0 MB)\ntwo\n"


@pytest.mark.parametrize(("count", "said"), [(0, "0.0 kB"), (612, "0.6 kB"), (97447603, "97.4 MB"), (50000, "0.1 MB")])
def test_sizes_for_people(count: int, said: str) -> None:
    assert megabytes(count) == said
