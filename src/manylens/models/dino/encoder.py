"""The network on its engine, built when something is asked of it that is not kept; and the features that are kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from manylens.models import network
from manylens.models.dino import graph, weights
from manylens.models.dino.plan import Plan
from manylens.models.dino.views import View, Views
from manylens.models.network import Blueprint, Network
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.runtime.store import Key

if TYPE_CHECKING:
    import torch

    from manylens.media import Image

Layers = Mapping[str, np.ndarray]
"""Features of a picture by name: ``vector`` ``(D,)``, ``dense`` ``(rows, columns, D)``, ``attention`` ``(heads, rows,
columns)`` and, where there is a classifier, ``logits`` ``(labels,)``; all float32."""

_TOKENS = 4096
"""Most tokens at once: a larger batch costs memory and gains nothing."""

_KINDS = {"token": "vector", "patches": "dense"}


class Encoder:
    """A checkpoint's network. Safe under threads.

    Args:
        files: The checkpoint's files.
        name: What to call it in an error.
        plan: Its shape.
        views: How pixels become numbers.
        identity: Changes with the weights.
        settings: Engine, precision, threads and device.
    """

    def __init__(
        self,
        files: Mapping[str, Path],
        name: str,
        plan: Plan,
        views: Views,
        identity: str,
        settings: EngineSettings,
    ) -> None:
        self._files, self._name, self._plan, self._views = files, name, plan, views
        self._identity, self._settings = identity, settings
        self._lock = threading.Lock()
        self._network: Network | None = None

    def __call__(self, pictures: np.ndarray) -> list[dict[str, np.ndarray]]:
        """Encode RGB ``(N, h, w, 3)``, as views prepare it: the layers of each picture."""
        pictures = pictures.astype(np.float32 if self._plan.fractions else np.uint8, copy=False)
        rows, columns = (side // self._plan.patch for side in pictures.shape[1:3])
        where = graph.places(self._plan, rows, columns) if self._settings.engine == "openvino" else ()
        found = dict(zip(graph.outputs(self._plan), self._ready()(pictures, *where), strict=True))
        shapes = {"patches": (rows, columns, self._plan.width), "attention": (self._plan.heads, rows, columns)}
        named = {
            _KINDS.get(name, name): array.reshape(len(pictures), *shapes.get(name, array.shape[1:]))
            for name, array in found.items()
        }
        return [{name: array[i] for name, array in named.items()} for i in range(len(pictures))]

    def close(self) -> None:
        """Give the memory back."""
        with self._lock:
            if self._network is not None:
                self._network.close()
                self._network = None

    def _ready(self) -> Network:
        with self._lock:
            if self._network is None:
                self._network = network.build(self._blueprint(), self._settings, self._identity)
            return self._network

    def _blueprint(self) -> Blueprint:
        levels = self._views.levels

        def module() -> torch.nn.Module:
            from manylens.models.dino.module import encoder

            return encoder(self._files, self._name, *levels)

        return Blueprint(
            name=f"vit {self._plan} {levels}",
            module=module,
            example=tuple,
            inputs=graph.inputs(self._plan),
            outputs=graph.outputs(self._plan),
            graph=lambda: graph.build(weights.read(self._files, self._name), *levels),
            changes=2,
        )


@dataclass(frozen=True, eq=False)
class Need:
    """What is wanted of a picture: some layers of one view."""

    image: Image
    view: View
    layers: frozenset[str]


class Features:
    """Layers of pictures: from the store, else encoded in as few runs as can be.

    Args:
        encoder: The network.
        plan: Its shape.
        identity: Changes with the weights.
        preprocessing: Version of the preparation, of the catalog row.
        settings: Engine, precision and threads.
    """

    def __init__(
        self, encoder: Encoder, plan: Plan, identity: str, preprocessing: str, settings: EngineSettings
    ) -> None:
        self._encoder, self._plan, self._identity = encoder, plan, identity
        self._preprocessing, self._settings = preprocessing, settings

    def of(self, image: Image, view: View, layers: str, ctx: Context) -> tuple[Layers, str]:
        """The layers (names with spaces between) of one picture, and where they were: memory, disk or miss."""
        return self.of_all([Need(image, view, frozenset(layers.split()))], ctx)[0]

    def of_all(self, needs: Sequence[Need], ctx: Context) -> list[tuple[Layers, str]]:
        """The same of many pictures, in order; a picture that occurs twice is encoded once."""
        with ThreadPoolExecutor(self._settings.threads) as pool:  # decoding and hashing leave the interpreter free
            ids = list(pool.map(lambda need: need.image.id, needs))
            kept = [self._kept(identity, need, ctx) for identity, need in zip(ids, needs, strict=True)]
            new = {(ids[i], needs[i].view.tag): needs[i] for i, found in enumerate(kept) if found is None}
            prepared = list(pool.map(lambda need: need.view.prepare(need.image.array), new.values()))
            fresh = dict(zip(new, self._encoded(prepared, ctx), strict=True))
            wanted: dict[tuple[str, str], tuple[Need, set[str]]] = {}
            for identity, need, found in zip(ids, needs, kept, strict=True):
                if found is None:
                    wanted.setdefault((identity, need.view.tag), (need, set()))[1].update(need.layers)

            def keep(place: tuple[str, str]) -> None:
                need, layers = wanted[place]
                for layer in layers:
                    ctx.store.put(self._key(place[0], need.view, layer), {layer: fresh[place][layer]})

            list(pool.map(keep, wanted))  # writing leaves the interpreter free, too
        return [
            found or ({layer: fresh[identity, need.view.tag][layer] for layer in need.layers}, "miss")
            for identity, need, found in zip(ids, needs, kept, strict=True)
        ]

    def stream(self, images: Iterator[Image], view: View, ctx: Context) -> Iterator[np.ndarray]:
        """Patch features of pictures one after the other; none is kept, so that a long video costs no memory."""
        for image in images:
            ctx.check()
            yield self._encoder(view.prepare(image.array)[None])[0]["dense"]

    def _encoded(self, prepared: Sequence[np.ndarray], ctx: Context) -> list[dict[str, np.ndarray]]:
        """The layers of each picture; those of one size run together."""
        found: list[dict[str, np.ndarray]] = [{}] * len(prepared)
        for size in dict.fromkeys(one.shape for one in prepared):
            places = [i for i, one in enumerate(prepared) if one.shape == size]
            tokens = (size[0] // self._plan.patch) * (size[1] // self._plan.patch)
            step = max(1, _TOKENS // max(1, tokens))
            for start in range(0, len(places), step):
                ctx.check()
                batch = places[start : start + step]
                for place, layers in zip(batch, self._encoder(np.stack([prepared[i] for i in batch])), strict=True):
                    found[place] = layers
        return found

    def _kept(self, identity: str, need: Need, ctx: Context) -> tuple[Layers, str] | None:
        """The layers and where they were kept, ``memory`` or ``disk``; None when one is missing."""
        arrays: dict[str, np.ndarray] = {}
        where = "memory"
        for layer in sorted(need.layers):
            found, hit = ctx.store.find(self._key(identity, need.view, layer))
            if found is None:
                return None
            arrays |= found
            where = "disk" if hit == "disk" else where
        return arrays, where

    def _key(self, identity: str, view: View, layer: str) -> Key:
        block = self._plan.taps.dense if layer == "dense" else self._plan.taps.vector
        return Key(
            identity,
            self._identity,
            "-".join(part for part in ("dino", self._preprocessing, view.tag) if part),
            f"{layer}-{block}",
            self._settings.engine,
            self._settings.precision,
        )
