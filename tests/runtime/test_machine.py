import importlib.metadata
import json
import subprocess
import sys

import pytest

from manylens.errors import UserError
from manylens.runtime import machine


@pytest.fixture(autouse=True)
def _no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)


def test_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYLENS_OFFLINE", "1")
    monkeypatch.setenv("MANYLENS_MEMORY_BUDGET", "1GiB")
    report = machine.machine_report()
    assert report.gpus == ()
    assert report.offline
    assert report.budget_bytes == 1 << 30
    assert 1 <= report.usable_cores <= report.cores
    assert 0 < report.available_bytes <= report.memory_bytes
    assert report.free_bytes > 0
    assert report.home_writable
    assert report.libraries["openvino"].startswith("20")
    assert json.loads(json.dumps(report.to_json()))["home"] == report.home


def test_a_library_that_is_missing_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_LIBRARIES", ("numpy", "no-such-library"))
    report = machine.machine_report()
    assert report.libraries["numpy"]
    assert report.libraries["no-such-library"] == ""


def test_a_home_under_a_file_is_not_writable(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path / "file" / "home"))
    assert not machine.machine_report().home_writable


def test_a_budget_that_is_no_size_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYLENS_MEMORY_BUDGET", "lots")
    with pytest.raises(UserError):
        machine.machine_report()


def test_the_runtime_imports_nothing_heavy() -> None:
    code = (
        "import importlib, pkgutil, sys\n"
        "import manylens.runtime as package\n"
        "found = [module.name for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.')]\n"
        "assert len(found) > 10\n"
        "for name in found: importlib.import_module(name)\n"
        "heavy = {'torch', 'transformers', 'openvino', 'supervision', 'cv2', 'scipy', 'huggingface_hub', 'PIL'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", ["numpy", "openvino", "opencv-python-headless", "Pillow", "no-such-library"])
def test_versions_are_those_of_the_distributions(name: str) -> None:
    try:
        right = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        right = ""
    assert machine.library_version(name) == right
