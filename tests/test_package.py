"""The package's face: what it exports, what importing it costs, and that its floors hold."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import manylens
from manylens import verbs
from manylens.tasks import TASKS

HEAVY = ("torch", "transformers", "openvino", "supervision", "cv2", "scipy", "numpy", "pydantic", "PIL")
SHARED = {"model", "seed", "session"}


@pytest.mark.parametrize("start", ["import manylens", "import manylens.cli"])
def test_importing_loads_nothing_heavy(start):
    code = f"{start}; import sys; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


def test_the_command_lines_help_loads_no_engine():
    code = (
        "import sys; from manylens.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print('loaded', *[m for m in {HEAVY[:6]!r} if m in sys.modules])"
    )
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[-1].split() == ["loaded"]


@pytest.mark.parametrize("task", [task for task in TASKS.values() if not task.workflow], ids=lambda task: task.name)
def test_every_verb_has_the_fields_of_its_declaration(task):
    signature = inspect.signature(getattr(verbs, task.name))
    parameters = dict(signature.parameters)
    assert set(parameters) >= SHARED
    assert [name for name in parameters if name not in SHARED] == list(task.request.model_fields)
    for name, info in task.request.model_fields.items():
        default = parameters[name].default
        if info.is_required():
            assert default is inspect.Parameter.empty, name
        else:
            assert default == info.get_default(), name


def test_every_public_name_is_there():
    for name in manylens.__all__:
        assert getattr(manylens, name) is not None
    assert set(TASKS) <= set(manylens.__all__)
    with pytest.raises(AttributeError, match="'segmnt'"):
        _ = manylens.segmnt


def test_arrows_only_run_down():
    root = Path(__file__).parents[1]
    run = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=root, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
