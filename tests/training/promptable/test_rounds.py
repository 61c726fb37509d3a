"""Rounds of asking: what is asked when, and that a decoder learns from them to answer clicks and boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from manylens.models.adapted.heads.promptable import Promptable, Prompts
from manylens.training.promptable import boxes
from manylens.training.promptable.losses import Weights, dice, focal
from manylens.training.promptable.rounds import Objects, Schedule, examined, play

SIDE, PATCH = 32, 4


class Recording:
    """A head that remembers what it was asked, and answers what it is told to."""

    def __init__(self, answers: Tensor, qualities: Tensor) -> None:
        self.answers, self.qualities = answers, qualities
        self.asked: list[Prompts] = []

    def embed(self, features: Any) -> Any:
        return None

    def low_res(self, embedding: Any) -> tuple[int, int]:
        return tuple(self.answers.shape[-2:])  # type: ignore[return-value]

    def decode(self, embedding: Any, size: tuple[int, int], prompts: Prompts) -> dict[str, Tensor]:
        self.asked.append(prompts)
        return {"masks": self.answers, "iou": self.qualities}


def objects(count: int = 6, side: int = 16) -> Objects:
    masks = torch.zeros(count, side, side, dtype=torch.bool)
    for number in range(count):
        masks[number, number : number + 8, 2 : 4 + number] = True
    return Objects(masks, torch.arange(count) % 2, (side, side))


def recording(count: int = 6) -> Recording:
    generator = torch.Generator().manual_seed(0)
    answers = torch.randn(count, 4, 16, 16, generator=generator).requires_grad_()
    return Recording(answers, torch.rand(count, 4, generator=generator))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------ what is asked


def test_the_rounds_are_those_of_sam():
    plans = {tuple(Schedule().rounds(seeded(seed))) for seed in range(200)}
    for plan in plans:
        assert len(plan) == 10
        assert sum(plan) == 8
        assert not plan[-1]
    assert {plan.index(False) for plan in plans} == set(range(9))  # the other one anywhere before


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule(clicks=0, refinements=0), []),
        (Schedule(clicks=3, refinements=0), [True] * 3),
        (Schedule(clicks=2, refinements=1), [True, True, False]),
        (Schedule(clicks=0, refinements=2), [False, False]),
    ],
)
def test_plans_of_few_rounds(schedule, expected):
    assert schedule.rounds(seeded()) == expected


def test_first_prompts_are_clicks_and_boxes_in_sams_form():
    head = recording()
    play(head, None, objects(), Schedule(clicks=2, refinements=1, coarse=0, forget=0), generator=seeded(3))
    first, second, third, fourth = head.asked
    boxed = first.labels[:, 0] == 2
    assert 0 < boxed.sum() < 6
    assert first.labels[boxed].tolist() == [[2, 3]] * int(boxed.sum())
    assert first.labels[~boxed].tolist() == [[1, -1]] * int((~boxed).sum())
    assert first.masks is None
    assert torch.equal(first.picture, torch.arange(6) % 2)
    assert [one.labels.shape[1] for one in head.asked] == [2, 3, 4, 4]
    for one in (second, third, fourth):
        assert torch.equal(one.labels[:, :2], first.labels)
        assert set(one.labels[:, 2:].unique().tolist()) <= {0, 1}
    truth, clicks = objects().masks, first.points[:, 0].long()
    on = truth[torch.arange(6), clicks[:, 1].clamp(0, 15), clicks[:, 0].clamp(0, 15)]
    assert on[~boxed].all()
    exact = boxes.around(truth)
    assert (first.points[boxed].flatten(1) - exact[boxed]).abs().max() <= 16 * 20 / 1024 + 1e-4


def test_the_answer_that_was_thought_best_is_gone_on_from():
    head = recording()
    play(head, None, objects(), Schedule(clicks=1, refinements=1, coarse=0, forget=0), generator=seeded(3))
    first, second, third = head.asked
    boxed = first.labels[:, 0] == 2
    best = 1 + head.qualities[:, 1:].argmax(dim=1)
    expected = torch.where(boxed, 0, best)
    torch.testing.assert_close(second.masks[:, 0], head.answers.detach()[torch.arange(6), expected])
    torch.testing.assert_close(third.masks[:, 0], head.answers.detach()[:, 0])  # what is clear has one answer
    assert not second.masks.requires_grad
    clicks = second.points[:, 2].long()
    truth = objects().masks[torch.arange(6), clicks[:, 1], clicks[:, 0]]
    assert torch.equal(second.labels[:, 2].bool(), truth)
    wrong = (second.masks[:, 0] > 0) != objects().masks
    assert wrong[torch.arange(6), clicks[:, 1], clicks[:, 0]].all()


def test_the_loss_is_the_mean_over_rounds_and_objects():
    head, truth = recording(), objects()
    schedule = Schedule(clicks=1, refinements=0, boxes=0, coarse=0, forget=0)
    found = play(head, None, truth, schedule, Weights(iou=0, others=0), seeded())
    each = 20 * focal(head.answers, truth.masks[:, None]) + dice(head.answers, truth.masks[:, None])
    expected = torch.stack([each[:, 1:].amin(dim=1), each[:, 0]]).mean()
    torch.testing.assert_close(found.loss, expected)
    assert found.iou.shape == (2, 6)
    assert set(found.parts) == {"focal", "dice", "quality"}
    found.loss.backward()
    moved = head.answers.grad.abs().amax(dim=(2, 3)) > 0
    assert moved[:, 0].all()
    assert (moved[:, 1:].sum(dim=1) == 1).all()


def test_a_coarse_mask_comes_without_points_and_clicks_follow_it():
    head = recording()
    play(head, None, objects(), Schedule(clicks=1, refinements=0, coarse=1, forget=0), generator=seeded())
    first, second = head.asked
    assert first.labels.shape == (6, 0)
    assert first.points.shape == (6, 0, 2)
    assert first.masks.shape == (6, 1, 16, 16)
    assert second.labels[:, 0].tolist() == [-1] * 6


def test_a_forgotten_answer_is_not_brought():
    head = recording()
    play(head, None, objects(), Schedule(clicks=3, refinements=1, coarse=0, forget=1), generator=seeded())
    assert [one.masks is None for one in head.asked] == [True, True, True, True, False]


def test_prompts_are_in_pixels_of_the_picture_whatever_the_masks_resolution():
    head, truth = recording(), objects()
    coarser = Objects(truth.masks, truth.picture, (32, 48))
    for one in (truth, coarser):
        play(head, None, one, Schedule(clicks=1, refinements=0, coarse=0, forget=0), generator=seeded(3))
    one, other = head.asked[1], head.asked[3]
    torch.testing.assert_close(one.points * torch.tensor([3.0, 2.0]), other.points)


def test_the_same_seed_asks_the_same():
    heads = [recording() for _ in range(3)]
    for head, seed in zip(heads, (1, 1, 2), strict=True):
        torch.manual_seed(seed)
        play(head, None, objects(), Schedule(clicks=2, refinements=1))
    points = [[one.points for one in head.asked] for head in heads]
    assert all(torch.equal(a, b) for a, b in zip(points[0], points[1], strict=True))
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(points[0], points[2], strict=True))


# ------------------------------------------------------------------ learning


def shapes(pictures: int) -> tuple[Tensor, Objects]:
    """Discs, one of them with another in its middle: a click there may mean either. Features are raw patches."""
    random = np.random.default_rng(0)
    down, across = np.mgrid[:SIDE, :SIDE]
    rgb = random.normal(0.2, 0.02, (pictures, SIDE, SIDE, 3))
    masks, numbers = [], []
    for number in range(pictures):
        for place in ((0.28, 0.28), (0.72, 0.31), (0.47, 0.72)):
            x, y = (share * SIDE + random.integers(-2, 3) for share in place)
            away, radius = (across - x) ** 2 + (down - y) ** 2, SIDE * random.uniform(0.14, 0.2)
            for share in (1.0, 0.5) if len(masks) == 0 else (1.0,):
                mask = away < (radius * share) ** 2
                rgb[number][mask] = random.random(3) * 0.7 + 0.3
                masks.append(mask)
                numbers.append(number)
    pixels = torch.from_numpy(rgb).permute(0, 3, 1, 2).float()
    dense = torch.nn.functional.pixel_unshuffle(pixels, PATCH).permute(0, 2, 3, 1)
    return dense, Objects(torch.from_numpy(np.stack(masks)), torch.tensor(numbers), (SIDE, SIDE))


def test_a_head_learns_a_few_pictures_and_more_clicks_tell_more():
    torch.set_num_threads(1)  # a second one only waits on what is so small
    dense, truth = shapes(3)
    torch.manual_seed(0)
    head = Promptable({"dense": 3 * PATCH**2}, width=32, heads=4, hidden=64, mixing=1)
    steps, rate = 150, 4e-3
    optimiser = torch.optim.AdamW(head.parameters(), lr=rate)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * min(1, (step + 1) / 10, 3 * (steps - step) / steps)
        found = play(head, head.embed({"dense": dense}), truth, Schedule(clicks=2, refinements=0, coarse=0))
        optimiser.zero_grad()
        found.loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimiser.step()
    head.eval()
    with torch.no_grad():
        figures = {k: float(v.mean()) for k, v in examined(head, head.embed({"dense": dense}), truth, 3).items()}
    assert figures["click"] > 0.8
    assert figures["click_3"] > figures["click"]
    assert figures["click_3"] > 0.9
    assert figures["box"] > 0.9
    assert figures["best"] > figures["click"]
