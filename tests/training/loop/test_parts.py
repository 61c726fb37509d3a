"""Schedules, parameter groups and batches: pure functions, held to their laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from manylens.training.config import Config, ScheduleSection, TransferSection
from manylens.training.loop.batches import Batches
from manylens.training.loop.optimisers import groups
from manylens.training.loop.schedules import Plateau, factor
from manylens.training.recipes.base import Aim
from manylens.training.recipes.classify import Classify
from manylens.training.recipes.masks import Masks


def at(step: int, total: int = 100, each: int = 10, **values: object) -> float:
    return factor(ScheduleSection(**{"warmup": 0.0, **values}), step, total, each)


@pytest.mark.parametrize(
    ("values", "step", "expected"),
    [
        ({"kind": "constant"}, 50, 1.0),
        ({"kind": "cosine"}, 0, 1.0),
        ({"kind": "cosine"}, 50, 0.5),
        ({"kind": "cosine"}, 100, 0.0),
        ({"kind": "cosine", "floor": 0.2}, 100, 0.2),
        ({"kind": "cosine", "warmup": 0.1}, 0, 1 / 11),
        ({"kind": "cosine", "warmup": 0.1}, 9, 10 / 11),
        ({"kind": "cosine", "warmup": 0.1}, 10, 1.0),
        ({"kind": "cosine", "warmup": 0.1}, 55, 0.5),
        ({"kind": "step", "every": 3, "factor": 0.5}, 29, 1.0),
        ({"kind": "step", "every": 3, "factor": 0.5}, 30, 0.5),
        ({"kind": "step", "every": 3, "factor": 0.5}, 99, 0.125),
        ({"kind": "multistep", "milestones": (2, 7), "factor": 0.1}, 19, 1.0),
        ({"kind": "multistep", "milestones": (2, 7), "factor": 0.1}, 20, 0.1),
        ({"kind": "multistep", "milestones": (2, 7), "factor": 0.1}, 70, 0.01),
        ({"kind": "cyclic", "cycles": 2}, 50, 1.0),
        ({"kind": "cyclic", "cycles": 2}, 25, 0.5),
        ({"kind": "cyclic", "cycles": 2}, 100, 0.0),
        ({"kind": "onecycle"}, 0, 1 / 25),
        ({"kind": "plateau"}, 99, 1.0),
    ],
)
def test_the_rate_at_a_step(values, step, expected):
    assert at(step, **values) == pytest.approx(expected)


def test_one_cycle_is_that_of_torch():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=1.0, total_steps=101)
    for step in range(101):
        # torch ends its rise a step early: the same curve on a grid that is shifted by less than a step.
        assert at(step, total=101, kind="onecycle") == pytest.approx(optimiser.param_groups[0]["lr"], abs=0.03)
        optimiser.step()
        if step < 100:
            theirs.step()


def test_a_plateau_lowers_the_rate_as_torch_does():
    figures = [0.5, 0.6, 0.6, 0.59, 0.6, 0.7, 0.7, 0.6, 0.5, 0.4]
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, mode="max", factor=0.1, patience=1, threshold=0)
    ours = Plateau(ScheduleSection(kind="plateau", factor=0.1, patience=1), "max")
    for number, figure in enumerate(figures):
        theirs.step(figure)
        ours.take(figure)
        assert ours.scale == pytest.approx(optimiser.param_groups[0]["lr"])
        if number == 4:  # as after a resume
            state = ours.state()
            ours = Plateau(ScheduleSection(kind="plateau", factor=0.1, patience=1), "max")
            ours.load(state)
    assert ours.scale < 0.1


def test_less_of_a_loss_is_better_whatever_the_recipe_says():
    def aim(**loop: object) -> Aim:
        return Aim.of(Config.of({"task": "classify", "loop": loop}), Classify)

    assert aim() == Aim("balanced_accuracy", "max")
    assert aim(monitor="loss") == Aim("loss", "min")
    assert aim(monitor="loss", mode="max") == Aim("loss", "max")
    assert aim(monitor="f1").logged == "val/f1"
    assert Aim.of(Config.of({"task": "classify", "loop": {"mode": "min"}}), Classify, "f1", "max") == Aim("f1", "max")


@pytest.mark.parametrize(
    ("options", "figure"), [({}, "map"), ({"kind": "panoptic"}, "pq"), ({"kind": "semantic"}, "miou")]
)
def test_what_masks_are_judged_by_is_known_before_they_are_opened(options, figure):
    """As a search asks."""
    config = Config.of({"task": "segment", "recipe": "masks", "options": options})
    assert Aim.of(config, Masks) == Aim(figure, "max")


def test_norms_and_biases_do_not_decay_and_deeper_blocks_are_slower():
    network = torch.nn.ModuleDict(
        {
            "embed": torch.nn.Linear(4, 4),
            "block0": torch.nn.Sequential(torch.nn.LayerNorm(4), torch.nn.Linear(4, 4)),
            "block1": torch.nn.Sequential(torch.nn.LayerNorm(4), torch.nn.Linear(4, 4)),
            "head": torch.nn.Linear(4, 2),
        }
    )
    places = {"embed": -1, "block0": 0, "block1": 1}
    found = groups(
        network.named_parameters(),
        lambda name: places.get(name.split(".")[0]),
        2,
        1.0,
        0.05,
        TransferSection(mode="full", encoder_rate=0.1, layer_decay=0.5),
    )
    by_parameter = {id(one): group for group in found for one in group["params"]}
    for name, one in network.named_parameters():
        group = by_parameter[id(one)]
        rate = {"embed": 0.1 * 0.25, "block0": 0.1 * 0.5, "block1": 0.1, "head": 1.0}[name.split(".")[0]]
        assert group["lr"] == pytest.approx(rate)
        assert group["weight_decay"] == (0.05 if one.ndim > 1 else 0.0)
    assert sum(len(group["params"]) for group in found) == len(list(network.parameters()))


@given(st.integers(1, 60), st.integers(1, 16), st.integers(1, 4), st.integers(0, 3), st.booleans())
def test_processes_share_a_step_and_nothing_is_judged_twice(count, batch, world, epoch, drop):
    def draws(number: int) -> np.ndarray:
        return np.random.default_rng(number).permutation(count)

    def shown(rank: int, world: int) -> list[list[int]]:
        made = Batches(draws, batch, 0, rank, world, drop)
        made.sampler.set_epoch(epoch)
        return [[draw.index for draw in step] for step in made]

    alone = shown(0, 1)
    parts = [shown(rank, world) for rank in range(world)]
    if drop:
        for number, step in enumerate(alone):
            together = [index for part in parts for index in part[number]]
            assert set(together) == set(step)
            assert len(together) == math.ceil(len(step) / world) * world
        assert len({tuple(map(len, part)) for part in parts}) == 1
    else:
        together = sorted(index for part in parts for step in part for index in step)
        assert together == list(range(count))


def test_the_length_is_the_number_of_steps():
    for count, drop, expected in ((10, True, 3), (10, False, 4), (2, True, 1), (9, False, 3)):
        made = Batches(lambda epoch, count=count: np.arange(count), 3, 0, 0, 1, drop)
        assert len(made) == expected == len(list(made))
