"""Makes one model of an ensemble's members: how much each counts, and how good the whole is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from manylens.models.adapted import bundle
from manylens.models.adapted import ensemble as voting
from manylens.models.adapted.ensemble import Member, Mixed
from manylens.training.ensemble.jury import Jury, fitted, jury, parted
from manylens.training.ensemble.members import Folds
from manylens.training.ensemble.soup import greedy_soup, soup
from manylens.training.run import Job

_LEAST = 1e-3
"""A member with less of the vote than this is left out: it would cost as much as any other."""

Base = Mapping[str, str]
State = dict[str, Tensor]


@dataclass(frozen=True)
class Joined:
    """One model of several.

    Attributes:
        shares: Of the members, in the vote or the mean.
        own: Figures of each member by itself.
        figures: Of the whole.
        write: Writes the model into a folder.
    """

    shares: Sequence[float]
    own: Sequence[Mapping[str, float]]
    figures: dict[str, float]
    write: Callable[[Path], None]


def judged(job: Job) -> bool:
    """Whether there is a validation split."""
    return bool(job.dataset.splits.get(job.config.data.val))


def by_own_folds(job: Job, base: Base, members: Sequence[Member], folds: Folds) -> Joined:
    """A vote in which a member counts for what it makes of its own fold: the likelihood of what is right there.

    No picture was held out from two members, so shares cannot be fitted together; these are the geometric mean of the
    probability that each gave what is right, as in pseudo-BMA (Yao et al., 2018). Of those who find objects there is no
    such probability: all count alike.
    """
    finds = members[0].spec.architecture in voting.FINDERS
    both = {job.config.data.train: folds.pool, job.config.data.val: folds.pool}
    own, likely = [], []
    with jury(job, base, members, both) as judges:
        held = folds.held_out(judges.ids)
        for number, network in enumerate(judges.networks):
            if finds:
                judges.judge(network, np.flatnonzero(held == number))
                likely.append(0.0)
            else:
                right, _ = judges.right(network, np.flatnonzero(held == number))
                likely.append(float(np.log(np.maximum(right, 1e-12)).mean()))
            own.append(judges.figures())
        for number, network in enumerate(judges.networks):
            judges.judge(network, np.flatnonzero(held == number))
        figures = judges.figures()
    job.note("figures are of pictures held out, each judged by the member that never saw it; the vote is not in them")
    return _vote(job, members, np.exp(np.array(likely) - max(likely)), own, figures)


def by_validation(job: Job, base: Base, members: Sequence[Member]) -> Joined:
    """A vote whose shares are fitted on the validation split; figures of each part of it by those of the others."""
    if not judged(job):
        job.note("there is no validation split: all members have the same share, and there are no figures")
        return _vote(job, members, np.ones(len(members)), [{} for _ in members], {})
    if members[0].spec.architecture in voting.FINDERS:
        return _by_equal_shares(job, base, members)
    own, rights = [], []
    with jury(job, base, members) as judges:
        numbers, parts = judges.numbers, parted(judges.ids, job.config.seed)
        for network in judges.networks:
            right, owners = judges.right(network, numbers)
            rights.append(right)
            own.append(judges.figures())
        shares, of_parts = fitted(np.stack(rights), owners, parts)
        for part, of_part in enumerate(of_parts):
            judges.judge(Mixed(judges.networks, of_part.tolist()), numbers[parts == part])
        figures = judges.figures()
    return _vote(job, members, shares, own, figures)


def _by_equal_shares(job: Job, base: Base, members: Sequence[Member]) -> Joined:
    """Members who find objects count alike: the validation split fitted no shares, and judges what is fused."""
    own, shares = [], np.full(len(members), 1 / len(members))
    with jury(job, base, members) as judges:
        for network in judges.networks:
            judges.judge(network, judges.numbers)
            own.append(judges.figures())
        judges.judge_fused(shares.tolist(), judges.numbers)
        figures = judges.figures()
    return _vote(job, members, shares, own, figures)


def _vote(
    job: Job,
    members: Sequence[Member],
    weights: npt.NDArray[np.float64],
    own: Sequence[Mapping[str, float]],
    figures: dict[str, float],
) -> Joined:
    shares = weights / weights.sum()
    shares = np.where(shares < _LEAST, 0.0, shares)
    shares /= shares.sum()
    for one, share in zip(members, shares, strict=True):
        if not share:
            job.note(f"{one.name}: has no say beside the others, and is left out")
    voters = [
        Member(one.name, float(share), one.spec, one.files) for one, share in zip(members, shares, strict=True) if share
    ]
    return Joined(shares.tolist(), own, figures, lambda folder: voting.write(folder, voters))


def by_mean(job: Job, base: Base, members: Sequence[Member]) -> Joined:
    """The mean of the members' weights, as they were saved: LoRA's updates are merged into them by then."""
    greedy, states = job.config.ensemble.kind == "greedy-soup", _states(job, members)
    told: list[dict[str, float]] = []
    own: list[dict[str, float]] = [{} for _ in members]
    chosen: Sequence[int] = range(len(members))
    if not judged(job):
        job.note("there is no validation split: there are no figures")
        mean, figures = soup(states), {}
    else:
        some = next((one for one in members if one.own_encoder), members[0])
        with jury(job, base, [some]) as judges:

            def judge(state: Mapping[str, Tensor]) -> float:
                told.append(_tasted(judges, state))
                return told[-1][judges.aim.figure]

            if greedy:
                found = greedy_soup(states, judge, mode=judges.aim.mode)
                mean, chosen, own = found.state, found.chosen, told[: len(members)]
            else:
                mean, own = soup(states), [_tasted(judges, state) for state in states]
            figures = _tasted(judges, mean)
    parts = _by_part(mean)
    spec = members[0].spec
    shares = [1 / len(chosen) if number in chosen else 0.0 for number in range(len(members))]
    return Joined(shares, own, figures, lambda folder: bundle.write(folder, spec, parts["head"], parts["encoder"]))


def _tasted(judges: Jury, state: Mapping[str, Tensor]) -> dict[str, float]:
    """Figures of a state, which is put into the jury's network."""
    network = judges.networks[0]
    parts = _by_part(state)
    if isinstance(network, bundle.Adapted):
        network.backbone.encoder.load_state_dict(parts["encoder"], strict=False)
        network.head.load_state_dict(parts["head"])
    else:
        network.load_state_dict(parts["head"])
    judges.judge(network, judges.numbers)
    return judges.figures()


def _states(job: Job, members: Sequence[Member]) -> list[State]:
    """What members saved, with what of the base model only others of them changed."""
    from safetensors.torch import load_file

    states = [load_file(one.files[bundle.WEIGHTS]) for one in members]
    names = {name for state in states for name in state}
    if all(state.keys() == names for state in states):
        return states
    with job.session.module(job.config.model) as opened:
        before = {f"encoder.{name}": one.detach().clone() for name, one in opened.module.state_dict().items()}
    return [{**{name: before[name] for name in names - state.keys()}, **state} for state in states]


def _by_part(state: Mapping[str, Tensor]) -> dict[str, State]:
    """A saved state by part of the network: ``head`` and ``encoder``."""
    parts: dict[str, State] = {"head": {}, "encoder": {}}
    for name, one in state.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = one
    return parts
