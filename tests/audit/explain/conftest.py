from pathlib import Path

import pytest

from manylens import models
from tests.audit.explain import fakes
from tests.session.fakes import row

TASKS = "classify = ['closed'], embed = ['image'], detect = ['closed', 'names'], match = ['text', 'image'], " + (
    "caption = ['default']"
)


@pytest.fixture
def session(make_session, monkeypatch):
    """A session with ``manylens/corner``, a black box, and ``manylens/open``, which opens in torch."""
    monkeypatch.setitem(models.FAMILIES, "corner", fakes.FAMILY)
    monkeypatch.setitem(models.FAMILIES, "open", fakes.FAMILY.replace("Corner", "OpenCorner"))
    return make_session(
        row("corner", tasks=TASKS, family="corner", uses="read"),
        row("open", tasks=TASKS, family="open", uses="read", rank=10),
    )


@pytest.fixture(scope="session")
def examples():
    """The folder of example photographs."""
    return Path(__file__).parents[3] / "examples"
