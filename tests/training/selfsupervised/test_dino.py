from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from manylens.errors import UnsupportedError
from manylens.training.errors import TrainError
from manylens.training.selfsupervised import masking, neighbours, objectives, opening
from manylens.training.selfsupervised.crops import CropOptions, Crops, MultiCrop
from manylens.training.selfsupervised.dino import Dino, DinoOptions, entropies
from manylens.training.selfsupervised.heads import DinoHead
from manylens.training.selfsupervised.health import health
from manylens.training.selfsupervised.schedules import cosine
from tests.training.selfsupervised.made_up import MEAN, STD, convolutions, textures, tower

HEAD = {"prototypes": 64, "hidden": 64, "bottleneck": 32, "centring": "centre", "koleo": 0}
FULL = {"centring": "sinkhorn", "koleo": 0.1, "ibot": 1.0, "ibot_own_head": True}
PICTURES, CLASSES = textures(384)
VIEWS = MultiCrop(
    CropOptions(
        side=24,
        local_side=16,
        locals=2,
        local_scale=(0.15, 0.4),
        sigma=(0.05, 0.3),
        flip=0,
        solarise=0,
        saturation=0.4,
        hue=0.5,
    )
)


def network(seed: int = 0, **options: object) -> Dino:
    made = tower(seed=seed)
    torch.manual_seed(seed)
    return Dino(made, MEAN, STD, DinoOptions(**{**HEAD, **options}))


def views(count: int, step: int = 0) -> Crops:
    generator = torch.Generator().manual_seed(step)
    chosen = torch.randperm(256, generator=generator)[:count]
    return VIEWS(PICTURES[chosen], VIEWS.numbers(count, generator))


def masks(net: Dino, count: int, step: int = 0) -> torch.Tensor | None:
    if not net.options.ibot:
        return None
    generator = torch.Generator().manual_seed(step)
    return net.options.masks(torch.rand(2 * count, masking.RECTANGLES + 1, 4, generator=generator), (3, 3))


class Training:
    """The plainest loop around it."""

    def __init__(self, net: Dino, total: int, lr: float = 3e-3, momentum: float = 0.9) -> None:
        self.net, self.total, self.momentum = net, total, momentum
        self.optimiser = torch.optim.AdamW([one for one in net.parameters() if one.requires_grad], lr=lr)
        self.schedule = net.options.schedule(total, 10)
        self.losses: list[float] = []

    def run(self, start: int, stop: int, batch: int = 32) -> Training:
        for step in range(start, stop):
            temperature = self.schedule.temperature_at(step)
            found = self.net(views(batch, step), temperature, masks(self.net, batch, step))
            self.optimiser.zero_grad()
            found["loss"].backward()
            if self.schedule.freezes_last_at(step):
                self.net.freeze_last()
            self.optimiser.step()
            self.net.follow(cosine(step, self.total, self.momentum, 1.0))
            self.losses.append(float(found["dino"]))
        return self


def judged(net: Dino) -> tuple[float, np.ndarray, dict[str, float]]:
    net.eval()
    vectors, answers = net.judged(PICTURES, net.options.temperature)
    net.train()
    found = vectors.numpy()
    right = neighbours.accuracy(found[:256], CLASSES[:256], found[256:], CLASSES[256:])
    return right, found, {name: float(value) for name, value in entropies(answers).items()}


# ---------------------------------------------------------------------- parts


def test_the_loss_is_that_of_its_parts():
    """By hand: views one by one, the teacher's answers centred by the mean of earlier ones, pairs in a loop."""
    net = network()
    net.train()
    net.centre.update(torch.randn(8, 64))
    centre = net.centre.mean.clone()
    crops = views(4)
    found = net(crops, 0.05)
    answers, targets = [], []
    with torch.no_grad():
        for view in [*crops.large.split(4), *crops.small.split(4)]:
            pixels = (view - 0.5) / 0.25
            answers.append((net.student.head(net.student.tower(pixels).vector) / 0.1).log_softmax(dim=-1))
            targets.append(net.teacher.head(net.teacher.tower(pixels).vector))
    pairs = [
        -(((targets[g] - centre) / 0.05).softmax(dim=-1) * answers[v]).sum(dim=-1).mean()
        for g in range(2)
        for v in range(4)
        if v != g
    ]
    assert float(found["loss"].detach()) == pytest.approx(float(torch.stack(pairs).mean()), rel=1e-4)
    moved = 0.9 * centre + 0.1 * torch.cat(targets[:2]).mean(dim=0)
    assert torch.allclose(net.centre.mean, moved, atol=1e-6)


def test_terms_are_weighted_and_told():
    net = network(**{**FULL, "koleo": 0.3, "ibot": 0.7})
    crops, hidden = views(6), masks(net, 6)
    found = net(crops, 0.04, hidden)
    expected = found["dino"] + 0.7 * found["ibot"] + 0.3 * found["koleo"]
    assert float(found["loss"].detach()) == pytest.approx(float(expected), rel=1e-5)
    seen = net.student.tower(net.normalised(crops.large), masked=hidden)
    first, second = (float(objectives.koleo(one.detach())) for one in (seen.vector[:6], seen.vector[6:]))
    assert float(found["koleo"]) == pytest.approx(first + second, rel=1e-4)


def test_masked_patches_are_compared_where_they_are_masked():
    net = network(ibot=1.0, centring="none")
    crops = views(3)
    hidden = torch.zeros(6, 9, dtype=torch.bool)
    hidden[0, 2] = hidden[0, 5] = hidden[4, 8] = True
    found = net(crops, 0.04, hidden)
    with torch.no_grad():
        pixels = net.normalised(crops.large)
        answers = net.student.head(net.student.tower(pixels, masked=hidden).patches) / 0.1
        targets = (net.teacher.head(net.teacher.tower(pixels).patches) / 0.04).softmax(dim=-1)
        each = -(targets * answers.log_softmax(dim=-1)).sum(dim=-1)
    expected = ((each[0, 2] + each[0, 5]) / 2 + each[4, 8]) / 6
    assert float(found["ibot"]) == pytest.approx(float(expected), rel=1e-4)


def test_without_a_masked_patch_the_term_is_nothing_and_all_weights_have_gradients():
    net = network(**FULL)
    found = net(views(3), 0.04, torch.zeros(6, 9, dtype=torch.bool))
    found["loss"].backward()
    assert float(found["ibot"]) == 0
    without = [name for name, one in net.named_parameters() if one.requires_grad and one.grad is None]
    assert without == ["student.tower.model.embeddings.mask_token"] or without == []


def test_the_teacher_keeps_its_share_of_itself():
    """By hand, parameter by parameter; statistics of norms are the student's."""
    net = Dino(opening.tower(convolutions()), MEAN, STD, DinoOptions(**HEAD))
    before = {name: one.clone() for name, one in net.teacher.named_parameters()}
    with torch.no_grad():
        for one in net.student.parameters():
            one.add_(torch.randn_like(one))
    net.student.tower.model[1].running_mean.add_(1.5)
    net.follow(0.8)
    for name, one in net.teacher.named_parameters():
        expected = 0.8 * before[name] + 0.2 * net.student.get_parameter(name)
        assert torch.allclose(one, expected, atol=1e-6), name
    assert torch.equal(net.teacher.tower.model[1].running_mean, net.student.tower.model[1].running_mean)


def test_the_teacher_begins_as_the_student_and_does_not_learn():
    net = network()
    net(views(4), 0.04)["loss"].backward()
    assert all(one.grad is None and not one.requires_grad for one in net.teacher.parameters())
    assert all(torch.equal(a, b) for a, b in zip(net.teacher.parameters(), net.student.parameters(), strict=True))
    net.train()
    assert net.student.training
    assert not any(one.training for one in net.teacher.modules())


def test_frozen_prototypes_stay_and_the_rest_moves():
    net = network(freeze_last_epochs=1.0, ibot=1.0, ibot_own_head=True)
    heads = [net.student.head, net.student.patch_head]
    before = [(head.prototypes.clone(), head.mlp[0].weight.clone()) for head in heads]
    training = Training(net, 20).run(0, 10, batch=4)
    for head, (prototypes, first) in zip(heads, before, strict=True):
        assert torch.equal(head.prototypes, prototypes)
        assert not torch.equal(head.mlp[0].weight, first)
    training.run(10, 11, batch=4)
    assert not any(torch.equal(head.prototypes, one) for head, (one, _) in zip(heads, before, strict=True))


def test_the_head_gives_cosines():
    torch.manual_seed(0)
    head = DinoHead(12, prototypes=9, hidden=16, bottleneck=8)
    found = head(torch.randn(50, 12))
    assert found.shape == (50, 9)
    assert found.abs().max() <= 1 + 1e-5
    torch.manual_seed(0)
    again = DinoHead(12, prototypes=9, hidden=16, bottleneck=8)
    with torch.no_grad():
        head.prototypes.mul_(7)
    vectors = torch.randn(5, 12)
    assert torch.allclose(head(vectors), again(vectors), atol=1e-6)
    assert [type(one).__name__ for one in head.mlp] == ["Linear", "GELU", "Linear", "GELU", "Linear"]


def test_what_cannot_be_masked_is_refused_by_name():
    with pytest.raises(UnsupportedError, match="lite: is no vision transformer"):
        Dino(opening.tower(convolutions()), MEAN, STD, DinoOptions(ibot=1.0), "lite")
    with pytest.raises(TrainError, match=r"did you mean options\.prototypes"):
        DinoOptions.of({"prototype": 3})
    with pytest.raises(TrainError, match="centring"):
        DinoOptions.of({"centring": "middle"})


def test_entropies_tell_answers_apart():
    alike, single = torch.full((8, 4), 0.25), torch.eye(4).repeat(2, 1)
    one = torch.eye(4)[:1].repeat(8, 1)
    found = [{name: float(value) for name, value in entropies(answers).items()} for answers in (alike, single, one)]
    assert found[0] == pytest.approx({"mean_entropy": 1.0, "entropy": 1.0})
    assert found[1] == pytest.approx({"mean_entropy": 1.0, "entropy": 0.0})
    assert found[2] == pytest.approx({"mean_entropy": 0.0, "entropy": 0.0})


# ---------------------------------------------------------------------- trainings


def test_it_learns_what_random_features_do_not_know():
    """Pictures of four textures in random colours: neighbours of random features share a colour, not a texture."""
    net = network(centring="sinkhorn", koleo=0.1)
    before, _, _ = judged(net)
    training = Training(net, 80).run(0, 80)
    after, vectors, answers = judged(net)
    assert np.mean(training.losses[-10:]) < np.mean(training.losses[:3]) - 0.3
    assert before < 0.35
    assert after > before + 0.15
    assert health(torch.from_numpy(vectors), **answers).sentence() == ""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"centring": "none", "temperature": 0.04}, "same few prototypes"),  # sharpening without centring
        ({"centring": "centre", "temperature": 1.0}, "a bit of all prototypes"),  # centring without sharpening
    ],
)
def test_a_collapse_is_said(options, says):
    net = network(**options)
    Training(net, 60, momentum=0.8).run(0, 60, batch=16)
    _, vectors, answers = judged(net)
    assert says in health(torch.from_numpy(vectors), **answers).sentence()


def test_a_training_goes_on_from_its_state_as_if_it_had_not_stopped():
    whole = Training(network(**FULL, centre_momentum=0.5), 8).run(0, 8, batch=4)
    first = Training(network(**FULL, centre_momentum=0.5), 8).run(0, 4, batch=4)
    states = copy.deepcopy((first.net.state_dict(), first.optimiser.state_dict()))
    second = Training(network(seed=9, **FULL, centre_momentum=0.5), 8)
    second.net.load_state_dict(states[0])
    second.optimiser.load_state_dict(states[1])
    second.run(4, 8, batch=4)
    assert second.losses == pytest.approx(whole.losses[4:], abs=1e-6)
    for name, one in whole.net.state_dict().items():
        assert torch.allclose(one, second.net.state_dict()[name], atol=1e-6), name


def test_centres_are_part_of_the_state():
    one, other = network(), network()
    one.train()
    one(views(4), 0.04)
    assert not torch.equal(one.centre.mean, other.centre.mean)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.centre.mean, other.centre.mean)
    assert torch.allclose(one(views(4), 0.04)["dino"], other(views(4), 0.04)["dino"])


def test_any_encoder_that_gives_a_vector_can_be_a_student():
    net = Dino(opening.tower(convolutions()), MEAN, STD, DinoOptions(**HEAD))
    training = Training(net, 6).run(0, 6, batch=8)
    assert np.isfinite(training.losses).all()
    assert net.encoder is net.teacher.tower
    assert net.judged(PICTURES[:5], 0.04)[0].shape == (5, 12)
