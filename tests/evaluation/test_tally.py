import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from manylens import evaluation
from manylens.data.problems import DataError
from manylens.evaluation import tally
from manylens.evaluation.measures.captions import CaptionTally
from manylens.evaluation.tally import RatioTally, Tally, Units


def test_every_kind_loads_in_a_new_process() -> None:
    for module in pkgutil.iter_modules(evaluation.__path__):
        import_module(f"manylens.evaluation.{module.name}")
    kinds = [name for name, kind in tally._KINDS.items() if kind.__module__.startswith("manylens.")]
    assert len(kinds) > 5
    code = f"from manylens.evaluation.tally import _kind; print([_kind(name).measure for name in {kinds}] == {kinds})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"


def test_a_subclass_does_not_take_over_the_name_of_a_kind() -> None:
    class Costly(RatioTally):
        resamples = 1

    assert Costly.measure == "ratios"
    assert tally._KINDS["ratios"] is RatioTally


@pytest.mark.parametrize("name", ["os.path", "nothing", "../slices", "slices"])
def test_a_file_of_an_unknown_kind(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = CaptionTally(Units("image", ["a"], ["a"]), np.ones(1), np.ones(1), np.ones((1, 10)))
    monkeypatch.setattr(CaptionTally, "measure", name)
    path = made.save(tmp_path / "tally.npz")
    with pytest.raises(DataError, match=r"tally\.npz: not a tally"):
        Tally.load(path)
