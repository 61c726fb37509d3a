from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test of the runtime reads or writes the caches of the user."""
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path / "home"))
