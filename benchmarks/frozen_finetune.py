"""Claim: a head on a frozen encoder, 20 epochs on 200 images, is trained 10x faster than by transformers' Trainer.

Peer: `transformers.Trainer` on `Dinov2ForImageClassification` with the same weights in its backbone, which is frozen,
as its guides show: pictures are opened and resized as they are asked for, batches of 32, AdamW, no evaluation between.
Both work on the same squares of 224 pixels, with the same threads. Without `--full` the peer trains two epochs, which
count ten times; with it all twenty, and its accuracy is compared as well.
A second peer is what a careful user writes: one pass of the same module in torch over all pictures, then scikit-learn's
`LogisticRegression` on what it gave.
Measured: ours includes encoding, the loop with validation after each epoch, checkpoints and
the saved model; importing libraries and loading weights is left out for all. It begins with an empty cache; `views` is
the same with four augmented views of each picture kept. Where the time goes is told in the notes.
Data: scikit-learn's digits, 20 a class to learn from and 20 a class to judge by, 64 x 64 pixels as PNG files.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._claims import Options, Outcome, Part, say
from benchmarks._harness import fresh_home, measure_engine, timed

GOAL = "frozen encoder, 20 epochs on 200 images: >= 10x the speed of transformers' Trainer, as accurate"
MODEL = "manylens/vit-s"
EPOCHS, EACH, BATCH = 20, 20, 32

_TIMES, _MEASURED, _CLOSE = 10.0, 2, 0.03


def run(options: Options) -> Outcome:
    """Train with all three."""
    from manylens.session import Session
    from manylens.training.run import Job

    with fresh_home() as home, tempfile.TemporaryDirectory() as name, Session(home=home) as session:
        folder = Path(name)
        data = digits(folder / "data")
        engine = measure_engine(session, MODEL)
        given = {"loop.epochs": EPOCHS, "loop.batch_size": BATCH, "data.check": False}
        views = {"augment.policy": "light", "augment.views": 4}
        results: dict[str, Any] = {}
        seconds: dict[str, float] = {}
        for kind, more in (("plain", {}), ("views", views)):
            job = Job.of(data, task="classify", model=MODEL, session=session, set={**given, **more})
            seconds[kind], results[kind] = timed(lambda job=job, kind=kind: job.train(folder / kind))
            say(f"frozen-finetune: {kind}, {seconds[kind]:.1f} s, {results[kind].figures['accuracy']:.3f}")
            session.store.clear() if hasattr(session.store, "clear") else None
        with session.module(MODEL) as trainable:
            seconds["probe"], accuracy = timed(lambda: probe(data, trainable))
            say(f"frozen-finetune: scikit-learn, {seconds['probe']:.1f} s, {accuracy:.3f}")
            epochs = EPOCHS if options.full else _MEASURED
            seconds["peer"], peer_accuracy = hugging(data, trainable, folder / "peer", epochs)
            seconds["peer"] *= EPOCHS / epochs
            say(f"frozen-finetune: Trainer, {seconds['peer']:.1f} s, {peer_accuracy:.3f}")
    ours = results["plain"].figures["accuracy"]
    checks = {f"accuracy within {_CLOSE} of scikit-learn's or better": ours >= accuracy - _CLOSE}
    if options.full:
        checks[f"accuracy within {_CLOSE} of the Trainer's or better"] = ours >= peer_accuracy - _CLOSE
    return Outcome(
        [
            Part("20 epochs", seconds["plain"], seconds["peer"], "s", 1 / _TIMES, "ratio"),
            Part("with 4 views", seconds["views"], seconds["peer"], "s"),
            Part("against encoding and scikit-learn", seconds["plain"], seconds["probe"], "s", 1.0, "ratio"),
        ],
        checks,
        {
            "engine": engine.label,
            "times faster": round(seconds["peer"] / seconds["plain"], 1),
            "peer epochs measured": epochs,
            "accuracy": {
                "ours": round(ours, 3),
                "ours with views": round(results["views"].figures["accuracy"], 3),
                "scikit-learn": round(accuracy, 3),
                "Trainer": round(peer_accuracy, 3) if options.full else None,
            },
            "where ours goes": results["plain"].seconds,
            "where it goes with views": results["views"].seconds,
        },
    )


def digits(folder: Path) -> Path:
    """A folder a split and class."""
    from PIL import Image
    from sklearn.datasets import load_digits

    found = load_digits()
    random = np.random.default_rng(0)
    for label in range(10):
        rows = random.permutation(np.flatnonzero(found.target == label))[: 2 * EACH]
        for place, row in enumerate(rows):
            path = folder / ("train" if place < EACH else "val") / str(label) / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((found.images[row] * 15.9).astype(np.uint8)).resize((64, 64)).convert("RGB").save(path)
    return folder


def _files(data: Path, split: str) -> tuple[list[Path], np.ndarray]:
    paths = sorted((data / split).glob("*/*.png"))
    return paths, np.array([int(path.parent.name) for path in paths])


def _pixels(paths: list[Path]) -> Any:
    import torch
    from PIL import Image

    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    rows = [np.asarray(Image.open(path).convert("RGB").resize((224, 224), Image.BICUBIC)) for path in paths]
    return ((torch.from_numpy(np.stack(rows)).float() / 255 - mean) / std).permute(0, 3, 1, 2)


def probe(data: Path, trainable: Any) -> float:
    """One pass of the module, then a logistic regression: its accuracy."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    vectors, labels = {}, {}
    trainable.module.eval()
    for split in ("train", "val"):
        paths, labels[split] = _files(data, split)
        with torch.no_grad():
            parts = [
                trainable.forward(_pixels(paths[start : start + BATCH]))["vector"]
                for start in range(0, len(paths), BATCH)
            ]
        vectors[split] = torch.cat(parts).numpy()
    fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(vectors["train"], labels["train"])
    return float(fitted.score(vectors["val"], labels["val"]))


def hugging(data: Path, trainable: Any, folder: Path, epochs: int) -> tuple[float, float]:
    """Seconds of the Trainer and its accuracy."""
    import torch
    from transformers import Dinov2ForImageClassification, Trainer, TrainingArguments

    trainable.module.save_pretrained(folder / "backbone")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Dinov2ForImageClassification.from_pretrained(folder / "backbone", num_labels=10)
    model.dinov2.requires_grad_(False)

    class Opened(torch.utils.data.Dataset[Any]):
        def __init__(self, split: str) -> None:
            self.paths, self.labels = _files(data, split)

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, number: int) -> dict[str, Any]:
            return {"pixel_values": _pixels([self.paths[number]])[0], "labels": int(self.labels[number])}

    arguments = TrainingArguments(
        output_dir=str(folder / "out"),
        num_train_epochs=epochs,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=BATCH,
        learning_rate=2e-3,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        logging_strategy="no",
        use_cpu=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=Opened("train"))
    took, _ = timed(trainer.train)
    found = trainer.predict(Opened("val"))
    return took, float((found.predictions.argmax(axis=1) == found.label_ids).mean())
