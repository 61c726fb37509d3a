"""SAM's mask decoder on OpenVINO, in two halves: the tokens in NumPy, the picture in three small networks.

One network of both does the same work, and is made in a new process in 0.1 s, most of it for layers of a few tokens:
see :mod:`manylens.models.sam.tokens`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.models.network import Blueprint, wrapped
from manylens.models.sam import picture_graphs
from manylens.models.sam.picture_graphs import DRAW, GATHER, SPREAD, rows_of_part
from manylens.models.sam.tokens import Spread, TokenSide
from manylens.runtime.engines import Precision
from manylens.runtime.held import Held, empty, write

if TYPE_CHECKING:
    import torch
    from transformers import SamModel

_ROWS = 256
"""The picture's tokens are made ready so many at a time: a new process waits longer for memory than for the sums."""
MASKS = "sam-mask-embedding"
"""Name of the network of an earlier answer's logits ``(B, 1, 4G, 4G)``, to ``(B, T, C)``."""
NAMES = (*picture_graphs.NAMES, MASKS)
"""Names of all networks of :func:`blueprint`."""


class _Picture:
    """The picture's tokens for some prompts, bare and placed: of each prompt whole and in parts.

    Args:
        keys: ``(B, T, C)``, each prompt's contiguous.
        placed: The same, with their places added.
        count: Tokens of a part.
    """

    def __init__(self, keys: np.ndarray, placed: np.ndarray, count: int) -> None:
        self.prompts, tokens, _ = keys.shape
        parts = [slice(start, start + count) for start in range(0, tokens, count)]
        both, prompts = (keys, placed), [slice(at, at + 1) for at in range(self.prompts)]
        self._whole = [[Held(one[at]) for one in both] for at in prompts]
        self._parts = [[[Held(one[at, rows]) for one in both] for rows in parts] for at in prompts]

    def whole(self, prompt: int) -> list[Held]:
        """Bare and placed ``(1, T, C)``; all prompts of a picture that has one set share it."""
        return self._whole[prompt % self.prompts]

    def parts(self, prompt: int) -> list[list[Held]]:
        """The same of each part, ``(1, P, C)``."""
        return self._parts[prompt % self.prompts]


class Halves:
    """Answers prompts' tokens on a picture; called as the networks of :class:`manylens.models.sam.decoder.SamDecoder`.

    Args:
        weights: As :func:`manylens.models.sam.module.token_weights` gives them.
        network: Gives a :class:`~manylens.runtime.engines.Compiled` of :func:`blueprint` by name.
        precision: Of the networks.
    """

    def __init__(self, weights: Mapping[str, np.ndarray], network: Callable[[str], Any], precision: Precision) -> None:
        self.weights, self._tokens = weights, TokenSide(weights)
        self._network, self._precision = network, precision
        self._grid = round(weights["places"].shape[1] ** 0.5)
        self._rows = rows_of_part(self._grid)
        places, count = weights["places"], self._rows * self._grid
        self._places = [Held(places[:, start:][:, :count]) for start in range(0, places.shape[1], count)]
        self._kept: tuple[np.ndarray, _Picture] | None = None
        self._rooms: list[Sequence[_Picture]] = []  # one at most

    def __call__(
        self, embedding: np.ndarray, tokens: np.ndarray, masks: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logits ``(B, M, 4G, 4G)`` and their predicted IoU ``(B, M)``."""
        side, queries, picture = self._tokens, tokens, self._picture(embedding, masks)
        with self._room(len(tokens)) as room:
            for layer in range(side.layers):
                queries = side.consider(layer, queries, tokens)
                queries = side.learnt(layer, queries, self._gathered(layer, queries, tokens, picture))
                found = room[layer % 2]
                self._spread(side.spread(layer, queries, tokens), picture, found, backwards=layer % 2 == 0)
                picture = found
            queries = side.learnt(side.layers, queries, self._gathered(side.layers, queries, tokens, picture))
            drawn, quality = side.answers(queries)
            return self._drawn(drawn, picture), quality

    def _gathered(self, layer: int, queries: np.ndarray, tokens: np.ndarray, picture: _Picture) -> np.ndarray:
        asked = self._tokens.asked(layer, queries, tokens)
        # Networks are asked for when they are needed: another thread may still be making them.
        gather = self._network(GATHER)
        if picture.prompts == 1:
            return gather(*picture.whole(0), asked.reshape(1, -1, asked.shape[-1]))[0].reshape(asked.shape)
        return np.concatenate([gather(*picture.whole(at), one[None])[0] for at, one in enumerate(asked)])

    def _spread(self, told: Spread, picture: _Picture, found: _Picture, backwards: bool) -> None:
        spread = self._network(SPREAD)
        for at in range(found.prompts):
            asked, offset, by_share = (one[at : at + 1] for one in told[:3])
            parts = list(zip(picture.parts(at), found.parts(at), self._places, strict=True))
            for given, taken, places in reversed(parts) if backwards else parts:
                spread.into(taken, *given, places, asked, offset, by_share, told.finish)

    def _drawn(self, drawn: np.ndarray, picture: _Picture) -> np.ndarray:
        draw, high = self._network(DRAW), 4 * self._rows
        low_res = np.empty((*drawn.shape[:2], 4 * self._grid, 4 * self._grid), np.float32)
        for at, one in enumerate(drawn):
            for number, (keys, _) in enumerate(picture.parts(at)):
                low_res[at, :, high * number : high * (number + 1)] = draw(keys, one[None])[0][0]
        return low_res

    def _picture(self, embedding: np.ndarray, masks: np.ndarray | None) -> _Picture:
        """The picture's tokens, of all prompts together unless masks are added; those of the last picture are kept."""
        kept = self._kept
        if masks is None and kept is not None and kept[0] is embedding:
            return kept[1]
        flat, places = embedding.reshape(1, -1, embedding.shape[-1]), self.weights["places"]
        masked = None if masks is None else self._network(MASKS)(masks)[0]
        shape = flat.shape if masked is None else masked.shape
        keys, placed = empty(shape, self._precision), empty(shape, self._precision)
        for start in range(0, shape[1], _ROWS):
            rows = slice(start, start + _ROWS)
            some = flat[:, rows] + (self.weights["bare"] if masked is None else masked[:, rows])
            write(keys[:, rows], some)
            write(placed[:, rows], some + places[:, rows])
        found = _Picture(keys, placed, self._rows * self._grid)
        if masks is None:
            self._kept = embedding, found
        return found

    @contextmanager
    def _room(self, prompts: int) -> Iterator[Sequence[_Picture]]:
        """Room for the picture's tokens after the even layers and after the odd ones; that of one prompt is kept.

        The two overlap, all but a part: a layer writes each part where it has read the one before. See ``_spread``.
        """
        count, room = self._rows * self._grid, None
        if prompts == 1:
            with suppress(IndexError):
                room = self._rooms.pop()
        if room is None:
            _, tokens, width = self.weights["places"].shape
            keys, placed = (empty((prompts, count + tokens, width), self._precision) for _ in range(2))
            room = [_Picture(keys[:, at:][:, :tokens], placed[:, at:][:, :tokens], count) for at in (count, 0)]
        try:
            yield room
        finally:
            if prompts == 1 and not self._rooms:
                self._rooms.append(room)


def blueprint(name: str, low_res: int, precision: Precision, load: Callable[[], SamModel]) -> Blueprint:
    """A network of :class:`Halves`.

    Args:
        name: One of ``NAMES``.
        low_res: Side of the logits.
        precision: In which the picture's tokens go from network to network.
        load: Gives the checkpoint's module.
    """
    if name == MASKS:

        def example() -> list[torch.Tensor]:
            import torch

            return [torch.zeros(1, 1, low_res, low_res)]

        def embed(model: Any, masks: torch.Tensor) -> torch.Tensor:
            return model(masks).flatten(2).transpose(1, 2)

        shapes = {"masks": (-1, 1, low_res, low_res)}
        module = lambda: wrapped(load().prompt_encoder.mask_embed, embed)  # noqa: E731
        return Blueprint(name, module, example, ("masks",), ("tokens",), shapes)

    def graph() -> Any:
        from manylens.models.sam.module import picture_weights

        return picture_graphs.build(name, picture_weights(load()), precision)

    def torch_module() -> torch.nn.Module:
        raise NotImplementedError(f"{name}: a graph of OpenVINO alone")

    return Blueprint(name, torch_module, list, (), (), graph=graph)
