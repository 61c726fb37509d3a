"""Repositories of a model hub that runs on this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manylens.catalog import Row, WeightsStore
from manylens.catalog.sources import hub_client
from manylens.cli import main
from manylens.errors import (
    LicenceError,
    ManylensError,
    NetworkError,
    OutputError,
    UnknownModelError,
    UserError,
    WeightsError,
)
from manylens.session import Session

from .helpers import COMMIT, CONFIG, HUB_FILES, Server, hub_row, leftovers, serve_repository

Quiet = dict[str, Callable[..., None]]
WEIGHTS = f"/owner/name/resolve/{COMMIT}/model.safetensors"


def test_only_safetensors_and_configs_arrive(hub: Server, store: WeightsStore, quiet: Quiet) -> None:
    row = hub_row()
    assert store.state(row) == "absent"
    files = store.ensure(row, **quiet)
    assert {name: path.read_bytes() for name, path in files.items()} == {
        name: HUB_FILES[name] for name in ("config.json", "model.safetensors")
    }
    assert all(path.is_relative_to(store.root) for path in files.values())
    assert len({path.parent for path in files.values()}) == 1
    assert not any("pytorch_model" in path for path in hub.hits)
    assert store.state(row) == "ready"
    assert leftovers(store) == []


def test_what_is_ready_needs_no_hub(
    hub: Server, store: WeightsStore, quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = store.ensure(hub_row(), **quiet)
    monkeypatch.setattr(socket.socket, "connect", _forbidden)
    monkeypatch.setenv("MANYLENS_OFFLINE", "1")
    assert store.ensure(hub_row(), **quiet) == files
    assert store.pull(hub_row(), **quiet) == files


def test_the_hash_is_that_of_what_was_fetched(hub: Server, store: WeightsStore, quiet: Quiet) -> None:
    before = store.weights_hash(hub_row())
    store.ensure(hub_row(), **quiet)
    first = store.weights_hash(hub_row())
    assert first != before
    store.remove(hub_row())
    serve_repository(hub, "owner/name", {**HUB_FILES, "model.safetensors": b"newer weights"})
    store.ensure(hub_row(), **quiet)
    assert store.weights_hash(hub_row()) != first


def test_progress_ends_at_the_whole(hub: Server, store: WeightsStore) -> None:
    seen: list[tuple[str, int, int]] = []
    store.ensure(hub_row(), lambda *step: seen.append(step), announce=lambda row: None)
    total = len(CONFIG) + len(HUB_FILES["model.safetensors"])
    assert seen[-1] == ("fetching owner/name", total, total)
    assert all(done <= total for _, done, total in seen)


def test_remove_leaves_nothing_behind(hub: Server, store: WeightsStore, quiet: Quiet) -> None:
    store.ensure(hub_row(), **quiet)
    assert store.remove(hub_row()) >= len(HUB_FILES["model.safetensors"])
    assert store.state(hub_row()) == "absent"
    assert not [path for path in (store.root / "hub").rglob("*") if path.is_file() and "name" in str(path)]


def _damage(path: Path) -> None:
    path.write_bytes(b"x" * path.stat().st_size)


@pytest.mark.parametrize("damage", [_damage, lambda path: os.truncate(path, 10)])
def test_a_corrupted_file_is_named_and_pull_repairs_it(
    hub: Server, store: WeightsStore, quiet: Quiet, damage: Callable[[Path], None]
) -> None:
    row = hub_row()
    damage(store.ensure(row, **quiet)["model.safetensors"].resolve())
    assert store.state(row) == "corrupt"
    with pytest.raises(WeightsError) as caught:
        store.ensure(row, **quiet)
    assert str(caught.value) == "owner/name: its file model.safetensors is corrupted; run manylens pull owner/name"
    config = f"/owner/name/resolve/{COMMIT}/config.json"
    hub.hits.clear()
    store.pull(row, **quiet)
    assert store.state(row) == "ready"
    store.verify(row)
    assert (hub.hits[WEIGHTS], hub.hits[config]) == (1, 0)


def test_what_arrives_is_checked_against_the_hubs_hash(hub: Server, store: WeightsStore, quiet: Quiet) -> None:
    hub.files[WEIGHTS] = b"X" * len(hub.files[WEIGHTS])
    with pytest.raises(WeightsError, match=r"model\.safetensors is not what the hub says it is"):
        store.ensure(hub_row(), **quiet)
    assert store.state(hub_row()) != "ready"
    hub.files[WEIGHTS] = HUB_FILES["model.safetensors"]
    assert store.ensure(hub_row(), **quiet)


def test_a_pipeline_brings_the_parts_in_its_folders(hub: Server, store: WeightsStore, quiet: Quiet) -> None:
    parts = {
        "model_index.json": b'{"_class_name": "StableDiffusionPipeline"}',
        "unet/diffusion_pytorch_model.safetensors": b"unet",
        "unet/config.json": b"{}",
        "tokenizer/merges.txt": b"a b",
    }
    others = {"v1-5-pruned.safetensors": b"all in one", "unet/diffusion_pytorch_model.fp16.safetensors": b"half"}
    serve_repository(hub, "owner/pipeline", {**parts, **others})
    assert set(store.ensure(hub_row("owner/pipeline"), **quiet)) == set(parts)


# -- the licence that a repository names


@pytest.mark.parametrize(
    ("card", "licence", "refused"),
    [
        ({"license": "apache-2.0"}, "apache-2.0", False),
        ({"license": "cc-by-nc-4.0"}, "cc-by-nc-4.0", True),
        ({"license": "other", "license_name": "some-research-licence"}, "some-research-licence", True),
        ({"license": "mit"}, "mit", False),
        (None, "see the model page", False),
    ],
)
def test_licence_and_size_are_said_before_a_download(
    hub: Server, store: WeightsStore, card: dict[str, str] | None, licence: str, refused: bool
) -> None:
    serve_repository(hub, "owner/name", HUB_FILES, card)
    told: list[Row] = []
    how = {"progress": lambda *step: None, "announce": told.append}
    if refused:
        with pytest.raises(LicenceError, match=rf"its licence \({licence}\) does not allow commercial use"):
            store.ensure(hub_row(), **how)
        assert hub.hits[WEIGHTS] == 0
    store.ensure(hub_row(), accept_licence=refused, **how)
    assert told[0].licence == licence
    assert told[0].download_bytes == len(CONFIG) + len(HUB_FILES["model.safetensors"])


# -- the family of a repository that the catalog does not list


def test_identify_fetches_only_the_config(hub: Server, store: WeightsStore) -> None:
    row = store.identify(hub_row())
    assert row.family == "dino"
    assert "image" in row.tasks["embed"]
    assert hub.hits[WEIGHTS] == 0
    assert store.state(row) != "ready"
    assert store.identify(row) is row


def test_identify_asks_the_hub_once(hub: Server, store: WeightsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.identify(hub_row())
    monkeypatch.setenv("MANYLENS_OFFLINE", "1")
    assert store.identify(hub_row()).family == "dino"


@pytest.mark.parametrize(
    ("files", "error", "said"),
    [
        ({"config.json": b'{"model_type": "bert"}'}, UserError, "no family here loads model_type 'bert'"),
        ({"model.safetensors": b"x"}, WeightsError, "the repository has no config.json"),
    ],
)
def test_a_repository_that_cannot_be_used(
    hub: Server, store: WeightsStore, files: dict[str, bytes], error: type[ManylensError], said: str
) -> None:
    serve_repository(hub, "owner/name", files)
    with pytest.raises(error) as caught:
        store.identify(hub_row())
    assert str(caught.value).startswith("owner/name: ")
    assert said in str(caught.value)


# -- what goes wrong on the way


def test_a_repository_of_pickles_is_refused(hub: Server, store: WeightsStore, quiet: Quiet) -> None:
    serve_repository(hub, "owner/name", {"config.json": CONFIG, "pytorch_model.bin": b"pickle"})
    with pytest.raises(WeightsError, match="no safetensors, and pickles are not fetched"):
        store.ensure(hub_row(), **quiet)
    assert not any("resolve" in path for path in hub.hits)


def test_an_unknown_repository(hub: Server, store: WeightsStore, quiet: Quiet) -> None:
    with pytest.raises(UnknownModelError, match="no/such: the hub has no such repository, or it is private"):
        store.ensure(hub_row("no/such"), **quiet)


def test_a_repository_behind_a_licence(hub: Server, store: WeightsStore, quiet: Quiet) -> None:
    hub.status[WEIGHTS] = 403
    hub.headers[WEIGHTS]["X-Error-Code"] = "GatedRepo"
    with pytest.raises(UserError, match="accept it on the model page and set HF_TOKEN"):
        store.ensure(hub_row(), **quiet)


def test_the_users_token_is_sent(
    hub: Server, store: WeightsStore, quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_user")
    store.ensure(hub_row(), **quiet)
    assert hub.tokens == {"Bearer hf_of_the_user"}


def test_a_hub_in_trouble(hub: Server, store: WeightsStore, quiet: Quiet) -> None:
    hub.status["/api/models/owner/name/revision/main"] = 503
    with pytest.raises(NetworkError, match=r"cannot be reached \(HfHubHTTPError: .*503"):
        store.ensure(hub_row(), **quiet)


@pytest.mark.parametrize("body", [b"<html>sign in to the hotel's network</html>", b"[]", b"{}"])
def test_something_that_is_no_hub_answers(hub: Server, store: WeightsStore, quiet: Quiet, body: bytes) -> None:
    hub.files["/api/models/owner/name/revision/main"] = body
    with pytest.raises(ManylensError) as caught:
        store.ensure(hub_row(), **quiet)
    assert str(caught.value).startswith("owner/name: ")
    assert "\n" not in str(caught.value)


@pytest.fixture
def closed_port() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


@pytest.fixture
def silent_host() -> Iterator[str]:
    """A host that accepts connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_closed_port(closed_port: str, store: WeightsStore, quiet: Quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", closed_port)
    with pytest.raises(NetworkError) as caught:
        store.ensure(hub_row(), **quiet)
    assert caught.value.what.startswith(f"owner/name: the hub at {closed_port[7:]} cannot be reached (ConnectError")
    assert "HF_ENDPOINT" in caught.value.remedy


@pytest.mark.timeout(20)  # Without an end of its own, or with retries, this would wait far longer.
@pytest.mark.parametrize("ask", ["ensure", "identify"])
def test_a_hub_that_never_answers_is_given_up(
    silent_host: str, store: WeightsStore, quiet: Quiet, monkeypatch: pytest.MonkeyPatch, ask: str
) -> None:
    assert hub_client.ANSWER_SECONDS <= 10
    monkeypatch.setattr(hub_client, "ANSWER_SECONDS", 0.5)
    monkeypatch.setenv("HF_ENDPOINT", silent_host)
    with pytest.raises(NetworkError, match=r"the hub at .* (does not answer|cannot be reached)"):
        store.ensure(hub_row(), **quiet) if ask == "ensure" else store.identify(hub_row())


def test_a_hub_that_falls_silent_in_the_middle_is_given_up(
    hub: Server, store: WeightsStore, quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_client, "STALL_SECONDS", 0.5)
    hub.stall_at.add(WEIGHTS)
    with pytest.raises(NetworkError, match="does not answer"):
        store.ensure(hub_row(), **quiet)
    assert store.state(hub_row()) == "partial"


def test_an_interrupt_stops_the_download(hub: Server, store: WeightsStore) -> None:
    hub.stall_at.add(WEIGHTS)

    def interrupt(label: str, done: int, total: int) -> None:
        if hub.started.is_set():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.ensure(hub_row(), interrupt, announce=lambda row: None)
    assert store.state(hub_row()) == "partial"


RUN = """
from manylens.catalog import Catalog, WeightsStore
print(*sorted(WeightsStore().ensure(Catalog({}).resolve("owner/name"))))
"""


def _start() -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", RUN], stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def test_a_killed_download_goes_on_with_the_files_that_miss(hub: Server, store: WeightsStore, quiet: Quiet) -> None:
    hub.stall_at.add(WEIGHTS)
    run = _start()
    config = f"/owner/name/resolve/{COMMIT}/config.json"
    try:
        assert hub.started.wait(30)
        while not list((store.root / "hub").rglob("config.json")):
            time.sleep(0.05)
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
    assert store.state(hub_row()) == "partial"
    hub.stall_at.clear()
    hub.go.set()
    assert store.ensure(hub_row(), **quiet)["model.safetensors"].read_bytes() == HUB_FILES["model.safetensors"]
    assert hub.hits[config] == 1
    assert leftovers(store) == []


def test_two_processes_that_want_the_same_download_once(hub: Server, store: WeightsStore) -> None:
    hub.stall_at.add(WEIGHTS)
    runs = [_start(), _start()]
    assert hub.started.wait(30)
    hub.go.set()
    for run in runs:
        out, err = run.communicate(timeout=60)
        assert (run.returncode, out) == (0, "config.json model.safetensors\n"), err
    assert hub.hits[WEIGHTS] == 1
    assert hub.hits["/api/models/owner/name/revision/main"] <= 2  # Each may ask for licence and size, before it waits.


def test_a_disk_without_room(hub: Server, store: WeightsStore, quiet: Quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 99, 1))  # type: ignore[attr-defined]
    with pytest.raises(OutputError, match=r"the disk is full, 12\.0 kB are needed"):
        store.ensure(hub_row(), **quiet)
    assert hub.hits[WEIGHTS] == 0


def test_the_hubs_own_offline_switch_is_respected(hub: Server, tmp_path: Path) -> None:
    """The client reads the switch when it is imported, so this runs in a process of its own."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, env=environment, check=False)
    assert "NetworkError: owner/name: not on this machine, and HF_HUB_OFFLINE switches the hub off" in done.stderr
    assert not hub.hits


def _forbidden(*args: object, **kwargs: object) -> None:
    raise AssertionError("must not be called")


@pytest.mark.parametrize(
    ("kind", "said"), [("bert", "no family here loads model_type 'bert'"), ("blip", "no loader for the family 'blip'")]
)
def test_the_command_fetches_no_weights_that_nothing_here_loads(
    hub: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    said: str,
) -> None:
    serve_repository(hub, "owner/odd", {**HUB_FILES, "config.json": json.dumps({"model_type": kind}).encode()})
    session = Session(home=tmp_path / "home")
    monkeypatch.setattr("manylens.session.default_session", lambda: session)
    with pytest.raises(SystemExit) as left:
        main(["pull", "owner/odd"])
    assert left.value.code == 2
    assert said in capsys.readouterr().err
    assert not hub.hits[f"/owner/odd/resolve/{COMMIT}/model.safetensors"]
