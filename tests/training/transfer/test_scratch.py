"""A network begun anew."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from manylens.errors import UnsupportedError
from manylens.training.config import TransferSection
from manylens.training.loop import optimisers
from manylens.training.transfer.freezing import Places, freeze
from manylens.training.transfer.scratch import renew


def test_every_weight_is_new_and_learns_and_the_seed_says_which(tiny_vit, session):
    states = []
    for seed in (3, 3, 4):
        with session.module(str(tiny_vit)) as trainable:
            before = {name: one.clone() for name, one in trainable.module.state_dict().items()}
            torch.manual_seed(seed)
            assert freeze(trainable, TransferSection(mode="scratch")) == {}
            states.append({name: one.clone() for name, one in trainable.module.state_dict().items()})
            assert all(one.requires_grad for one in trainable.module.parameters())
    drawn = [name for name in before if name.endswith(("proj.weight", "fc1.weight", "cls_token"))]
    assert len(drawn) > 8
    for name in drawn:
        assert not torch.equal(states[0][name], before[name])
        assert torch.equal(states[0][name], states[1][name])
        assert not torch.equal(states[0][name], states[2][name])


def test_the_encoder_learns_at_the_heads_rate(tiny_vit, session):
    with session.module(str(tiny_vit)) as trainable:
        places = Places(trainable)
        rates = {
            mode: {
                group["lr"]
                for group in optimisers.groups(
                    list(trainable.module.named_parameters()),
                    places.of,
                    4,
                    1.0,
                    0.0,
                    TransferSection(mode=mode, encoder_rate=0.5),
                )
            }
            for mode in ("full", "scratch")
        }
    assert rates == {"full": {0.5}, "scratch": {1.0}}


def test_what_transformers_did_not_build_is_refused_in_one_line():
    with pytest.raises(UnsupportedError, match=r"scratch.*Linear"):
        renew(nn.Linear(2, 2))
