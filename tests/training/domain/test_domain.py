"""Domain adaptation, held to numpy: statistics, covariances, the sign of a gradient, thresholds, entropy."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from manylens.training.domain import (
    Coral,
    Dann,
    adabn,
    coral,
    dann_strength,
    entropy,
    norm_parameters,
    pseudo_labels,
    reverse,
    self_training_loss,
    share_at,
    tent,
    thresholds,
)
from manylens.training.domain.pseudo import IGNORED
from manylens.training.errors import DivergedError, TrainError


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    made = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(5, 3),
    )
    with torch.no_grad():
        for norm in (made[1], made[4]):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_()
    return made.eval()


def batches(sizes=(4, 3, 1), seed: int = 1, shift: float = 0.7) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(size, 3, 9, 9, generator=generator) * 0.6 + shift for size in sizes]


def moments(values: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    rows = np.moveaxis(values.detach().double().numpy(), 1, 0).reshape(values.shape[1], -1)
    return rows.mean(axis=1), rows.var(axis=1, ddof=1)


def test_adabn_of_the_first_layer_is_numpys_whatever_the_batches():
    made, given = network(), batches()
    before = copy.deepcopy(made.state_dict())
    assert adabn(made, given) == 2
    mean, variance = moments(made[0](torch.cat(given)))
    assert made[1].running_mean.numpy() == pytest.approx(mean, abs=1e-5)
    assert made[1].running_var.numpy() == pytest.approx(variance, rel=1e-4)
    for name, value in made.state_dict().items():
        assert (value == before[name]).all() != ("running" in name), name
    assert not any(one.training for one in made.modules())


def test_adabn_in_one_batch_is_what_torch_takes_from_it():
    made, given = network(), torch.cat(batches())
    adabn(made, [given])
    torchs = network()
    torchs.train()
    for norm in (torchs[1], torchs[4]):
        norm.momentum = 1.0
    torchs(given)
    for place in (1, 4):
        assert made[place].running_mean.numpy() == pytest.approx(torchs[place].running_mean.numpy(), abs=1e-5)
        assert made[place].running_var.numpy() == pytest.approx(torchs[place].running_var.numpy(), rel=1e-4)


def test_further_passes_make_every_layer_exact():
    """As the paper means it: what reaches a layer is normalised by the statistics of the whole target before it."""
    given = batches((2, 2, 2))
    wanted = network()
    x = torch.cat(given)
    for place in (1, 4):
        mean, variance = moments(wanted[:place](x))
        wanted[place].running_mean.copy_(torch.from_numpy(mean))
        wanted[place].running_var.copy_(torch.from_numpy(variance))
    apart = []
    for passes in (1, 2, 3):
        made = network()
        adabn(made, given, passes=passes)
        apart.append(float((made[4].running_mean - wanted[4].running_mean).abs().max()))
    assert apart[0] > 1e-3
    assert apart[1] < 1e-4
    assert apart[2] < 1e-4


def test_adabn_undoes_a_shift_of_the_target():
    source, made = torch.cat(batches(seed=3, shift=0)), network()
    adabn(made, [source])
    answer = made(source)
    shifted = source * 1.7 + 0.4
    assert (made(shifted) - answer).abs().max() > 0.05
    adabn(made, [shifted])
    assert (made(shifted) - answer).abs().max() < 1e-3  # a convolution without padding passes a shift on


def test_adabn_runs_by_what_it_is_given_and_keeps_modes():
    made, seen = network(), []
    made[1].train()
    adabn(
        made,
        [{"pixels": one} for one in batches((2, 2))],
        forward=lambda one: seen.append(len(one)) or made(one["pixels"]),
    )
    assert len(seen) == 2
    assert [one.training for one in made] == [False, True, *[False] * 8]


def test_adabn_without_batch_norms_or_pictures():
    with pytest.raises(TrainError, match="has no batch norms"):
        adabn(nn.Sequential(nn.Conv2d(3, 2, 1), nn.GroupNorm(1, 2)), batches())
    for few in ([], batches((1,))):
        made = network()
        before = copy.deepcopy(made.state_dict())
        with pytest.raises(TrainError, match="too few"):
            adabn(made, few)
        assert all((value == before[name]).all() for name, value in made.state_dict().items())


rows = st.integers(0, 10_000).map(lambda seed: np.random.default_rng(seed))


@given(rows, st.integers(2, 9), st.integers(2, 9), st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_coral_is_numpys(random, n, m, width):
    source, target = random.normal(size=(n, width)), random.normal(2, 3, size=(m, width))
    apart = np.cov(source, rowvar=False).reshape(width, width) - np.cov(target, rowvar=False).reshape(width, width)
    found = coral(torch.from_numpy(source).float(), torch.from_numpy(target).float())
    assert float(found) == pytest.approx((apart**2).sum() / (4 * width**2), rel=1e-3, abs=1e-6)


def test_coral_is_zero_only_where_covariances_are_equal():
    source = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    assert float(coral(source, source + 3)) < 1e-10  # a shift is none
    assert float(coral(source, -source)) < 1e-10
    assert float(coral(source, source[torch.arange(39, -1, -1)])) < 1e-10
    assert float(coral(source, 1.5 * source)) > 1e-3
    assert float(Coral()(source, 1.5 * source, 0.3)) == float(coral(source, 1.5 * source))
    with pytest.raises(TrainError, match="a batch of 1 has no covariance"):
        coral(source[:1], source)


def test_coral_draws_covariances_together():
    source = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    layer = nn.Linear(4, 4, bias=False)
    target = 3 * source[:, [1, 0, 3, 2]] + 1
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.03)
    first = float(coral(source, layer(target)).detach())
    for _ in range(300):
        loss = coral(source, layer(target))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(coral(source, layer(target)).detach()) < 1e-3 * first


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_reversal_turns_the_gradient_only(strength):
    values = torch.randn(3, 2, requires_grad=True)
    weights = torch.randn(3, 2)
    made = reverse(values, strength)
    assert (made == values).all()
    (made * weights).sum().backward()
    assert values.grad.numpy() == pytest.approx(-strength * weights.numpy())


def test_the_strength_rises_as_in_the_paper():
    for done in np.linspace(0, 1, 11):
        assert dann_strength(done) == pytest.approx(2 / (1 + np.exp(-10 * done)) - 1)
    assert dann_strength(0) == 0


def test_dann_is_the_cross_entropy_of_telling_apart():
    head, random = Dann(4, hidden=8), np.random.default_rng(0)
    source, target = (torch.from_numpy(random.normal(size=(n, 4))).float() for n in (5, 9))
    probability = [1 / (1 + np.exp(-head.tell(one).detach().numpy().astype(float))) for one in (source, target)]
    wanted = (-np.log(1 - probability[0]).mean() - np.log(probability[1]).mean()) / 2
    assert float(head(source, target, 0.7)) == pytest.approx(wanted, rel=1e-5)
    assert float(head(source, target, 0.1)) == float(head(source, target, 0.9))  # only gradients differ


def test_one_step_makes_the_head_better_and_the_features_worse():
    torch.manual_seed(0)
    encoder, head = nn.Linear(2, 4), Dann(4, hidden=16)
    source, target = torch.randn(200, 2), torch.randn(200, 2) + 1.5
    for _ in range(100):  # a head that can tell them
        loss = head(encoder(source).detach(), encoder(target).detach())
        optimiser = torch.optim.SGD(head.parameters(), lr=0.3)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    before = float(head(encoder(source), encoder(target)))
    assert before < 0.5
    for parts, better in ((head, True), (encoder, False)):
        own = copy.deepcopy(nn.ModuleList([encoder, head]))
        loss = own[1](own[0](source), own[0](target), 1.0)
        loss.backward()
        with torch.no_grad():
            for one in (own[1] if parts is head else own[0]).parameters():
                one -= 0.05 * one.grad
        after = float(own[1](own[0](source), own[0](target)))
        assert (after < before) == better


def probabilities(seed: int, n: int = 40, classes: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet([0.6] * classes, n)


@given(st.integers(0, 1000), st.sampled_from([0.1, 0.25, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 0.8]))
@settings(max_examples=60, deadline=None)
def test_thresholds_by_a_loop(seed, share, least):
    given = probabilities(seed)
    found = thresholds(given, share, least=least)
    for label in range(3):
        sure = sorted((row.max() for row in given if row.argmax() == label), reverse=True)
        wanted = 1.0 if not sure else max(sure[max(int(share * len(sure)), 1) - 1], least)
        assert found[label] == pytest.approx(wanted)


@given(st.integers(0, 1000), st.sampled_from([0.1, 0.5, 1.0]), st.sampled_from([0.0, 0.6]))
@settings(max_examples=60, deadline=None)
def test_pseudo_labels_by_a_loop(seed, share, confidence):
    given = probabilities(seed)
    found = pseudo_labels(given, share, confidence=confidence)
    limits = thresholds(given, share, least=confidence)
    for row, label in zip(given, found.labels, strict=True):
        best = max(range(3), key=lambda one: row[one] / limits[one])
        assert label == (best if row[best] >= limits[best] - 1e-9 else IGNORED)
    assert found.taken.tolist() == [(found.labels == label).sum() for label in range(3)]
    again = pseudo_labels(given[:7], limits=limits)
    assert (again.labels == found.labels[:7]).all()


def test_a_hard_class_gets_its_share_which_one_threshold_would_not_give_it():
    easy = np.tile([0.97, 0.03], (30, 1))
    hard = np.stack([np.array([1 - p, p]) for p in np.linspace(0.55, 0.7, 10)])
    given = np.concatenate([easy, hard])
    assert pseudo_labels(given, confidence=0.9).taken.tolist() == [30, 0]
    taken = pseudo_labels(given, share=0.5)
    assert taken.taken[1] == 5
    assert (taken.labels[35:] == 1).all()  # the surest half of them
    assert share_at(0) == 0.2
    assert [share_at(round) for round in (1, 6, 60)] == pytest.approx([0.25, 0.5, 0.5])


def test_pixels_have_pseudo_labels_too():
    given = probabilities(4, 60).reshape(2, 5, 6, 3).transpose(0, 3, 1, 2)
    found = pseudo_labels(given, 0.5)
    assert found.labels.shape == (2, 5, 6)
    flat = pseudo_labels(given.transpose(0, 2, 3, 1).reshape(-1, 3), 0.5)
    assert (found.labels.ravel() == flat.labels).all()


def test_the_loss_passes_over_what_is_not_sure():
    logits = torch.randn(4, 3, requires_grad=True)
    labels = torch.tensor([1, IGNORED, 0, IGNORED])
    wanted = nn.functional.cross_entropy(logits[[0, 2]], labels[[0, 2]])
    loss = self_training_loss(logits, labels)
    assert float(loss) == pytest.approx(float(wanted))
    loss.backward()
    assert (logits.grad[[1, 3]] == 0).all()
    logits.grad = None
    nothing = self_training_loss(logits, torch.full((4,), IGNORED))
    nothing.backward()
    assert float(nothing) == 0
    assert (logits.grad == 0).all()


def test_entropy_is_that_of_scipy():
    from scipy.stats import entropy as scipys

    logits = torch.randn(5, 4, 2, 3)
    wanted = scipys(logits.softmax(dim=1).numpy(), axis=1)
    assert entropy(logits).numpy() == pytest.approx(wanted, abs=1e-5)
    assert float(entropy(torch.zeros(1, 7))) == pytest.approx(math.log(7))


class Vit(nn.Module):
    """Norms of several kinds, one of a family's own."""

    class OwnLayerNorm2d(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self, x):
            return x / x.std(dim=1, keepdim=True) * self.weight[:, None, None]

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=3)
        self.norm0 = self.OwnLayerNorm2d()
        self.norm1 = nn.LayerNorm(4)
        self.norm2 = nn.GroupNorm(2, 4)
        self.head = nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.ones(1))  # no norm's

    def forward(self, x):
        x = self.norm0(self.stem(x))
        x = self.norm2(x)
        return self.head(self.norm1(x.mean(dim=(2, 3)))) * self.scale


def test_norms_are_told_from_all_else():
    names = {"norm0.weight", "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"}
    assert set(norm_parameters(Vit())) == names
    assert set(norm_parameters(network())) == {"1.weight", "1.bias", "4.weight", "4.bias"}


@pytest.mark.parametrize("make", [network, Vit])
def test_tent_lowers_the_entropy_and_touches_only_norms(make):
    torch.manual_seed(3)
    made = make()
    made.train()
    made.head.requires_grad_(False) if make is Vit else made[0].requires_grad_(False)
    asked = {name: one.requires_grad for name, one in made.named_parameters()}
    before = copy.deepcopy(made.state_dict())
    given = batches((6, 6))
    made.eval()
    with torch.no_grad():
        first = float(entropy(made(torch.cat(given))).mean())
    made.train()
    found = tent(made, given, rate=0.05, passes=20)
    assert found.steps == 40
    assert found.before == pytest.approx(first, rel=1e-4)
    assert found.after < 0.8 * found.before
    allowed = {*norm_parameters(made)} | {name for name in before if "running" in name or "tracked" in name}
    changed = {name for name, value in made.state_dict().items() if (value != before[name]).any()}
    assert changed <= allowed
    assert {*found.parameters} <= changed
    assert {name: one.requires_grad for name, one in made.named_parameters()} == asked
    assert all(one.training for one in made.modules())
    assert all(one.grad is None for one in made.parameters())
    if make is network:
        mean, variance = moments(made[0](torch.cat(given)))
        assert made[1].running_mean.numpy() == pytest.approx(mean, abs=1e-5)
        assert made[1].running_var.numpy() == pytest.approx(variance, rel=1e-4)
    made.eval()
    with torch.no_grad():  # what it says is so for whoever runs it next
        assert float(entropy(made(torch.cat(given))).mean()) == pytest.approx(found.after, rel=1e-4)


def test_tent_that_fails_leaves_the_network_as_it_was():
    made = network()
    before = copy.deepcopy(made.state_dict())
    good = batches((4, 4))
    with pytest.raises(DivergedError):
        tent(made, good, predict=lambda batch: made(batch) * (math.nan if made[1].training else 1), rate=0.1)
    calls = []

    def breaking(batch):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("stopped")
        return made(batch)

    with pytest.raises(RuntimeError):
        tent(made, good, predict=breaking, rate=0.1)
    assert all((value == before[name]).all() for name, value in made.state_dict().items())
    assert not any(one.training for one in made.modules())
    assert all(one.requires_grad for one in made.parameters())


def test_tent_says_what_it_cannot_do():
    with pytest.raises(TrainError, match="has no norm"):
        tent(nn.Sequential(nn.Flatten(), nn.Linear(243, 3)), batches())
    with pytest.raises(TrainError, match="has no pictures"):
        tent(network(), [])
