"""The law of views: a picture's view goes by seed, epoch and picture alone. And mixing, and strength by class."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.training.augment import POLICIES, Augment, cutmix, generator, mixup, soft, strengths, which_view
from manylens.training.errors import TrainError


def pixels(count: int = 6, side: int = 24) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(5))


@given(st.sampled_from(POLICIES[1:]), st.permutations(range(6)), st.integers(1, 6), st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_a_view_does_not_depend_on_the_batch(policy, order, size, epoch):
    augment, given = Augment(policy, 0.7, seed=3), pixels()
    power = np.linspace(0.2, 1, 6)
    whole = augment(given, range(6), epoch, power)
    part = order[:size]
    torch.manual_seed(epoch)  # the global generator has no say
    assert (augment(given[part], part, epoch, power[part]) == whole[part]).all()
    assert whole.shape == given.shape
    assert whole.min() >= 0
    assert whole.max() <= 1


@pytest.mark.parametrize("policy", POLICIES[1:])
def test_other_seeds_epochs_and_pictures_give_other_views(policy):
    given = pixels(1).expand(40, -1, -1, -1)
    before = given.clone()
    state = torch.get_rng_state()
    one = Augment(policy, seed=1)(given, range(40), 0)
    assert (torch.get_rng_state() == state).all()
    assert (given == before).all()
    for other in (Augment(policy, seed=2)(given, range(40), 0), Augment(policy, seed=1)(given, range(40), 1)):
        assert sum(bool((a != b).any()) for a, b in zip(one, other, strict=True)) > 10
    assert (one != one[:1]).flatten(1).any(dim=1).sum() > 10
    assert (Augment(policy, seed=1)(given, [f"{i}" for i in range(40)], 0) == one).all()  # names as numbers


def test_half_are_mirrored_where_that_is_allowed():
    given = pixels(1).expand(400, -1, -1, -1)
    made = Augment("flip")(given, range(400), 0)
    mirrored = (made == given.flip(-1)).flatten(1).all(dim=1)
    plain = (made == given).flatten(1).all(dim=1)
    assert (mirrored ^ plain).all()
    assert 150 < int(mirrored.sum()) < 250
    assert (Augment("flip", mirror=False)(given, range(400), 0) == given).all()


def test_no_policy_changes_nothing():
    given = pixels()
    assert Augment("none")(given, range(6), 3) is given


@pytest.mark.parametrize("policy", ["light", "rand"])
def test_strength_changes_more(policy):
    given = pixels(1).expand(60, -1, -1, -1)
    apart = [
        float((Augment(policy, mirror=False)(given, range(60), 0, [power] * 60) - given).abs().mean())
        for power in (0.1, 0.4, 1.0)
    ]
    assert apart[0] < apart[1] < apart[2]
    own = Augment(policy, 0.4, mirror=False)(given, range(60), 0)
    assert (own == Augment(policy, mirror=False)(given, range(60), 0, [0.4] * 60)).all()


def test_kept_views_are_those_of_epochs_and_the_first_is_plain():
    augment = Augment("rand", seed=4)
    squares = np.random.default_rng(0).integers(0, 256, (5, 24, 24, 3), dtype=np.uint8)
    before = squares.copy()
    assert augment.view(squares, "abcde", 0) is squares
    made = augment.view(squares, "abcde", 2)
    assert made.dtype == np.uint8
    assert made.shape == squares.shape
    given = torch.from_numpy(squares).permute(0, 3, 1, 2).float() / 255
    shown = augment(given, "abcde", 2).permute(0, 2, 3, 1).numpy() * 255
    assert np.abs(made - shown).max() <= 0.5 + 1e-3
    assert (augment.view(squares[3:4], "d", 2) == made[3:4]).all()
    assert (made != augment.view(squares, "abcde", 1)).any()
    assert (squares == before).all()


def test_another_way_of_making_views_has_another_name():
    ways = [
        Augment(),
        Augment("rand"),
        Augment(strength=0.4),
        Augment(seed=1),
        Augment(mirror=False),
        Augment(operations=3),
    ]
    assert len({way.name for way in ways}) == len(ways)


def test_an_unknown_policy_is_named_with_the_nearest():
    with pytest.raises(TrainError, match=r"augment.policy 'lihgt': there is none; did you mean 'light'"):
        Augment("lihgt")


@given(st.integers(0, 5), st.text(max_size=5), st.integers(1, 7), st.integers(0, 4))
def test_each_kept_view_is_shown_once_in_as_many_epochs(seed, id, views, rounds):
    start = rounds * views
    assert sorted(which_view(seed, epoch, id, views) for epoch in range(start, start + views)) == list(range(views))


def test_kept_views_come_in_different_orders():
    orders = {tuple(which_view(0, epoch, id, 4) for epoch in range(4)) for id in range(200)}
    assert len(orders) == 24


def test_chance_goes_by_seed_epoch_picture_and_use():
    def first(*key):
        return generator(*key).random()

    assert first(1, 2, "a") == first(1, 2, "a")
    assert len({first(1, 2, "a"), first(2, 2, "a"), first(1, 3, "a"), first(1, 2, "b"), first(1, 2, "a", "mix")}) == 5
    assert first(1, 12, "3") != first(11, 2, "3")
    assert first(0, 0, "\udcff") >= 0  # a file name that is no text


COUNTS = [
    ([100, 10, 1], 0.4, 2.0, [0.4, 0.4 * 2**0.5, 0.8]),
    ([100, 10, 1], 0.4, 1.0, [0.4, 0.4, 0.4]),
    ([50, 50], 0.4, 2.0, [0.4, 0.4]),
    ([100, 0], 0.7, 3.0, [0.7, 1.0]),
    ([], 0.5, 2.0, []),
]


@pytest.mark.parametrize(("counts", "strength", "rare", "wanted"), COUNTS)
def test_rare_classes_are_changed_more(counts, strength, rare, wanted):
    assert strengths(counts, strength, rare).tolist() == pytest.approx(wanted)


def chance(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    "targets", [torch.tensor([0, 2, 1, 2]), torch.tensor([[0.5, 0.5, 0], [0, 0, 1.0], [1, 0, 0], [0, 1, 0]])]
)
def test_mixup_is_a_mean_of_pairs(targets):
    vectors = torch.randn(4, 7)
    found = mixup({"vector": vectors, "maps": vectors.view(4, 7, 1, 1)}, targets, labels=3, alpha=0.4, random=chance())
    share, partner = found.share, found.partner.tolist()
    wanted = soft(targets, 3)
    assert sorted(partner) == [0, 1, 2, 3]
    assert 0 < share < 1
    for i, j in enumerate(partner):
        mean = share * vectors[i] + (1 - share) * vectors[j]
        assert found.values["vector"][i].numpy() == pytest.approx(mean.numpy(), abs=1e-5)
        assert found.targets[i].numpy() == pytest.approx(
            (share * wanted[i] + (1 - share) * wanted[j]).numpy(), abs=1e-5
        )
    assert (found.values["maps"].flatten(1) == found.values["vector"]).all()
    assert found.targets.sum(dim=1).tolist() == pytest.approx([1] * 4)


def test_the_share_is_drawn_from_a_beta():
    shares = [
        mixup(torch.zeros(2, 1), torch.tensor([0, 1]), labels=2, alpha=0.3, random=chance(i)).share for i in range(800)
    ]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)
    assert np.var(shares) == pytest.approx(0.25 / (2 * 0.3 + 1), rel=0.1)  # of Beta(a, a)


@pytest.mark.parametrize("seed", range(12))
def test_cutmix_targets_go_by_the_pixels_that_are_left(seed):
    count, side = 5, 16
    own = torch.arange(count).float().view(count, 1, 1, 1).expand(-1, 3, side, side).contiguous()
    targets = torch.arange(count)
    found = cutmix(own, targets, labels=count, alpha=1.0, random=chance(seed))
    for i, j in enumerate(found.partner.tolist()):
        left = float((found.values[i, 0] == i).float().mean())
        assert left == pytest.approx(1.0 if i == j else found.share)
        wanted = torch.zeros(count)
        wanted[i] += found.share
        wanted[j] += 1 - found.share
        assert found.targets[i].tolist() == pytest.approx(wanted.tolist())
        cut = (found.values[i, 0] != i).nonzero()
        if len(cut):  # a rectangle
            (y0, x0), (y1, x1) = cut.amin(0).tolist(), cut.amax(0).tolist()
            assert len(cut) == (y1 - y0 + 1) * (x1 - x0 + 1)
    assert (own[1] == 1).all()


def test_without_a_generator_chance_comes_from_torch():
    given, targets = torch.rand(4, 3, 8, 8), torch.arange(4)
    for mix in (mixup, cutmix):
        found = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            found.append(mix(given, targets, labels=4, alpha=1.0))
        assert (found[0].values == found[1].values).all()
        assert (found[0].values != found[2].values).any()
