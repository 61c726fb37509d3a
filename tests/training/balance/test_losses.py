"""Losses, each against its formula written out in loops, and against torch and the laws that they promise."""

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from manylens.training.balance import names
from manylens.training.balance.losses import adjusted, build
from manylens.training.errors import TrainError

COUNTS = [90, 9, 0, 1]
N, K = 100, 3  # examples, and classes that have any
FILLED = [90, 9, 1, 1]
INVERSE = [N / (K * n) for n in FILLED]


def effective(beta):
    raw = [(1 - beta) / (1 - beta**n) for n in FILLED]
    seen = [raw[0], raw[1], raw[3]]
    return [one * K / sum(seen) for one in raw]


def log_softmax(z):
    top = max(z)
    total = math.log(sum(math.exp(one - top) for one in z)) + top
    return [one - total for one in z]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def plain(z, t, w=None):
    return -sum((1 if w is None else w[c]) * t[c] * log for c, log in enumerate(log_softmax(z)))


def focal(z, t, gamma, w=None):
    logs = log_softmax(z)
    return -sum((w[c] if w else 1) * t[c] * (1 - math.exp(logs[c])) ** gamma * logs[c] for c in range(len(z)))


def sigmoid_focal(z, t, gamma, alpha=None):
    """The published code of RetinaNet, for one class after the other."""
    total = 0.0
    for x, y in zip(z, t, strict=True):
        p = sigmoid(x)
        ce = -(y * math.log(p) + (1 - y) * math.log(1 - p))
        pt = p * y + (1 - p) * (1 - y)
        total += ce * (1 - pt) ** gamma * (1 if alpha is None else alpha * y + (1 - alpha) * (1 - y))
    return total


def ldam(z, t, margin, scale, w=None):
    m = [margin / n**0.25 / max(1 / n**0.25 for n in FILLED) for n in FILLED]
    return plain([scale * (x - t[c] * m[c]) for c, x in enumerate(z)], t, w)


def shifted(z, tau):
    return [x + tau * math.log(n / N) for x, n in zip(z, FILLED, strict=True)]


def mean_weight(t, w):
    return sum(a * b for a, b in zip(t, w, strict=True)) / sum(t)


CASES = {
    "cross_entropy": ("cross_entropy", {}, plain),
    "weighted": ("weighted", {}, lambda z, t: plain(z, t, INVERSE)),
    "focal": ("focal", {}, lambda z, t: focal(z, t, 2)),
    "focal, gamma 0.5": ("focal", {"gamma": 0.5}, lambda z, t: focal(z, t, 0.5)),
    "focal, inverse": ("focal", {"weights": "inverse"}, lambda z, t: focal(z, t, 2, INVERSE)),
    "focal, effective": ("focal", {"weights": "effective"}, lambda z, t: focal(z, t, 2, effective(0.999))),
    "focal, sigmoid": ("focal", {"form": "sigmoid"}, lambda z, t: sigmoid_focal(z, t, 2)),
    "focal, sigmoid, gamma 0.5": (
        "focal",
        {"form": "sigmoid", "gamma": 0.5},
        lambda z, t: sigmoid_focal(z, t, 0.5),
    ),
    "focal, alpha": (
        "focal",
        {"form": "sigmoid", "alpha": 0.25, "gamma": 1.5},
        lambda z, t: sigmoid_focal(z, t, 1.5, 0.25),
    ),
    "class_balanced": ("class_balanced", {}, lambda z, t: plain(z, t, effective(0.999))),
    "class_balanced, focal": (
        "class_balanced",
        {"beta": 0.9, "gamma": 1.0},
        lambda z, t: focal(z, t, 1, effective(0.9)),
    ),
    "class_balanced, sigmoid": (
        "class_balanced",
        {"form": "sigmoid", "beta": 0.99},
        lambda z, t: mean_weight(t, effective(0.99)) * sigmoid_focal(z, t, 0),
    ),
    "ldam": ("ldam", {}, lambda z, t: ldam(z, t, 0.5, 1)),
    "ldam, scaled": ("ldam", {"margin": 0.3, "scale": 30.0}, lambda z, t: ldam(z, t, 0.3, 30)),
    "ldam, weighted": (
        "ldam",
        {"deferred": 0.0, "beta": 0.99},
        lambda z, t: ldam(z, t, 0.5, 1, effective(0.99)),
    ),
    "logit_adjusted": ("logit_adjusted", {}, lambda z, t: plain(shifted(z, 1), t)),
    "logit_adjusted, tau": ("logit_adjusted", {"tau": 0.5}, lambda z, t: plain(shifted(z, 0.5), t)),
    "post_hoc": ("post_hoc", {"tau": 2.0}, plain),
}
every = pytest.mark.parametrize("case", CASES)


def logits_of(*shape, seed=0, spread=2.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * spread


def soft_of(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).softmax(1)


def one_hot(targets):
    return torch.eye(4, dtype=torch.float64)[targets]


@every
def test_numbers_of_classes_against_the_formula(case):
    kind, options, formula = CASES[case]
    logits, targets = logits_of(8, 4), torch.arange(8) % 4
    want = [formula(z, t) for z, t in zip(logits.tolist(), one_hot(targets).tolist(), strict=True)]
    loss = build(kind, COUNTS, **options)
    torch.testing.assert_close(
        loss.each(logits, targets), torch.tensor(want, dtype=torch.float64), rtol=1e-6, atol=1e-7
    )
    assert loss(logits, targets).item() == pytest.approx(sum(want) / 8, rel=1e-6)


@every
def test_soft_targets_against_the_formula(case):
    kind, options, formula = CASES[case]
    logits, targets = logits_of(6, 4), soft_of(6, 4)
    want = [formula(z, t) for z, t in zip(logits.tolist(), targets.tolist(), strict=True)]
    loss = build(kind, COUNTS, **options)
    torch.testing.assert_close(
        loss.each(logits, targets), torch.tensor(want, dtype=torch.float64), rtol=1e-6, atol=1e-7
    )
    hard = torch.arange(6) % 4
    torch.testing.assert_close(loss(logits, one_hot(hard)), loss(logits, hard), rtol=1e-6, atol=1e-9)


@every
@pytest.mark.parametrize("soft", [False, True])
def test_smoothed_labels_are_soft_labels(case, soft):
    kind, options, _ = CASES[case]
    logits = logits_of(6, 4)
    targets = soft_of(6, 4) if soft else torch.arange(6) % 4
    hot = targets if soft else one_hot(targets)
    sigmoid_form = options.get("form") == "sigmoid"
    smoothed = hot * 0.9 + (0.05 if sigmoid_form else 0.1 / 4)
    found = build(kind, COUNTS, smoothing=0.1, **options).each(logits, targets)
    plain_loss = build(kind, COUNTS, **options)
    if kind == "ldam":  # its margin is that of the target before it is smoothed
        margins = plain_loss.margins.double()
        z = (logits - hot * margins) * plain_loss.scale
        want = F.cross_entropy(z, hot, weight=plain_loss._weights_at(0, z), label_smoothing=0.1, reduction="none")
    elif sigmoid_form and kind == "class_balanced":
        weights = (hot * plain_loss.weights).sum(1) / hot.sum(1)
        want = weights * F.binary_cross_entropy_with_logits(logits, smoothed, reduction="none").sum(1)
    else:
        want = plain_loss.each(logits, smoothed)
    torch.testing.assert_close(found, want, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("case", "soft"),
    [
        (case, soft)
        for case in CASES
        for soft in (False, True)
        if not (soft and CASES[case][1].get("form") == "sigmoid")
    ],
)
@pytest.mark.parametrize(("ignored", "smoothing"), [(-100, 0.0), (255, 0.0), (255, 0.1)])
def test_pixels_are_pictures_and_ignored_ones_are_none(case, ignored, smoothing, soft):
    kind, options, _ = CASES[case]
    loss = build(kind, COUNTS, ignore_index=ignored, smoothing=smoothing, **options)
    logits = logits_of(2, 4, 3, 5)
    targets = torch.arange(30).reshape(2, 3, 5) % 4
    gone = torch.zeros(2, 3, 5, dtype=torch.bool)
    gone[0, 1, 2:] = gone[1, 0, 0] = True
    flat = logits.movedim(1, -1)[~gone]
    if soft:
        targets = soft_of(2, 4, 3, 5)
        want = loss(flat, targets.movedim(1, -1)[~gone])
        targets = targets * ~gone.unsqueeze(1)
    else:
        want = loss(flat, targets[~gone])
        targets = torch.where(gone, ignored, targets)
    torch.testing.assert_close(loss(logits, targets), want)
    assert (loss.each(logits, targets)[gone] == 0).all()
    logits.requires_grad_(True)
    loss(logits, targets).backward()
    assert (logits.grad.movedim(1, -1)[gone] == 0).all()
    nothing = torch.zeros_like(targets) if soft else torch.full_like(targets, ignored)
    assert loss(logits, nothing).item() == 0


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [0.0, 40.0, 1e4])
def test_nothing_overflows(case, dtype, size):
    kind, options, _ = CASES[case]
    loss = build(kind, COUNTS, **options)
    logits = (torch.tensor([[1.0, -1.0, 0.0, 0.5]]) * size).to(dtype).repeat(4, 1).requires_grad_(True)
    for targets in (torch.arange(4), torch.full((4, 4), 0.25, dtype=dtype)):
        logits.grad = None
        found = loss(logits, targets)
        found.backward()
        assert found.dtype == torch.float32
        assert torch.isfinite(found)
        assert torch.isfinite(logits.grad).all()


@every
def test_slopes_are_those_of_differences(case):
    kind, options, _ = CASES[case]
    loss = build(kind, COUNTS, **options)
    targets = torch.arange(4)
    logits = logits_of(4, 4).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda z: loss(z, targets), logits, eps=1e-6, atol=1e-6)
    assert torch.autograd.gradcheck(lambda z: loss(z, soft_of(4, 4)), logits, eps=1e-6, atol=1e-6)


@every
def test_two_halves_of_a_batch_are_the_whole(case):
    kind, options, _ = CASES[case]
    loss = build(kind, COUNTS, **options)
    logits, targets = logits_of(8, 4), torch.tensor([0, 0, 0, 0, 1, 3, 0, 2])
    halves = [loss(logits[:4], targets[:4]), loss(logits[4:], targets[4:])]
    torch.testing.assert_close(sum(halves) / 2, loss(logits, targets))


@pytest.mark.parametrize(
    ("kind", "options"),
    [("weighted", {"deferred": 0.8}), ("class_balanced", {"deferred": 0.8}), ("ldam", {"deferred": 0.8})],
)
def test_deferred_weights_begin_late(kind, options):
    logits, targets = logits_of(4, 4), torch.arange(4)
    loss = build(kind, COUNTS, **options)
    at_once = build(kind, COUNTS, deferred=0.0)
    never = build("ldam", COUNTS) if kind == "ldam" else build("cross_entropy", COUNTS)
    for progress in (0.0, 0.5, 0.79):
        assert loss(logits, targets, progress=progress) == never(logits, targets, progress=progress)
    for progress in (0.8, 1.0):
        assert loss(logits, targets, progress=progress) == at_once(logits, targets, progress=progress)
    assert at_once(logits, targets) != never(logits, targets)


def test_the_weighted_mean_of_the_losses_is_the_mean_over_classes():
    """With weights of mean 1 over the data, each class of the data counts alike and the loss keeps its size."""
    targets = torch.repeat_interleave(torch.arange(3), torch.tensor([60, 6, 2]))
    logits = logits_of(68, 3)
    each = F.cross_entropy(logits, targets, reduction="none")
    of_classes = torch.stack([each[targets == c].mean() for c in range(3)]).mean()
    torch.testing.assert_close(build("weighted", [60, 6, 2])(logits, targets), of_classes, rtol=1e-6, atol=1e-6)


def test_logit_adjustment_learns_what_post_hoc_adjusts_to():
    """The two are one at the optimum: on data whose classes are drawn at one point, both answer all classes alike."""
    counts = [80, 15, 5]
    targets = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    answers = {}
    for kind in ("cross_entropy", "logit_adjusted", "post_hoc"):
        loss = build(kind, counts)
        bias = torch.zeros(3, requires_grad=True)
        search = torch.optim.LBFGS([bias], lr=1, max_iter=100, line_search_fn="strong_wolfe")

        def step(loss=loss, bias=bias, search=search):
            search.zero_grad()
            value = loss(bias.expand(100, 3), targets)
            value.backward()
            return value

        search.step(step)
        answers[kind] = loss.answer(bias.detach()[None]).softmax(1)[0]
    third = torch.full((3,), 1 / 3)
    torch.testing.assert_close(answers["cross_entropy"], torch.tensor(counts) / 100, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(answers["logit_adjusted"], third, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(answers["post_hoc"], third, rtol=1e-3, atol=1e-3)


def test_the_answer_is_an_affine_map_of_the_logits_that_a_head_can_take_over():
    logits = logits_of(2, 4, 3, 3).float()
    torch.testing.assert_close(build("ldam", COUNTS, scale=30.0).answer(logits), 30 * logits)
    found = build("post_hoc", COUNTS, tau=0.7)
    torch.testing.assert_close(found.answer(logits), adjusted(logits, COUNTS, tau=0.7))
    torch.testing.assert_close(found.answer(logits), logits * found.scale + found.offset[None, :, None, None])
    log = torch.tensor([math.log(n / N) for n in FILLED])
    torch.testing.assert_close(adjusted(logits, COUNTS, tau=0.7), logits - 0.7 * log[None, :, None, None])
    assert torch.equal(build("focal", COUNTS).answer(logits), logits)


def test_a_picture_of_several_classes_or_none_in_the_sigmoid_form():
    logits = logits_of(3, 4)
    targets = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1.0]])
    found = build("class_balanced", COUNTS, form="sigmoid", beta=0.9).each(logits, targets)
    each = F.binary_cross_entropy_with_logits(logits, targets.double(), reduction="none").sum(1)
    w = effective(0.9)
    torch.testing.assert_close(found, each * torch.tensor([(w[0] + w[1]) / 2, 1, w[3]]).double(), rtol=1e-6, atol=1e-8)


def test_losses_hold_nothing_that_a_checkpoint_would_keep_and_move_with_their_module():
    for kind in names.LOSSES:
        loss = build(kind, COUNTS)
        assert not loss.state_dict()
        assert not list(loss.parameters())
        moved = copy.deepcopy(loss).to("meta")
        assert all(one.device.type == "meta" for one in moved.buffers())


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("focall", {}, "loss 'focall': there is none; did you mean 'focal'?"),
        ("focal", {"gama": 1}, "option of the loss 'focal' 'gama': there is none; did you mean 'gamma'?"),
        ("cross_entropy", {"tau": 1}, "'tau': there is none; there are smoothing, ignore_index"),
        ("focal", {"gamma": -1.0}, "gamma: -1 is out of range; give 0 or more"),
        ("focal", {"gamma": float("nan")}, "gamma: nan is out of range"),
        ("focal", {"alpha": 0.25}, "alpha: 0.25 has no meaning in the softmax form"),
        ("focal", {"form": "sigmoid", "alpha": 2.0}, "alpha: 2 is out of range; give 0 to 1"),
        ("focal", {"form": "sigmod"}, "form 'sigmod': there is none; did you mean 'sigmoid'?"),
        ("focal", {"weights": "all"}, "weights 'all'"),
        ("class_balanced", {"beta": 1.0}, "beta: 1 is out of range"),
        ("ldam", {"scale": 0.0}, "scale: 0 is out of range; give more than 0"),
        ("ldam", {"margin": -1.0}, "margin: -1 is out of range"),
        ("ldam", {"deferred": 80.0}, "deferred: 80 is out of range; give 0 to 1"),
        ("weighted", {"smoothing": 1.5}, "smoothing: 1.5 is out of range"),
    ],
)
def test_mistakes(kind, options, said):
    with pytest.raises(TrainError, match=said):
        build(kind, COUNTS, **options)


def test_no_class_has_an_example():
    with pytest.raises(TrainError, match="no class has an example"):
        build("weighted", np.zeros(3))
