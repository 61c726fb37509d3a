"""The card of a model: its figures are those of the saved model, and what it says of data and licences is so."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from manylens.data import Dataset
from manylens.data.records import Category, Record
from manylens.errors import EngineError, OutputError
from manylens.evaluation.evaluate import evaluate
from manylens.models.adapted.classifier import AdaptedClassifier
from manylens.runtime.rates import Rates
from manylens.training import card, card_data, card_figures
from manylens.training.config import DataSection, RecordSection
from manylens.training.run import Job
from tests.training.test_exporting import SMALL, shapes

__all__ = ["shapes"]  # a fixture


class Made:
    """A run, and what its card is written of."""

    def __init__(self, data, model, session, out, task="classify", **changes):
        told = {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
        self.session = session
        self.job = Job.of(data, task=task, model=str(model), set=told, session=session)
        self.model = self.job.train(out).model
        self.record = json.loads((out / "run.json").read_text())

    def card(self, **options) -> str:
        given = {"pictures": 100, "session": self.session, **options}
        session = given.pop("session")
        record = given.pop("record", self.record)
        data = given.pop("data", self.job.dataset)
        config = given.pop("config", self.job.config)
        return card.write(self.model, record, config, data, session, **given).read_text()


@pytest.fixture
def made(stripes, tiny_vit, session, tmp_path) -> Made:
    return Made(stripes, tiny_vit, session, tmp_path / "run", optimiser__lr=0.02, loop__epochs=8)


def read(made: Made) -> huggingface_hub.ModelCardData:
    """As a model hub does."""
    return huggingface_hub.ModelCard.load(made.model / "README.md").data


def table(text: str, after: str) -> list[list[str]]:
    """Cells of the first table after some words, without its head."""
    lines = text.split(after, 1)[1].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def test_the_figures_are_those_of_an_evaluation(made):
    text = made.card()
    val = made.job.dataset.select(split="val")
    expected = evaluate(
        val, task="classify", model=str(made.model), session=made.session, resamples=card_figures.RESAMPLES, closed=True
    ).figures
    rows = {name: (value, interval, trained) for name, value, interval, trained in table(text, "## How good it is")}
    assert {"accuracy", "balanced accuracy", "macro F1", "AUROC", "ECE"} == set(rows)
    for name, (value, interval, _) in rows.items():
        one = expected[name]
        assert value == f"{one.value:.3f}"
        assert interval == f"{one.low:.3f} to {one.high:.3f}"
    assert rows["accuracy"][2] == f"{made.record['figures']['accuracy']:.3f}" == rows["accuracy"][0]
    classes = {name: cells for name, *cells in table(text, "By class, with")}
    assert set(classes) == {"lying", "slanted", "standing"}
    assert classes["lying"][0] == str(expected["recall/lying"])
    results = {one.metric_name: one.metric_value for one in read(made).eval_results}
    assert results[f"accuracy, 95 % {rows['accuracy'][1]}"] == pytest.approx(expected["accuracy"].value, abs=1e-6)


def test_what_it_says_of_data_and_training(made, stripes, tiny_vit):
    text = made.card()
    assert table(text, "## Data that") == [["train", "38"], ["val", "10"]]
    counts = {name: [int(one) for one in numbers] for name, *numbers in table(text, "Pictures with each label")}
    assert {name: sum(numbers) for name, numbers in counts.items()} == {"lying": 16, "slanted": 16, "standing": 16}
    assert made.job.dataset.fingerprint() in text
    assert "Rights: not stated: say it here" in text
    config = yaml.safe_load(text.split("```yaml")[1].split("```")[0])
    assert config["optimiser"] == {"lr": 0.02}
    assert "head" not in config
    assert f"torch {made.record['versions']['torch']}" in text
    for place in (made.model, stripes, tiny_vit):
        assert str(place.parent) not in text  # where it was made is nobody's business
    assert "fewer than 20 pictures: standing (1" in text
    assert "These are few pictures" in text
    assert "kWh" not in text


def test_the_worst_are_named(made):
    text = made.card()
    val = made.job.dataset.select(split="val")
    found = evaluate(val, task="classify", model=str(made.model), session=made.session, closed=True)
    wrong = [one.unit for one in found.worst if one.score < 0]
    lines = text.split("## Known failures")[1].split("##")[0]
    assert [one for one in wrong[:8] if f"`{one}`" in lines] == wrong[:8]
    assert len(wrong) == round((1 - found.figures["accuracy"].value) * 10)
    recalls = {name.removeprefix("recall/"): one for name, one in found.figures.items() if name.startswith("recall/")}
    lowest = min(recalls, key=lambda name: recalls[name].value)
    if recalls[lowest].value < 1:
        assert f"Worst classes: {lowest} (recall" in lines


def test_no_more_pictures_are_judged_than_asked(made):
    text = made.card(pictures=4)
    assert "on 4 of the 10 pictures, drawn at random, of the split val" in text
    assert "It was not measured for this card" in made.card(pictures=0)


def test_a_saved_model_that_is_not_the_trained_one_is_said(made):
    lines: list[str] = []
    made.card(say=lines.append)
    assert not lines
    path = made.model / "model.safetensors"
    state = load_file(path)
    state["head.classes.weight"] *= 0
    state["head.classes.bias"][:] = torch.tensor([9.0, 0.0, 0.0])  # it says the same of every picture
    save_file(state, path)
    text = made.card(say=lines.append)
    assert any("The saved model has accuracy" in line for line in lines)
    assert all(line in text for line in lines)


def test_without_a_split_to_judge_by_nothing_is_claimed(stripes, tiny_vit, session, tmp_path):
    made = Made(stripes, tiny_vit, session, tmp_path / "run", data__holdout=0)
    text = made.card()
    assert "There was no validation split" in text
    assert not read(made).eval_results


def test_what_cannot_be_measured_is_said(made, monkeypatch):
    def broken(self, requests, ctx):
        raise EngineError("the engine is gone", "bring it back")

    monkeypatch.setattr(AdaptedClassifier, "run", broken)
    text = made.card()
    assert "Not measured by classification:" in text
    assert "the engine is gone" in text
    assert ["accuracy", f"{made.record['figures']['accuracy']:.4g}"] in table(text, "Figures of the training itself")


KINDS = {
    "semantic": ("segment", {"recipe": "semantic"}, "image-segmentation", "mIoU"),
    "masks": ("segment", {"recipe": "masks", "options__kind": "instance"}, "image-segmentation", "AP"),
    "detect": ("detect", {}, "object-detection", "AP"),
    "promptable": (
        "segment",
        {"recipe": "promptable", "head__options": {"width": 32, "heads": 2, "hidden": 32, "mixing": 1}},
        "mask-generation",
        "box mIoU",
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_model_has_its_card(name, shapes, tiny_vit, session, tmp_path):
    task, changes, pipeline, figure = KINDS[name]
    made = Made(shapes, tiny_vit, session, tmp_path / "run", task, side=56, loop__epochs=1, **changes)
    text = made.card()
    found = read(made)
    assert found.pipeline_tag == pipeline
    assert any(one.metric_name.startswith(figure) for one in found.eval_results)
    assert "Not measured" not in text
    assert "{" not in text
    assert ["square", "6", "2"] in table(text, "Pictures that hold each class")


def test_an_encoder_is_judged_by_its_neighbours(stripes, tiny_vit, session, tmp_path):
    given = {"recipe": "mae", "options__width": 16, "options__depth": 1, "options__heads": 2}
    made = Made(stripes, tiny_vit, session, tmp_path / "run", "embed", **given)
    text = made.card()
    found = evaluate(made.job.dataset, task="embed", measure="features", model=str(made.model), session=session)
    rows = {name: value for name, value, *_ in table(text, "## How good it is")}
    assert rows["k-NN accuracy"] == f"{found.figures['k-NN accuracy'].value:.3f}"
    assert read(made).pipeline_tag == "image-feature-extraction"


def test_weights_drawn_at_random_owe_nothing_to_a_base(stripes, tiny_vit, session, tmp_path):
    shape = {"size": "vit-tiny", "depth": 1, "side": 28, "patch": 14}
    given = {"recipe": "mae", "options__width": 16, "options__depth": 1, "options__heads": 2, "options__scratch": shape}
    made = Made(stripes, tiny_vit, session, tmp_path / "run", "embed", **given)
    text = made.card()
    assert "from weights drawn at random" in text
    assert "No weights of others are in it" in text
    assert read(made).license == "other"


LICENCES = {
    "Apache-2.0": ("apache-2.0", None),
    "MIT": ("mit", None),
    "SAM License": ("other", "sam-license"),
    "CC-BY-NC-4.0": ("cc-by-nc-4.0", None),
    "": ("other", "not-stated"),
}


@pytest.mark.parametrize("licence", LICENCES)
def test_the_licence_of_the_base_is_told_as_a_hub_knows_it(licence, made):
    base = {"id": "someone/vit", "weights": "1", "licence": licence, "licence_note": "its page"}
    text = made.card(pictures=0, record={**made.record, "base": base})
    found = read(made)
    assert (found.license, found.license_name) == LICENCES[licence]
    assert found.base_model == "someone/vit"
    assert ("forbids commercial use" in text) == ("NC" in licence)


def test_energy_is_told_where_the_machines_power_is_known(made, monkeypatch):
    monkeypatch.setattr(made.session, "rates", Rates(watts=100, co2=0.4))
    seconds = {"fit": 3600.0}
    text = made.card(pictures=0, record={**made.record, "seconds": seconds})
    assert "0.1 kWh at 100 W, 0.04 kg CO2; counted from the time" in text
    assert "3600.0 s (fit 3600.0 s)" in text


def test_a_disk_that_is_full_is_said(made, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(card, "replacing", full)
    with pytest.raises(OutputError, match=r"README\.md: cannot be written \(No space left on device\)"):
        made.card(pictures=0)


def test_the_command_stands_there_as_it_was_given(made):
    words = ["/somewhere/bin/manylens", "train", "--data", "my pictures", "-o", "runs/x"]
    text = made.card(pictures=0, record={**made.record, "command": words})
    assert "$ manylens train --data 'my pictures' -o runs/x\n" in text
    assert "somewhere" not in text


def test_odd_names_do_not_break_a_table():
    assert card.table(["a|b"], [["c\nd | e"]]) == "| a\\|b |\n| --- |\n| c d \\| e |"


def test_card_and_docs_agree_on_how_many_pictures():
    usual = RecordSection().pictures
    assert usual == card.PICTURES
    docs = Path(__file__).parents[2] / "docs"
    assert f"`record.pictures` ({usual}) of its pictures" in (docs / "export.md").read_text()
    assert f"`record.pictures` of the validation pictures ({usual})" in (docs / "train.md").read_text()


# ------------------------------------------------------------------ rights


def records(folder: Path, **columns) -> Dataset:
    path = folder / "1.png"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    rows = [
        Record(str(number), path, label="a", columns={k: v[number] for k, v in columns.items()}) for number in (0, 1)
    ]
    return Dataset.of(rows, [Category(1, "a")], name="some")


def test_rights_of_a_column(tmp_path):
    data = records(tmp_path, licence=["CC0", "MIT"])
    assert card_data.rights(DataSection(), data) == "by picture, CC0 (1 pictures), MIT (1 pictures)."


@pytest.mark.parametrize("name", ["LICENSE", "licence.txt", "COPYING"])
def test_rights_of_a_file_in_the_folder(name, tmp_path):
    (tmp_path / name).write_text("\n\nAttribution 4.0\nmore of it")
    found = card_data.rights(DataSection(source=str(tmp_path)), records(tmp_path))
    assert found == f"its file {name} begins: Attribution 4.0."


def test_rights_of_a_coco_file(tmp_path):
    rows = [{"id": 1, "name": "CC BY 4.0", "url": "https://example.org"}, {"id": 2, "name": "CC0"}]
    (tmp_path / "labels.json").write_text(json.dumps({"licenses": rows, "images": []}))
    section = DataSection(source=str(tmp_path / "labels.json"))
    assert card_data.rights(section, records(tmp_path)) == "CC BY 4.0 (https://example.org); CC0."
    (tmp_path / "labels.json").write_text("[1]")
    assert card_data.rights(section, records(tmp_path)) == card_data.NOT_STATED


def test_progress_says_that_it_is_the_card(made):
    said: list[str] = []
    made.card(progress=lambda done, line: said.append(line))
    count = made.job.dataset.splits["val"]
    assert said == [f"the card: measuring picture {number} of {count}" for number in range(1, count + 1)]
