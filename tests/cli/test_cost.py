import json

import pytest

from manylens.catalog import Catalog, WeightsStore
from manylens.cli import cost, main  # noqa: F401 - the command binds its session when it is first read
from manylens.runtime import paths
from manylens.runtime.rates import Rates

REAL = paths.home()


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path))
    monkeypatch.setattr("manylens.session.door._default", None)


def run(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["cost", *words])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--task: not given"),
        (["--task", "segmnt"], "segmnt"),
        (["--task", "segment", "--size", "9"], "--size 9: not WIDTHxHEIGHT"),
        (["--task", "segment", "--images", "0"], "images 0: less than 1"),
        (["--task", "segment", "--hour-rate", "-1"], "rate hour -1"),
        (["--compare", "none.json"], "none.json: there is no such file"),
    ],
)
def test_a_mistake_is_one_line(capsys, words: list[str], said: str) -> None:
    code, _, err = run(capsys, *words)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1


def test_rates_are_kept_for_the_caps(capsys, tmp_path) -> None:
    code, out, _ = run(capsys, "--hour-rate", "0.5", "--watts", "65", "--currency", "EUR", "--save-rates")
    assert code == 0
    assert "kept" in out
    assert Rates.load(tmp_path) == Rates(hour=0.5, watts=65, currency="EUR")


def test_a_cap_without_rates_says_how_to_give_them(capsys, tmp_path) -> None:
    import PIL.Image

    PIL.Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    with pytest.raises(SystemExit) as ended:
        main(["classify", str(tmp_path / "a.png"), "--max-cost", "1"])
    assert ended.value.code == 2
    assert "--max-cost 1: nothing says what time costs here; keep rates first" in capsys.readouterr().err


@pytest.mark.weights
def test_what_a_task_will_cost(capsys, tmp_path) -> None:
    WeightsStore(REAL).ensure(Catalog.load()["manylens/ssd-coco"])
    (tmp_path / "weights").symlink_to(REAL / "weights", target_is_directory=True)
    code, out, err = run(capsys, "--task", "detect", "--images", "100", "--hour-rate", "1", "--json")
    assert err == ""
    body = json.loads(out)
    assert code == 0
    assert body["model"] == "manylens/ssd-coco"
    assert body["flops"] == pytest.approx(3.75e9, rel=0.02)
    assert body["money"] == pytest.approx(body["seconds"] / 3600)
