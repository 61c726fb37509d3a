"""Model soups (Wortsman et al., 2022): the weights of several trainings of one network averaged into one model.

They must come of one start (the same pre-trained weights), or their mean is no model. Low-rank updates are merged
first: the mean of products is not the product of means. Statistics of batch norms are averaged like weights; look over
the training pictures once more (``adabn`` on them) where there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from manylens.training.errors import TrainError

State = Mapping[str, Tensor]
Judge = Callable[[dict[str, Tensor]], float]
"""Takes a state and gives its figure on the selection set."""


@dataclass(frozen=True)
class Soup:
    """A soup that was chosen.

    Attributes:
        state: Its weights.
        figure: Of it on the selection set.
        chosen: Numbers of the ingredients, in the order in which they went in.
        figures: Of each ingredient by itself.
    """

    state: dict[str, Tensor]
    figure: float
    chosen: tuple[int, ...]
    figures: tuple[float, ...]


def soup(states: Iterable[State], weights: Sequence[float] | None = None) -> dict[str, Tensor]:
    """The mean of weights; two states are in memory at a time where they are made one by one.

    Numbers that are no weights, such as counters of batch norms, are those of the first.

    Args:
        states: State dicts of one network.
        weights: Of the mean, at least 0; by default all count alike.

    Returns:
        A new state, of the types that the first has.

    Raises:
        TrainError: There is none, or two are not of one network.
    """
    pot: _Pot | None = None
    for number, state in enumerate(states):
        weight = 1.0 if weights is None else float(weights[number])
        if weight < 0:
            raise TrainError(f"soup: weight {number} is {weight:g}", "give 0 or more")
        if pot is None:
            pot = _Pot(state)
        pot.check(state, number)
        if weight:
            pot.add(state, weight)
    if pot is None or not pot.total:
        raise TrainError("soup: there is nothing in it", "give one state or more")
    return pot.state()


def greedy_soup(states: Sequence[State], judge: Judge, *, mode: str = "max") -> Soup:
    """The best ingredient, and then each other, the best first, that does not make the soup worse.

    So it is never worse on the selection set than the best ingredient; how it does elsewhere, another set must tell.

    Args:
        states: State dicts of one network.
        judge: Gives the figure of a state on the selection set.
        mode: ``max`` where more is better, else ``min``.

    Raises:
        TrainError: There is none, two are not of one network, or a figure is no number.
    """
    sign = 1.0 if mode == "max" else -1.0
    figures = [_figure(judge, dict(state), f"ingredient {number}") for number, state in enumerate(states)]
    if not figures:
        raise TrainError("soup: there is nothing in it", "give one state or more")
    order = sorted(range(len(states)), key=lambda number: (-sign * figures[number], number))
    pot = _Pot(states[order[0]])
    for number in order:
        pot.check(states[number], number)
    pot.add(states[order[0]], 1.0)
    best, chosen = figures[order[0]], [order[0]]
    for number in order[1:]:
        tried = pot.copy()
        tried.add(states[number], 1.0)
        figure = _figure(judge, tried.state(), f"soup with {number}")
        if sign * figure >= sign * best:
            pot, best = tried, figure
            chosen.append(number)
    return Soup(pot.state(), best, tuple(chosen), tuple(figures))


class _Pot:
    """A running mean of weights in float64; the mean of equal states is exactly that state."""

    def __init__(self, first: State) -> None:
        self._first = first
        self._mean: dict[str, Tensor] = {}
        self.total = 0.0

    def check(self, state: State, number: int) -> None:
        """Raise where a state is of another network."""
        if state.keys() != self._first.keys():
            name = sorted(state.keys() ^ self._first.keys())[0]
            raise TrainError(f"soup: state {number} and the first differ in {name!r}", "give states of one network")
        for name, one in state.items():
            if one.shape != self._first[name].shape:
                shapes = f"{tuple(one.shape)}, not {tuple(self._first[name].shape)}"
                raise TrainError(f"soup: {name!r} of state {number} is {shapes}", "give states of one network")

    def add(self, state: State, weight: float) -> None:
        """Let a state into the mean."""
        self.total += weight
        for name, one in state.items():
            if not one.is_floating_point():
                continue
            values = one.detach().double()
            if name in self._mean:
                self._mean[name] = torch.lerp(self._mean[name], values, weight / self.total)
            else:
                self._mean[name] = values

    def copy(self) -> _Pot:
        """Another pot of the same content; tensors are never changed in place, so they are shared."""
        made = _Pot(self._first)
        made._mean, made.total = dict(self._mean), self.total
        return made

    def state(self) -> dict[str, Tensor]:
        """The mean, in the first state's types."""
        return {
            name: self._mean[name].to(one.dtype) if name in self._mean else one.detach().clone()
            for name, one in self._first.items()
        }


def _figure(judge: Judge, state: dict[str, Tensor], what: str) -> float:
    found = float(judge(state))
    if found != found:
        raise TrainError(f"soup: the figure of {what} is no number", "judge by another figure")
    return found
