"""Where kept features lie."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from manylens.training.inputs.features import place


def test_features_lie_beside_the_embeddings_or_in_the_run(session):
    assert place(session, Path("run")) == session.store.folder.parent / "features"
    in_memory = SimpleNamespace(store=SimpleNamespace(folder=None))
    assert place(in_memory, Path("run")) == Path("run") / "features"
