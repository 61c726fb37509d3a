"""Asks a model hub, and never waits for it longer than is reasonable."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from manylens.catalog.blobs import DISK_ERRORS
from manylens.catalog.row import Row
from manylens.errors import ManylensError, NetworkError, UnknownModelError, UserError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

ANSWER_SECONDS = 9.0
"""A hub that has not answered by then is given up: within 10 s with the client's import."""
STALL_SECONDS = 60.0
"""A download that has not grown for so long is given up."""
POLL_SECONDS = 0.1

T = TypeVar("T")


def repository_info(row: Row) -> ModelInfo:
    """The commit that the row's revision means now, and the names, sizes and hashes of its files.

    Raises:
        NetworkError: The hub did not answer in time, cannot be reached, or is switched off by ``HF_HUB_OFFLINE``.
        UnknownModelError: It has no such repository or revision.
        UserError: The repository is gated.
    """
    began = time.monotonic()

    def ask() -> ModelInfo:
        api = _client().HfApi(endpoint=_endpoint())
        return api.model_info(row.repo, revision=row.revision or None, files_metadata=True, timeout=ANSWER_SECONDS)

    def in_time() -> None:
        if time.monotonic() - began > ANSWER_SECONDS:
            raise TimeoutError

    return _answer(row, lambda: _in_background(ask, in_time))


def download(row: Row, commit: str, names: Sequence[str], cache: Path, progress: Callable[[], int]) -> None:
    """Fetches files of a repository; those that are complete are not fetched again.

    Args:
        row: The model.
        commit: Its commit.
        names: Paths inside the repository.
        cache: Folder in the client's cache format.
        progress: Called now and then; gives the bytes that are there. What it raises stops the download.

    Raises:
        NetworkError: The hub stopped answering.
        UserError: The repository is gated.
        OSError: The disk is full.
    """
    stopped = threading.Event()
    last, since = -1, time.monotonic()

    def stop() -> None:
        if stopped.is_set():
            raise InterruptedError("stopped")

    def fetch() -> None:
        _client().snapshot_download(
            row.repo,
            revision=commit,
            cache_dir=cache,
            allow_patterns=list(names),
            endpoint=_endpoint(),
            etag_timeout=ANSWER_SECONDS,
            tqdm_class=_silent_bar(stop),
        )

    def watch() -> None:
        nonlocal last, since
        done = progress()
        if done != last:
            last, since = done, time.monotonic()
        elif time.monotonic() - since > STALL_SECONDS:
            raise TimeoutError

    try:
        _answer(row, lambda: _in_background(fetch, watch))
    except BaseException:
        stopped.set()  # The client's threads end at their next piece.
        raise


def _client() -> Any:
    """The hub's client, imported on first use, without its telemetry and with downloads over plain HTTP.

    Plain HTTP goes through the user's proxies, keeps everything below our own folder and can be stopped.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    import huggingface_hub

    return huggingface_hub


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def _silent_bar(tick: Callable[[], None]) -> type:
    """A progress bar that shows nothing, and lets the download be stopped from outside at each of its steps."""
    from tqdm import tqdm

    class Silent(tqdm):  # type: ignore[type-arg, misc, unused-ignore]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            tick()
            return super().update(n)

    return Silent


def _in_background(work: Callable[[], T], tick: Callable[[], None]) -> T:
    """Runs work in a thread and calls `tick` meanwhile; when that raises, the work is left alone."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True, name="manylens-hub")
    thread.start()
    while thread.is_alive():
        thread.join(POLL_SECONDS)
        if thread.is_alive():
            tick()
    if errors:
        raise errors[0]
    return results[0]


def _answer(row: Row, work: Callable[[], T]) -> T:
    """Turns whatever the client raises into one line."""
    _client()
    from huggingface_hub import errors

    host = urlsplit(_endpoint()).netloc
    remedy = f"check the network and HF_ENDPOINT, or give a local folder; then run manylens pull {row.id}"
    try:
        return work()
    except (ManylensError, KeyboardInterrupt):
        raise
    except TimeoutError as error:
        raise NetworkError(f"{row.id}: the hub at {host} does not answer", remedy) from error
    except errors.OfflineModeIsEnabled as error:
        raise NetworkError(
            f"{row.id}: not on this machine, and HF_HUB_OFFLINE switches the hub off", "unset HF_HUB_OFFLINE"
        ) from error
    except errors.GatedRepoError as error:
        raise UserError(
            f"{row.id}: its owner gives it only to those who accept the licence",
            "accept it on the model page and set HF_TOKEN",
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise UnknownModelError(
            f"{row.id}: the hub has no such repository, or it is private",
            "check the name, set HF_TOKEN for a private one, or run manylens models for the list",
        ) from error
    except Exception as error:
        # A full disk is not the hub's fault: `writing`, around this, turns it into a line of its own.
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        said = " ".join(str(error).split())[:120]
        raise NetworkError(
            f"{row.id}: the hub at {host} cannot be reached ({type(error).__name__}: {said})", remedy
        ) from error
