"""CLIP and SigLIP: vectors of pictures and words in one space, and what follows from their cosines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.media import Image
from manylens.media.identity import content_id
from manylens.models import checkpoint
from manylens.models.base import Model, Trainable
from manylens.models.clip.text import Tokens, template
from manylens.models.clip.towers import Towers
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.runtime.store import Key
from manylens.tasks import Classification, ClassifyRequest, Embedding, EmbedRequest, Label, Match, MatchRequest, Request

if TYPE_CHECKING:
    from manylens.catalog import Row

_WORKED_OUT = "miss"


class Clip(Model):
    """Embeds pictures and texts, classifies with names, and matches pictures with texts or with each other.

    Vectors are kept in the embedding store, those of names too: a second set of pictures with the same names runs the
    picture tower only. Probabilities over names are the softmax of the checkpoint's own logits; for SigLIP, which was
    trained on each pair for itself, ``match`` gives that pair's probability.
    """

    batch_size = 8

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        super().__init__(row, files, settings)
        self._hash = checkpoint.weights_id(row, files)
        self._towers = Towers(files, row.id, settings, self._hash)
        self._tokens = Tokens(files, row.id)

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Any]:
        """Serve ``embed``, ``classify`` and ``match``; the pictures and the texts of a batch run together."""
        for start in range(0, len(requests), self.batch_size):
            ctx.check()
            batch = requests[start : start + self.batch_size]
            pictures = {image.id: image for request in batch for image in _pictures(request)}
            vectors, kept = self._images(pictures, ctx)
            words = list(dict.fromkeys(text for request in batch for text in self._words(request)))
            texts = dict(zip(words, self._texts(words, ctx), strict=True)) if words else {}
            for request in batch:
                ctx.notes["cache"] = kept
                yield self._result(request, vectors, texts)

    def trainable(self) -> Trainable:
        """Both towers as one torch module; ``forward`` gives the pictures' vectors.

        Raises:
            UnsupportedError: NaFlex takes pictures of any shape, which training here does not.
        """
        import torch

        if self._towers.flexible:
            return super().trainable()
        model = checkpoint.load(type(self._towers.module), self.files, self.row.id).requires_grad_(True)
        vision = model.vision_model

        def forward(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
            found = model.get_image_features(pixel_values=pixels)
            vector = getattr(found, "pooler_output", found)
            states = vision(pixel_values=pixels).last_hidden_state
            prefix = 1 if self._towers.kind == "clip" else 0
            rows = pixels.shape[-2] // vision.config.patch_size
            dense = states[:, prefix:].unflatten(1, (rows, -1))
            return {"image": torch.nn.functional.normalize(vector, dim=-1), "vector": vector, "dense": dense}

        return Trainable(
            model,
            {"encoder": vision, "text_tower": model.text_model},
            list(vision.encoder.layers),
            ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
            self._towers.preprocess,
            forward,
            {f"block.{i}": block for i, block in enumerate(vision.encoder.layers)},
            patch=vision.config.patch_size,
            prefix=1 if self._towers.kind == "clip" else 0,
            mean=self._towers.processor.levels[0],
            std=self._towers.processor.levels[1],
            side=self._towers.processor.fixed(self.row.id)[0],
        )

    def probe(self) -> Callable[[], np.ndarray]:
        """See :meth:`manylens.models.base.Model.probe`; gives the vectors of one batch of pictures."""
        noise = np.random.default_rng(0).integers(0, 256, (self.batch_size, 240, 320, 3), dtype=np.uint8)
        images = [Image.of(one) for one in noise]
        return lambda: self._towers.images(images)

    def close(self) -> None:
        """Give the networks' memory back."""
        self._towers.close()

    def _words(self, request: Request) -> list[str]:
        match request:
            case ClassifyRequest(names=tuple() as names):
                return [template(self._towers.kind).format(name) for name in names]
            case EmbedRequest(text=str() as text) | MatchRequest(text=str() as text):
                return [text]
        return []

    def _result(self, request: Request, vectors: Mapping[str, np.ndarray], texts: Mapping[str, np.ndarray]) -> Any:
        words = self._words(request)
        if isinstance(request, EmbedRequest):
            vector = texts[words[0]] if words else vectors[request.image.id]  # type: ignore[union-attr]
            return Embedding(vector=vector, space=f"clip-{self._hash}")
        assert isinstance(request, ClassifyRequest | MatchRequest)
        image = vectors[request.image.id]
        if isinstance(request, MatchRequest):
            if request.other is not None:
                return Match(float(image @ vectors[request.other.id]))
            cosine = float(image @ texts[words[0]])
            if self._towers.kind == "clip":
                return Match(cosine)
            scale, bias = self._towers.scale
            return Match(float(1 / (1 + np.exp(-(scale * cosine + bias)))), "probability")
        logits = self._towers.scale[0] * np.array([image @ texts[word] for word in words], np.float64)
        chances = np.exp(logits - logits.max())
        chances /= chances.sum()
        best = np.argsort(-chances, kind="stable")[: request.top]
        assert request.names is not None
        return Classification(tuple(Label(request.names[i], float(chances[i])) for i in best))

    def _images(self, pictures: Mapping[str, Image], ctx: Context) -> tuple[dict[str, np.ndarray], str]:
        return self._kept(pictures, "image", lambda new: self._towers.images([pictures[key] for key in new]), ctx)

    def _texts(self, words: Sequence[str], ctx: Context) -> list[np.ndarray]:
        ids = {content_id("text", [text]): text for text in words}

        def encode(new: Sequence[str]) -> np.ndarray:
            return self._towers.texts(self._tokens([ids[key] for key in new]))

        found, _ = self._kept(ids, "text", encode, ctx)
        return [found[key] for key in ids]

    def _kept(
        self, wanted: Mapping[str, Any], layer: str, encode: Callable[[Sequence[str]], np.ndarray], ctx: Context
    ) -> tuple[dict[str, np.ndarray], str]:
        """Unit vectors by content id, from the store or made now; and where the farthest one came from."""
        found: dict[str, np.ndarray] = {}
        where = "memory"
        for key in wanted:
            arrays, hit = ctx.store.find(self._key(key, layer))
            if arrays is not None:
                found[key] = arrays["vector"]
                where = "disk" if hit == "disk" else where
        new = [key for key in wanted if key not in found]
        for start in range(0, len(new), self.batch_size):
            ctx.check()
            some = new[start : start + self.batch_size]
            for key, vector in zip(some, encode(some), strict=True):
                unit = (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)
                found[key] = ctx.store.put(self._key(key, layer), {"vector": unit})["vector"]
        return found, _WORKED_OUT if new else where

    def _key(self, content: str, layer: str) -> Key:
        settings, version = self.settings, f"clip-{self.row.preprocessing}"
        return Key(content, self._hash, version, layer, settings.engine, settings.precision)


def _pictures(request: Request) -> list[Image]:
    return request.pictures()
