"""Claim: a step of DINO costs within 10 % of a minimal hand-written loop.

Peer: `_baselines/dino_loop.py`, plain torch and transformers, with the fast form of each part.
Measured: the time from one step's end to the next, in training as it is run (recipe, loop, Lightning, optimiser, the
check for a loss that is no number, schedules, the teacher's move), for a new ViT-Ti/16 (`--full`: ViT-S/16) on 4
pictures a step, two views of 224 pixels and eight of 96 each, 4,096 prototypes, f32. Views are made beforehand and are
the same for both, as are the first weights. The two train in turns; medians over steps, without the first two of each
turn.
Told beside it: what making the views costs, with kornia's augmentations for a peer.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._baselines import dino_loop
from benchmarks._claims import Options, Outcome, Part, say
from benchmarks._harness import in_turns, medians
from benchmarks._pictures import crops

GOAL = "a DINO step within 10 % of a minimal hand-written loop"

_PICTURES = 4
_PROTOTYPES = 4096
_STEPS = 6
_WARM = 2
_ROUNDS = 3


def run(options: Options) -> Outcome:
    """Train both in turns."""
    import torch

    from manylens.runtime.cpu import threads

    torch.set_num_threads(threads())
    size = "vit-small" if options.full else "vit-tiny"
    with tempfile.TemporaryDirectory() as name:
        bench = _Bench(Path(name), size)
        steps: dict[str, list[float]] = {"ours": [], "peer": []}
        losses: dict[str, list[float]] = {}
        for turn in range(_ROUNDS):
            for who, call in (("ours", bench.ours), ("peer", bench.peer)):
                ended, losses[who] = call()
                steps[who] += [after - before for before, after in zip(ended[_WARM - 1 :], ended[_WARM:], strict=False)]
                say(f"dino-step: turn {turn + 1}, {who} {statistics.median(steps[who]):.3f} s a step")
        ours, peer = (statistics.median(steps[who]) for who in ("ours", "peer"))
        views = medians(in_turns(bench.views(), rounds=3))
    apart = max(abs(a - b) for a, b in zip(losses["ours"], losses["peer"], strict=True))
    return Outcome(
        [
            Part("step", ours, peer, "s", 1.1, "ratio"),
            Part("views of a picture", views["ours"] / _PICTURES, views["kornia"] / _PICTURES, "s"),
        ],
        {"the same losses": apart < 1e-3},
        {"network": f"{size}/16", "pictures a step": _PICTURES, "steps": len(steps["ours"]), "losses apart": apart},
    )


class _Bench:
    """What both train: a network, and views that are made once."""

    def __init__(self, folder: Path, size: str) -> None:
        import torch

        from manylens.training.selfsupervised import folders
        from manylens.training.selfsupervised.crops import MultiCrop
        from manylens.training.selfsupervised.folders import ScratchOptions

        self.folder, self.size = folder, size
        (folder / "pictures").mkdir()
        self.paths = crops(folder / "pictures", _PICTURES, seed=3)
        self.model = folders.scratch(folder / "model", ScratchOptions(size=size))
        self.multi = MultiCrop()
        self.squares = torch.stack([_square(path) for path in self.paths])
        generator = torch.Generator().manual_seed(0)
        self.batches = [self.multi(self.squares, self.multi.numbers(_PICTURES, generator)) for _ in range(_STEPS)]
        self.first: dict[str, Any] = {}

    def ours(self) -> tuple[list[float], list[float]]:
        """When each step ended, and its loss, in the product's own loop."""
        import numpy as np

        from manylens.data import Dataset
        from manylens.session import Session
        from manylens.training.config import Config
        from manylens.training.loop.running import fit
        from manylens.training.recipes.base import Draw, Given, Source, Step
        from manylens.training.recipes.dino import DinoRecipe

        batches, ended, losses = self.batches, [], []

        class Made(Source):
            def __len__(self) -> int:
                return _PICTURES * _STEPS

            def __getitems__(self, draws: Sequence[Draw]) -> dict[str, Any]:
                views = batches[draws[0].index // _PICTURES]
                return {"large": views.large, "small": views.small}

        class Watched(DinoRecipe):
            def train_source(self) -> Source:
                return Made()

            def draws(self, epoch: int) -> np.ndarray:
                return np.arange(_PICTURES * _STEPS)

            def loss(self, batch: Any, step: Step) -> dict[str, Any]:
                found = super().loss(batch, step)
                losses.append(found["loss"].detach())
                return found

            def after_step(self, step: Step) -> None:
                super().after_step(step)
                ended.append(time.perf_counter())

        options = {"prototypes": _PROTOTYPES, "weight_decay": 0.04, "last_weight_decay": 0.04, "momentum": 0.996}
        options |= {"centring": "centre", "koleo": 0}
        config = Config.of(
            {
                "task": "embed",
                "recipe": "dino",
                "model": str(self.model),
                "options": options,
                "schedule": {"kind": "constant", "warmup": (_STEPS - 1) / _STEPS},
                "loop": {"epochs": 1, "batch_size": _PICTURES, "device": "cpu"},
            }
        )
        data = Dataset.read(self.folder / "pictures").split({"train": 1.0})
        with Session() as session, session.module(str(self.model)) as trainable:
            given = Given(config, data, trainable, session, {}, self.folder, session.settings(str(self.model)))
            recipe = Watched(given)
            self.first = copy.deepcopy(recipe.network.student.state_dict())
            quiet: Any = lambda *told: None  # noqa: E731
            with tempfile.TemporaryDirectory() as out:
                fit(
                    recipe,
                    config,
                    Path(out),
                    lr=1e-4,
                    blocks=len(trainable.blocks),
                    waits={},
                    resume=False,
                    progress=quiet,
                    say=quiet,
                )
        return ended, [float(loss) for loss in losses]

    def peer(self) -> tuple[list[float], list[float]]:
        """The same in the plain loop, from the same weights."""
        import torch
        from transformers import Dinov2Model

        from manylens.models.pixels import IMAGENET_MEAN, IMAGENET_STD

        made = [dino_loop.Net(Dinov2Model.from_pretrained(self.model), _PROTOTYPES) for _ in range(2)]
        names = {"tower.model.": "model.", "head.mlp.": "mlp.", "head.prototypes": "last"}
        state = {}
        for name, tensor in self.first.items():
            ours = next(one for one in names if name.startswith(one))
            state[names[ours] + name.removeprefix(ours)] = tensor
        made[0].load_state_dict(state)
        mean, std = (torch.tensor(one)[:, None, None] for one in (IMAGENET_MEAN, IMAGENET_STD))
        batches = [(views.large, views.small) for views in self.batches]
        return dino_loop.train(made[0], made[1], batches, mean, std, lr=1e-4, decay=0.04)

    def views(self) -> dict[str, Any]:
        """Making the views of all pictures, ours and kornia's."""
        import kornia.augmentation as K
        import torch

        numbers = self.multi.numbers(_PICTURES, torch.Generator().manual_seed(0))
        given = self.squares.float() / 255

        def kind(side: int, scale: tuple[float, float], blur: float, solarise: float) -> Any:
            return K.AugmentationSequential(
                K.RandomResizedCrop((side, side), scale=scale),
                K.RandomHorizontalFlip(),
                K.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8),
                K.RandomGrayscale(p=0.2),
                K.RandomGaussianBlur((9, 9), (0.1, 2.0), p=blur),
                *([K.RandomSolarize(p=solarise)] if solarise else []),
            )

        kinds = [kind(224, (0.4, 1.0), 1.0, 0.0), kind(224, (0.4, 1.0), 0.1, 0.2)]
        kinds += [kind(96, (0.05, 0.4), 0.5, 0.0)] * 8
        return {"ours": lambda: self.multi(self.squares, numbers), "kornia": lambda: [one(given) for one in kinds]}


def _square(path: Path) -> Any:
    import numpy as np
    import torch

    from manylens.media import Image
    from manylens.models.adapted.picture import square

    return torch.from_numpy(np.array(square(Image.of(path).array, 336))).permute(2, 0, 1)
