"""From data to a folder that ``--model`` takes: what learns, what resuming gives, and what is said where it fails."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from manylens.errors import OutputError, UserError
from manylens.tasks import ClassifyRequest
from manylens.training.errors import DivergedError, TrainError
from manylens.training.recipes import on_encoder
from manylens.training.recipes.classify import Classify
from manylens.training.run import train

SMALL = {"loop.epochs": 4, "loop.batch_size": 8}


def run(stripes, tiny_vit, session, out, **changes):
    resume = changes.pop("resume", False)
    given = {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
    return train(
        stripes, task="classify", model=str(tiny_vit), out=out, set=given, session=session, resume=resume, config=None
    )


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


@pytest.fixture
def tall(tmp_path):
    """Two classes of pictures that are three times as high as wide."""
    random = np.random.default_rng(0)
    for name, level in (("dark", 40), ("bright", 200)):
        (tmp_path / "tall" / name).mkdir(parents=True)
        for number in range(6):
            pixels = random.integers(level, level + 50, (84, 28, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "tall" / name / f"{number}.png")
    return tmp_path / "tall"


def test_the_check_knows_the_size_of_the_training(tall, tiny_vit, session, tmp_path):
    """It is the model's where the config says none."""
    made = run(tall, tiny_vit, session, tmp_path / "run", loop__epochs=1)
    sizes = json.loads((tmp_path / "run" / "check.json").read_text())["sizes"]
    assert (sizes["side"], sizes["cell"], sizes["stretched"]) == (28, 7, 1.0)
    assert any("twice as long as wide" in note for note in made.notes)
    with pytest.raises(UserError, match="twice as long as wide"):
        run(tall, tiny_vit, session, tmp_path / "strict", loop__epochs=1, data__strict=True)


def test_a_head_learns_and_the_run_is_a_model(stripes, tiny_vit, session, tmp_path):
    made = run(stripes, tiny_vit, session, tmp_path / "run", loop__epochs=20, optimiser__lr=0.01)
    assert made.figures["accuracy"] > 0.5
    assert made.history[0]["train/loss"] > made.history[-1]["train/loss"]
    picture = next((stripes / "lying").iterdir())
    for name in (tmp_path / "run", tmp_path / "run" / "model"):
        found = session.run(ClassifyRequest.of(image=picture), model=str(name))
        assert {label.name for label in found.labels} == {"lying", "standing", "slanted"}
        assert sum(label.score for label in found.labels) == pytest.approx(1)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["state"] == "done"
    assert record["base"]["weights"]
    assert record["data"]["records"] == 48
    assert record["versions"]["torch"]


MODES = {
    "frozen": {},
    "partial": {"transfer__train_blocks": 2},
    "gradual": {"transfer__unfreeze_from": 1, "transfer__unfreeze_every": 1},
    "lora": {"transfer__lora": {"rank": 2}},
    "full": {"transfer__layer_decay": 0.5},
}
LEARNING = {"frozen": set(), "partial": {2, 3}, "gradual": {1, 2, 3}, "lora": {0, 1, 2, 3}, "full": {0, 1, 2, 3}}
"""Blocks of the four that have changed after four epochs."""


@pytest.mark.parametrize("mode", MODES)
def test_only_what_the_mode_says_changes(mode, stripes, tiny_vit, session, tmp_path):
    options = {"transfer__encoder_rate": 1.0, "data__holdout": 0, **MODES[mode]}  # without validation the last is kept
    run(stripes, tiny_vit, session, tmp_path / "run", transfer__mode=mode, **options)
    saved = tensors(tmp_path / "run")
    blocks = {int(name.split("layer.")[1].split(".")[0]) for name in saved if "layer." in name}
    assert blocks == LEARNING[mode]
    assert any("embeddings" in name for name in saved) == (mode == "full")
    assert not any("lora" in name or "base_layer" in name for name in saved)


@pytest.mark.parametrize("mode", MODES)
def test_the_saved_model_answers_as_the_trained_one(mode, stripes, tiny_vit, session, tmp_path, monkeypatch):
    """With what the loss adds to the answer, and with LoRA's matrices in the weights."""
    kept = {}
    plain = Classify.save

    def saved(self, folder):
        pictures = self.val_source()._pictures if not self.cached else None
        if pictures is not None:
            self.network.eval()
            with torch.no_grad():
                logits = self.network(pictures.tensor(range(4)))["logits"]
                kept["paths"], kept["logits"] = pictures.paths[:4], self.criterion.answer(logits)
        plain(self, folder)

    monkeypatch.setattr(Classify, "save", saved)
    options = {**MODES[mode], "imbalance__loss": "post_hoc", "transfer__encoder_rate": 1.0}
    run(stripes, tiny_vit, session, tmp_path / "run", transfer__mode=mode, **options)
    if mode == "frozen":
        return  # its answers are held to the figures above
    for path, logits in zip(kept["paths"], kept["logits"], strict=True):
        found = session.run(ClassifyRequest.of(image=path), model=str(tmp_path / "run"))
        expected = dict(zip(("lying", "slanted", "standing"), logits.softmax(0).tolist(), strict=True))
        assert {label.name: pytest.approx(label.score, abs=1e-4) for label in found.labels} == expected


RESUMED = {
    "frozen": {"regularise__mixup": 0.4, "regularise__dropout": 0.2, "imbalance__sampling": "balanced"},
    "views": {"augment__policy": "light", "augment__views": 3},
    "full": {"transfer__mode": "full", "regularise__drop_path": 0.2, "augment__policy": "rand"},
    "ema": {"transfer__mode": "lora", "regularise__ema": 0.9},
    "plateau": {"schedule__kind": "plateau", "schedule__patience": 0, "optimiser__kind": "sgd"},
    "gradual": {"transfer__mode": "gradual", "optimiser__accumulate": 2},
}


class Killed(BaseException):
    """Stands for a signal: no ``except Exception`` catches it."""


@pytest.mark.parametrize("name", RESUMED)
def test_resuming_ends_as_if_nothing_had_happened(name, stripes, tiny_vit, session, tmp_path, monkeypatch):
    whole = run(stripes, tiny_vit, session, tmp_path / "whole", **RESUMED[name])
    plain, calls = Classify.loss, []

    def dies(self, batch, step):
        calls.append(step)
        if len(calls) == 11:  # in the middle of the third epoch
            raise Killed
        return plain(self, batch, step)

    monkeypatch.setattr(Classify, "loss", dies)
    with pytest.raises(Killed):
        run(stripes, tiny_vit, session, tmp_path / "part", **RESUMED[name])
    monkeypatch.setattr(Classify, "loss", plain)
    assert json.loads((tmp_path / "part" / "run.json").read_text())["state"] == "stopped"
    again = run(stripes, tiny_vit, session, tmp_path / "part", resume=True, **RESUMED[name])
    first, second = tensors(tmp_path / "whole"), tensors(tmp_path / "part")
    assert first.keys() == second.keys()
    for key, one in first.items():
        torch.testing.assert_close(second[key], one, rtol=0, atol=1e-5)
    drop = lambda rows: [{k: v for k, v in row.items() if k != "seconds"} for row in rows]  # noqa: E731
    for one, other in zip(drop(whole.history), drop(again.history), strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert whole.figures == pytest.approx(again.figures, abs=1e-5)


def test_resuming_with_another_config_is_refused_with_the_difference(stripes, tiny_vit, session, tmp_path):
    run(stripes, tiny_vit, session, tmp_path / "run")
    with pytest.raises(TrainError, match=r"another config: loop\.epochs is 9, was 4"):
        run(stripes, tiny_vit, session, tmp_path / "run", resume=True, loop__epochs=9)
    with pytest.raises(TrainError, match="a run is there already"):
        run(stripes, tiny_vit, session, tmp_path / "run")


def test_a_loss_that_is_no_number_stops_and_names_step_and_pictures(stripes, tiny_vit, session, tmp_path, monkeypatch):
    plain, calls = Classify.loss, []

    def breaks(self, batch, step):
        calls.append(step)
        found = plain(self, batch, step)
        return {"loss": found["loss"] * float("nan")} if len(calls) == 6 else found

    monkeypatch.setattr(Classify, "loss", breaks)
    with pytest.raises(DivergedError, match=r"nan at step 5 \(epoch 1, batch 1: .*\.png") as caught:
        run(stripes, tiny_vit, session, tmp_path / "run")
    assert "last good checkpoint is kept" in caught.value.remedy
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["epoch"] == 0
    assert all(one.isfinite().all() for one in kept["state_dict"].values())


def test_a_full_disk_leaves_the_checkpoint_before(stripes, tiny_vit, session, tmp_path, monkeypatch):
    plain, calls = torch.save, []

    def fills(body, file, **more):
        calls.append(file)
        if len(calls) == 5:
            file.write(b"half of it")
            raise OSError(28, "No space left on device")
        plain(body, file, **more)

    monkeypatch.setattr(torch, "save", fills)
    with pytest.raises(OutputError, match=r"checkpoint cannot be written \(No space left on device\)"):
        run(stripes, tiny_vit, session, tmp_path / "run")
    monkeypatch.setattr(torch, "save", plain)
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["epoch"] == 1
    assert not list((tmp_path / "run" / "checkpoints").glob(".*.part"))
    run(stripes, tiny_vit, session, tmp_path / "run", resume=True)


def test_early_stopping_ends_where_a_figure_gets_no_better(stripes, tiny_vit, session, tmp_path):
    made = run(stripes, tiny_vit, session, tmp_path / "run", loop__epochs=30, loop__patience=2, optimiser__lr=1e-12)
    assert made.stopped_early
    assert made.epochs < 30


def test_a_plateau_of_the_loss_is_where_it_falls_no_more(stripes, tiny_vit, session, tmp_path):
    plateau = {"schedule__kind": "plateau", "schedule__patience": 0, "optimiser__kind": "sgd", "loop__monitor": "loss"}
    made = run(stripes, tiny_vit, session, tmp_path / "run", optimiser__lr=1e-3, **plateau)
    losses = [row["val/loss"] for row in made.history]
    assert losses == sorted(losses, reverse=True)  # it gets better all the time
    assert {row["lr"] for row in made.history} == {1e-3}


def test_features_are_encoded_once(stripes, tiny_vit, session, tmp_path):
    first = run(stripes, tiny_vit, session, tmp_path / "one")
    second = run(stripes, tiny_vit, session, tmp_path / "two", head__kind="mlp", head__options={"hidden": 8})
    assert all("encoded" in line for line in first.notes)
    assert all("encoded" not in line for line in second.notes)
    third = run(stripes, tiny_vit, session, tmp_path / "three", side=35)
    assert all("encoded" in line for line in third.notes)


def test_the_encoder_is_built_once_for_all_pictures(stripes, tiny_vit, session, tmp_path, monkeypatch):
    plain, built = on_encoder.Encoding, []
    monkeypatch.setattr(on_encoder, "Encoding", lambda *words: built.append(words) or plain(*words))
    made = run(stripes, tiny_vit, session, tmp_path / "run")
    assert len([line for line in made.notes if "features of" in line]) == 2  # to learn from, and to judge by
    assert len(built) == 1


CRITERIA = ["weighted", "focal", "class_balanced", "ldam", "logit_adjusted"]


@pytest.mark.parametrize("loss", CRITERIA)
def test_every_loss_trains(loss, stripes, tiny_vit, session, tmp_path):
    made = run(stripes, tiny_vit, session, tmp_path / "run", imbalance__loss=loss, loop__epochs=10)
    assert made.figures["accuracy"] > 0.5


def test_made_examples_are_shown_too(stripes, tiny_vit, session, tmp_path):
    for number, path in enumerate(sorted((stripes / "lying").iterdir())):
        (tmp_path / "data" / "lying").mkdir(parents=True, exist_ok=True)
        if number < 5:
            (tmp_path / "data" / "lying" / path.name).write_bytes(path.read_bytes())
    for name in ("standing", "slanted"):
        (tmp_path / "data" / name).mkdir()
        for path in (stripes / name).iterdir():
            (tmp_path / "data" / name / path.name).write_bytes(path.read_bytes())
    plain, seen = Classify.loss, []

    def counted(self, batch, step):
        seen.append(batch["target"])
        return plain(self, batch, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classify, "loss", counted)
        run(tmp_path / "data", tiny_vit, session, tmp_path / "run", imbalance__synthetic="smote", loop__epochs=1)
    counts = np.bincount(torch.cat(seen).numpy())
    assert counts.max() - counts.min() <= 8


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"transfer__mod": "full"}, r"'transfer\.mod': there is no such key; did you mean transfer\.mode\?"),
        ({"lr": 1}, r"'lr': there is no such key; did you mean optimiser\.lr\?"),
        ({"optimiser__lr": -1}, r"'optimiser\.lr': -1 does not fit"),
        ({"imbalance__loss": "focl"}, "did you mean 'focal'"),
        ({"recipe": "other"}, "classify has none of that name"),
        ({"data__train": "learn"}, "there is no such split"),
        ({"head__kind": "linnear"}, "did you mean 'linear'"),
        ({"head__options": {"dropot": 1}}, "dropot"),
        ({"transfer__mode": "partial", "transfer__train_blocks": 9}, "9 of 4 blocks"),
        ({"transfer__mode": "lora", "transfer__lora": {"targets": ["nothing"]}}, "the model has no such layers"),
        ({"transfer__mode": "full", "imbalance__synthetic": "smote"}, "features of a frozen encoder"),
        ({"loop__monitor": "acuracy"}, "did you mean"),
    ],
)
def test_what_a_user_can_get_wrong_is_named(changes, says, stripes, tiny_vit, session, tmp_path):
    with pytest.raises(UserError, match=says):
        run(stripes, tiny_vit, session, tmp_path / "run", **changes)


def test_a_run_that_is_done_is_taken_as_it_is(stripes, tiny_vit, session, tmp_path):
    first = run(stripes, tiny_vit, session, tmp_path / "run")
    before = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    lines = []
    again = train(
        stripes, task="classify", model=str(tiny_vit), out=tmp_path / "run", set=SMALL, session=session, resume=True,
        say=lines.append,
    )  # fmt: skip
    assert (again.figures, again.best_epoch, again.history) == (first.figures, first.best_epoch, first.history)
    assert any("done already" in line for line in lines)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "done"
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == before
    with pytest.raises(TrainError, match=r"loop\.epochs is 5, was 4"):
        run(stripes, tiny_vit, session, tmp_path / "run", loop__epochs=5, resume=True)


def test_a_run_that_stopped_after_its_last_epoch_only_saves(stripes, tiny_vit, session, tmp_path, monkeypatch):
    whole = run(stripes, tiny_vit, session, tmp_path / "whole")

    def killed(self, folder):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Classify, "save", killed)
        with pytest.raises(Killed):
            run(stripes, tiny_vit, session, tmp_path / "run")
    made = run(stripes, tiny_vit, session, tmp_path / "run", resume=True)
    assert (made.figures, made.best_epoch, len(made.history)) == (whole.figures, whole.best_epoch, 4)
    for name, one in tensors(tmp_path / "whole").items():
        torch.testing.assert_close(tensors(tmp_path / "run")[name], one)


def test_what_stopped_at_a_mistake_before_anything_was_learnt_is_begun_anew(stripes, tiny_vit, session, tmp_path):
    with pytest.raises(UserError, match="linnear"):
        run(stripes, tiny_vit, session, tmp_path / "run", head__kind="linnear")
    assert (tmp_path / "run" / "run.json").exists()
    made = run(stripes, tiny_vit, session, tmp_path / "run", head__kind="mlp")
    assert made.epochs == 4
    assert "kind: mlp" in (tmp_path / "run" / "config.yaml").read_text()
    with pytest.raises(TrainError, match="a run is there already"):
        run(stripes, tiny_vit, session, tmp_path / "run", head__kind="mlp")


def test_two_trainings_do_not_share_a_folder(stripes, tiny_vit, session, tmp_path, monkeypatch):
    plain, said = Classify.before_epoch, []

    def meanwhile(self, step):
        if not said:
            said.append("")
            with pytest.raises(TrainError, match="another training is at work there") as error:
                run(stripes, tiny_vit, session, tmp_path / "run", resume=True)
            said.append(str(error.value))
        plain(self, step)

    monkeypatch.setattr(Classify, "before_epoch", meanwhile)
    run(stripes, tiny_vit, session, tmp_path / "run")
    assert len(said) == 2
    assert [path.name for path in tmp_path.iterdir() if "lock" in path.name] == []


def test_what_was_trained_is_taken_where_a_model_is(stripes, tiny_vit, session, tmp_path):
    made = run(stripes, tiny_vit, session, tmp_path / "run", loop__epochs=1)
    picture = next((stripes / "lying").iterdir())
    assert session.run(ClassifyRequest.of(image=picture), model=made).labels


def test_a_run_goes_on_by_its_own_config(stripes, tiny_vit, session, tmp_path, monkeypatch):
    whole = run(stripes, tiny_vit, session, tmp_path / "whole")
    plain, calls = Classify.loss, []

    def killed(self, batch, step):
        calls.append(1)
        if len(calls) > 10:
            raise Killed
        return plain(self, batch, step)

    with monkeypatch.context() as patched:
        patched.setattr(Classify, "loss", killed)
        with pytest.raises(Killed):
            run(stripes, tiny_vit, session, tmp_path / "run")
    made = train(out=tmp_path / "run", session=session, resume=True)
    assert made.figures == pytest.approx(whole.figures, abs=1e-5)


def test_of_epochs_alike_the_surest_is_the_best(stripes, tiny_vit, session, tmp_path):
    """Accuracy often stands still while the loss still falls."""
    made = run(stripes, tiny_vit, session, tmp_path / "run", loop__epochs=12, optimiser__lr=0.02)
    top = max(row["val/balanced_accuracy"] for row in made.history)
    ties = [row for row in made.history if row["val/balanced_accuracy"] == top]
    assert len(ties) > 1
    assert made.best_epoch == min(ties, key=lambda row: row["val/loss"])["epoch"] > ties[0]["epoch"]
    state = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    assert state["epoch"] == made.best_epoch


def test_a_loss_of_validation_that_is_no_number_stops(stripes, tiny_vit, session, tmp_path, monkeypatch):
    """The weights may be of no use though the loss of the training is still a number."""
    plain, calls = Classify.figures, []

    def spoiled(self):
        calls.append(1)
        return {**plain(self), **({"loss": float("nan")} if len(calls) == 3 else {})}

    monkeypatch.setattr(Classify, "figures", spoiled)
    with pytest.raises(DivergedError, match="the loss of validation is nan after epoch 3"):
        run(stripes, tiny_vit, session, tmp_path / "run")
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["epoch"] == 1
    assert len((tmp_path / "run" / "history.jsonl").read_text().splitlines()) == 2
