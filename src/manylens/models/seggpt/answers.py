"""What SegGPT keeps in the embedding store: tokens of planes, and painted answers.

Kept exactly, and no more: the patch embedding of every example picture, painted mask and asked picture, which is all
that depends on one of them alone, and the painted colours of a picture with given examples. A second question with the
same examples starts from their tokens; the same question again runs nothing, also in a new process.

The tokens save little: of the about 1,600 GFLOP of a ViT-L with one example they are 2.5. The first layer's queries,
keys and values of the example would be 10 more, and are the last that can be kept: in that layer's attention the
example looks at the asked picture. To keep more would mean another result, so it is not offered.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from manylens.media import Image
from manylens.media.identity import content_id
from manylens.models.seggpt import colours
from manylens.models.seggpt.networks import Networks
from manylens.models.seggpt.passes import Pass
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.runtime.store import Arrays, Hit, Key

Tokens = tuple[np.ndarray, np.ndarray]
"""Of example pictures and of their painted masks, float32 ``(N, n, D)`` each."""


class Answers:
    """The networks behind the store.

    Args:
        networks: They run where something is not kept.
        settings: What they run on.
        weights: Hash of the weights.
        preprocessing: Version of the preparation of pictures.
    """

    def __init__(self, networks: Networks, settings: EngineSettings, weights: str, preprocessing: str) -> None:
        self.networks = networks
        self._settings, self._weights = settings, weights
        self._preprocessing = f"seggpt-{preprocessing}-{content_id('processor', [repr(networks.processor)])[:8]}"

    def likeness(self, image: Image, run: Pass, ctx: Context) -> tuple[np.ndarray, Hit]:
        """How like the classes of a pass each pixel of a picture is, and where the answer was kept.

        Returns:
            float32 ``(classes, h, w)`` at the network's size, as :func:`colours.likeness`; and ``memory``, ``disk`` or
            None where the network ran.
        """
        planes = self.planes(run)
        examples = [
            part for prompt, plane in zip(run.prompts, planes, strict=True) for part in (prompt.image.id, plane)
        ]

        def compute() -> Arrays:
            pictures, masks = self.tokens(run, planes, ctx)
            query = self.of_image(image, ctx)
            ctx.check()
            return {"colours": self.networks.paint(pictures, masks, query)}

        found, hit = self._kept(content_id("seggpt", [image.id, *examples]), "colours", compute, ctx)
        return colours.likeness(found["colours"], len(run.classes)), hit

    def planes(self, run: Pass) -> list[np.ndarray]:
        """The painted masks of a pass, uint8 ``(h, w, 3)``, in the order of its prompts."""
        return [colours.painted(prompt, len(run.classes), self.networks.size) for prompt in run.prompts]

    def tokens(self, run: Pass, planes: list[np.ndarray], ctx: Context) -> Tokens:
        """The tokens of a pass's examples; see :meth:`planes`."""
        pictures = [self.of_image(prompt.image, ctx) for prompt in run.prompts]
        return np.stack(pictures), np.stack([self._of_plane(plane, ctx) for plane in planes])

    def of_image(self, image: Image, ctx: Context) -> np.ndarray:
        """The tokens of a picture, float32 ``(n, D)``, kept."""
        return self._tokens(image.id, lambda: self.networks.processor.pixels(image.array), ctx)

    def _of_plane(self, plane: np.ndarray, ctx: Context) -> np.ndarray:
        return self._tokens(content_id("painted", [plane]), lambda: plane, ctx)

    def _tokens(self, identity: str, plane: Callable[[], np.ndarray], ctx: Context) -> np.ndarray:
        found, _ = self._kept(identity, "patches", lambda: {"tokens": self.networks.tokens([plane()])[0]}, ctx)
        return found["tokens"]

    def _kept(self, identity: str, layer: str, compute: Callable[[], Arrays], ctx: Context) -> tuple[Arrays, Hit]:
        key = Key(
            pixels=identity,
            weights=self._weights,
            preprocessing=self._preprocessing,
            layer=f"seggpt-{layer}-1",
            engine=self._settings.engine,
            precision=self._settings.precision,
        )
        return ctx.store.get_or_compute(key, compute, check=ctx.check)
