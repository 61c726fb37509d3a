from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from manylens.catalog import Catalog, CatalogError

from .helpers import ALPHA, model, wheel_file, wheel_table

GOOD = wheel_table(1000) + model("t/a", wheel_file("alpha.bin", ALPHA))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + model("t/a", wheel_file("alpha.bin", ALPHA)), "t/a stands there twice"),
        (GOOD.replace("rank = 10", "rank = 10\ncolour = 1"), "t/a: unknown key colour"),
        (GOOD.replace("rank = 10\n", ""), "t/a: rank is missing"),
        (GOOD.replace("rank = 10", 'rank = "high"'), "rank must be int, not str"),
        (GOOD.replace("rank = 10", "rank = true"), "rank must be int, not bool"),
        (GOOD.replace("memory_mb = 1\n", ""), "memory_mb is missing"),
        ("\n".join(line for line in GOOD.splitlines() if "sha256" not in line), "t/a, file 1: sha256 is missing"),
        (GOOD.replace('sha256 = "', 'sha256 = "x'), "sha256 must be 64 hex digits"),
        (GOOD.replace('name = "alpha.bin"', 'name = "../alpha.bin"'), "not a plain relative path"),
        (GOOD.replace('source = "wheel"', 'source = "ftp"'), "must be wheel or package, not 'ftp'"),
        (GOOD.replace("[[wheel]]", "[[wheels]]"), "no [[wheel]] for tiny-weights 1.0"),
        (GOOD + "\n[extra]\n", "unknown key extra"),
        (GOOD.replace('"closed"', '"everything"'), "tasks.detect has unknown everything"),
        (GOOD.replace('["closed"]', '"closed"'), "tasks.detect must be a list"),
        (model("t/a", ""), "exactly one of repo, file and uses"),
        (model("t/a", "", extra='repo = "o/n"\nrevision = "main"\nuses = ["detect"]'), "exactly one of"),
        (model("t/a", "", extra='repo = "o/n"'), "revision is missing"),
        (model("t/a", "", extra='uses = ["detect:points"]'), "'detect:points', which is not task or task:capability"),
        ("[[model]", "not a catalog file"),
    ],
)
def test_a_malformed_catalog_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text(text)
    with pytest.raises(CatalogError) as caught:
        Catalog.load(path)
    assert said in str(caught.value)


def test_the_good_example_is_read(tmp_path: Path) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text(GOOD)
    (row,) = Catalog.load(path)
    assert (row.id, row.source, row.bytes, row.download_bytes) == ("t/a", "wheel", len(ALPHA), 1000)


def test_a_row_of_code_alone_uses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text(model("t/a", "", extra="uses = []"))
    (row,) = Catalog.load(path)
    assert (row.source, row.uses, row.embedded) == ("composed", (), True)


def test_loading_the_catalog_imports_nothing_heavy() -> None:
    code = """
import sys
from manylens.catalog import Catalog, WeightsStore
[WeightsStore().state(row) for row in Catalog.load()]
heavy = {"torch", "transformers", "openvino", "huggingface_hub", "numpy", "pydantic", "rich", "filelock", "rapidocr"}
sys.exit(", ".join(heavy & set(sys.modules)) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
