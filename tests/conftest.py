import pytest

from manylens import models
from manylens.session import Session
from tests.session.fakes import FAMILY, Fake, catalog, row


@pytest.fixture
def make_session(tmp_path, monkeypatch):
    """A session over fake models, in a home of its own."""
    monkeypatch.setitem(models.FAMILIES, "fake", FAMILY)
    Fake.reset()
    made = []

    def make(*rows, **options):
        session = Session(home=tmp_path, catalog=catalog(tmp_path, *(rows or (row("a"),))), **options)
        made.append(session)
        return session

    yield make
    for session in made:
        session.close()
