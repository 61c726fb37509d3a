"""What tests of the dense recipes share: made-up data, steps, and a fit of a few of them."""

from __future__ import annotations

from dataclasses import replace

import torch

from manylens.data import Dataset
from manylens.training.recipes.base import Draw, Step
from tests.training.dense import made_up
from tests.training.dense.made_up import CATEGORIES

SIDE = 56
TASKS = {"semantic": "segment", "masks": "segment", "detect": "detect"}
BASE = {"id": "tiny", "weights": "0" * 16}


def data(folder, count=6, val=2, categories=CATEGORIES, change=lambda one: one) -> Dataset:
    records = [change(one) for one in made_up.records(count, folder, side=SIDE)]
    records = [replace(one, split="val" if n >= count - val else "train") for n, one in enumerate(records)]
    return Dataset.of(records, categories, name="shapes")


def draws(*numbers, epoch=0, seed=0):
    return [Draw(number, epoch, seed) for number in numbers]


def step(share=0.0, epoch=0):
    return Step(int(share * 100), 100, epoch, 10)


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return same(vars(one), vars(other)) if hasattr(one, "__dict__") else one == other


def fit(one, steps=40, rate=5e-3, batch=4):
    """Some steps on all training pictures, as the loop takes them."""
    one.network.train()
    one.before_epoch(step())
    optimiser = torch.optim.AdamW([weight for _, weight in one.parameters()], rate)
    source = one.train_source()
    for number in range(steps):
        optimiser.zero_grad()
        shown = source.__getitems__(draws(*range(min(batch, len(source))), epoch=number))
        torch.manual_seed(number)
        one.loss(shown, step(number / steps))["loss"].backward()
        optimiser.step()
    return judge(one)


def judge(one):
    one.network.eval()
    with torch.no_grad():
        one.judge(one.val_source().__getitems__(draws(*range(len(one.val_source())))))
    return one.figures()
