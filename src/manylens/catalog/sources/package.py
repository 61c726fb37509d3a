"""Weights inside an installed dependency: nothing to fetch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from manylens.catalog.progress import ProgressCallback
from manylens.catalog.row import Row, State, WeightFile
from manylens.errors import WeightsError


class PackageSource:
    """Files that came with an installed package, which is found without being imported."""

    def state(self, row: Row) -> State:
        """See `Source.state`."""
        return "ready" if all(_path(file) is not None for file in row.files) else "absent"

    def to_fetch(self, row: Row) -> int:
        """Nothing is ever downloaded."""
        return 0

    def paths(self, row: Row) -> Mapping[str, Path]:
        """See `Source.paths`. A file without a member is the folder of the package."""
        return {file.name: path for file in row.files if (path := _path(file)) is not None}

    def fetch(self, row: Row, report: ProgressCallback) -> None:
        """Raises the error of `verify` where the package is not installed."""
        self.verify(row)

    def verify(self, row: Row) -> None:
        """See `Source.verify`. The content is the installer's affair."""
        for file in row.files:
            if _path(file) is None:
                raise WeightsError(
                    f"{row.id}: the package {file.package} is not installed", f"run pip install {file.package}"
                )

    def remove(self, row: Row) -> int:
        """Removes nothing: the package belongs to the installation."""
        return 0

    def weights_hash(self, row: Row) -> str:
        """See `Source.weights_hash`."""
        return row.weights_hash


def _path(file: WeightFile) -> Path | None:
    spec = find_spec(file.package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0], file.member)
    return path if path.exists() else None
