"""What a decoder's own numbers are worth, found on objects that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from manylens.training.promptable.passing import passing
from manylens.training.promptable.rounds import Objects

SIDE = 16


class Told:
    """Answers each object with masks that were told before; the third of four says the highest quality."""

    def __init__(self, maps: torch.Tensor, sure: torch.Tensor) -> None:
        self.maps, self.sure, self.asked = maps, sure, []

    def decode(self, embedding, size, prompts):
        self.asked.append(prompts)
        count = len(prompts.labels)
        masks = torch.full((count, 4, SIDE, SIDE), 9.0)
        masks[:, 2] = self.maps[:count]
        iou = torch.full((count, 4), 0.01)
        iou[:, 0], iou[:, 2] = 1.0, self.sure[:count]
        return {"masks": masks, "iou": iou}


def objects(count):
    masks = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    masks[:, 4:13, 4:13] = True
    return Objects(masks, torch.zeros(count, dtype=torch.long), (SIDE, SIDE))


def test_three_of_four_answers_to_clicks_on_known_objects_pass():
    maps = torch.full((8, SIDE, SIDE), -4.0)
    maps[:, 4:12, 4:12] = 2.0  # 64 pixels that are sure
    for number in range(8):
        maps[number, 0, :number] = -0.1  # and some that are not sure to be outside
    sure = torch.linspace(0.2, 0.9, 8)
    head = Told(maps, sure)
    found = passing(head, [(None, objects(8))])
    assert found["stability_score_offset"] == pytest.approx(0.2)
    assert found["pred_iou_thresh"] == pytest.approx(float(np.quantile(sure.numpy(), 0.25)), rel=1e-5)
    stable = [64 / (64 + number) for number in range(8)]
    assert found["stability_score_thresh"] == pytest.approx(np.quantile(stable, 0.25), rel=1e-5)
    (prompts,) = head.asked
    assert prompts.points[:, 0].tolist() == [[8.0, 8.0]] * 8
    assert prompts.labels.tolist() == [[1, -1]] * 8


def test_answers_without_a_mask_tell_nothing():
    maps = torch.full((3, SIDE, SIDE), -4.0)
    assert passing(Told(maps, torch.ones(3)), [(None, objects(3))]) == {}
    assert passing(Told(maps, torch.ones(3)), [(None, objects(0))]) == {}
    maps[1, 2:5, 2:5] = 1.0
    found = passing(Told(maps, torch.tensor([0.9, 0.5, 0.9])), [(None, objects(3))])
    assert found["pred_iou_thresh"] == pytest.approx(0.5)
