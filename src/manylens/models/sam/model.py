"""SAM (Kirillov et al., "Segment Anything", 2023): encode a picture once, then ask as often as you like."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.media import Image
from manylens.models import checkpoint, network
from manylens.models.base import Model, Trainable
from manylens.models.network import Blueprint, Network
from manylens.models.promptable.answer import detections_of
from manylens.models.promptable.decoder import Scene
from manylens.models.promptable.prompts import Canvas, batches
from manylens.models.sam import grid_decoder, halves, picture_graphs, spec
from manylens.models.sam.decoder import EMBEDDING, SamDecoder, whole
from manylens.models.sam.grid_decoder import SamGridDecoder
from manylens.models.sam.halves import Halves
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.runtime.store import Key
from manylens.tasks import Request, SegmentRequest

if TYPE_CHECKING:
    import torch
    from supervision import Detections
    from transformers import SamModel

    from manylens.catalog import Row

_MOST_PROMPTS = 8
"""Objects of one run of the decoder: what it holds between its steps grows with them."""


class Sam(Model):
    """Serves ``segment``: clicks, boxes, coarse masks, several objects at once, and everything.

    The networks load when they are first needed: a picture whose embedding is kept needs no encoder, and where the
    compiled forms are kept the weights are not read at all.
    """

    batch_size = 8

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        super().__init__(row, files, settings)
        self.vision = spec.read(files, row.id)
        self._weights = checkpoint.weights_id(row, files)
        self._lock = threading.RLock()
        self._making: dict[str, threading.RLock] = {}
        self._networks: dict[str, Network] = {}
        self._source: SamModel | None = None
        self._tables: dict[str, np.ndarray] | None = None
        self._halved = settings.engine == "openvino" and spec.has_plain_decoder(files, row.id)
        self._answers: Halves | None = None

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Detections]:
        """Yield the masks of each request; pictures that are not kept are encoded together where a GPU does it."""
        together = self.batch_size if self.settings.device != "cpu" else 1
        for start in range(0, len(requests), together):
            asked = [request for request in requests[start : start + together] if isinstance(request, SegmentRequest)]
            fresh = self._encoded_together([request.image for request in asked], ctx) if together > 1 else {}
            for request in asked:
                ctx.check()
                with self._decoder_loading() if request.mode != "everything" else nullcontext():
                    scene, ctx.notes["cache"] = self.scene(request.image, ctx, fresh)
                    ctx.check()
                    found = self._answer(request, scene, ctx)
                yield found

    def scene(self, image: Image, ctx: Context, fresh: Mapping[str, np.ndarray] | None = None) -> tuple[Scene, str]:
        """What the decoder needs of a picture, and where it was found: ``memory``, ``disk`` or ``miss``.

        Args:
            image: The picture.
            ctx: Its store keeps embeddings.
            fresh: Embeddings ``(1, G, G, C)`` that are not kept yet, by the picture's id.
        """

        def encode() -> dict[str, np.ndarray]:
            found = (fresh or {}).get(image.id)
            return {EMBEDDING: self.embeddings([image])[0] if found is None else found}

        arrays, hit = ctx.store.get_or_compute(self._key(image.id, EMBEDDING), encode, check=ctx.check)
        return arrays, hit or "miss"

    def embeddings(self, images: Sequence[Image]) -> list[np.ndarray]:
        """Encode pictures: float32 ``(1, G, G, C)`` each."""
        pictures = np.stack([self.vision.picture(image.array) for image in images])
        inner = np.array([self.vision.canvas(image.size).inner[::-1] for image in images], np.int64)
        encoder = self._network("encoder")
        # OpenVINO's graph is for one picture: a processor gains nothing from more.
        step = 1 if self.settings.engine == "openvino" else len(images)
        found = [encoder(pictures[i : i + step], inner[i : i + step])[0] for i in range(0, len(images), step)]
        return [np.ascontiguousarray(one[None]) for part in found for one in part]

    def decoder(self, ctx: Context) -> SamDecoder:
        """The mask decoder."""
        answers = self._halves(ctx) if self._halved else None
        tables = answers.weights if answers is not None else self._kept_tables(ctx)
        answered = answers or whole(self._network)
        return SamGridDecoder(self.vision.side, self.vision.low_res, tables, answered, self._network)

    def trainable(self) -> Trainable:
        """The whole network as a torch module; see :class:`manylens.models.base.Trainable`."""
        from manylens.models.sam import training

        return training.trainable(self._load(), self.vision)

    def probe(self) -> Callable[[], np.ndarray]:
        """See :meth:`manylens.models.base.Model.probe`; gives the embedding of one picture."""
        side = self.vision.side
        picture = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
        encoder = self._network("encoder")
        return lambda: encoder(picture, np.array([[side, side]], np.int64))[0]

    def close(self) -> None:
        """Give the networks' memory back."""
        with self._lock:
            for part in self._networks.values():
                part.close()
            self._networks, self._source, self._answers, self._tables = {}, None, None, None

    def _answer(self, request: SegmentRequest, scene: Scene, ctx: Context) -> Detections:
        canvas, decoder = self.vision.canvas(request.image.size), self.decoder(ctx)
        if request.mode == "everything":
            return _everything(decoder, scene, canvas, request, ctx)
        found = []
        for batch in batches(request.prompts(), canvas, decoder.low_res, request.previous):
            for part in batch.parts(_MOST_PROMPTS):
                ctx.check()
                found.append((part, decoder(scene, part.points, part.labels, part.masks)))
        return detections_of(found, canvas, decoder.threshold, request.threshold)

    def _kept_tables(self, ctx: Context) -> Mapping[str, np.ndarray]:
        """The decoder's small arrays: of prompts, and where it is in two halves those of its tokens' half."""

        def tables() -> dict[str, np.ndarray]:
            with self._lock:
                if self._tables is None:
                    self._loaded()
                    self._release()
                assert self._tables is not None
                return self._tables

        layer = "decoder-tables" if self._halved else "prompt-tables"
        return ctx.store.get_or_compute(self._key("", layer), tables, check=ctx.check)[0]

    def _halves(self, ctx: Context) -> Halves:
        found = self._answers
        if found is None:
            found = self._answers = Halves(self._kept_tables(ctx), self._network, self.settings.precision)
        return found

    @contextmanager
    def _decoder_loading(self) -> Iterator[None]:
        """In a thread of its own, the decoder's networks are made: a picture that is known is soon found."""
        if not self._halved or picture_graphs.DRAW in self._networks:
            yield
            return

        def load() -> None:
            with suppress(Exception):  # whoever asks next meets it in its own thread
                for name in picture_graphs.NAMES:
                    self._network(name)

        thread = threading.Thread(target=load, name="manylens-sam-decoder")
        thread.start()
        try:
            yield
        finally:
            thread.join()

    def _encoded_together(self, images: Sequence[Image], ctx: Context) -> dict[str, np.ndarray]:
        """The embeddings of the pictures that are not kept, by id, from one run of the encoder."""
        new = {image.id: image for image in images}
        new = {one: image for one, image in new.items() if ctx.store.find(self._key(one, EMBEDDING))[0] is None}
        return dict(zip(new, self.embeddings(list(new.values())), strict=True)) if new else {}

    def _key(self, identity: str, layer: str) -> Key:
        settings, colours = self.settings, f"{self.vision.mean}-{self.vision.deviation}"
        version = f"sam-channels-last-{self.row.preprocessing}-{colours}"
        return Key(identity, self._weights, version, layer, settings.engine, settings.precision)

    def _network(self, name: str) -> Network:
        with self._lock:
            # On a device networks are moved there with their part of the source, so one after the other.
            making = self._making.setdefault(name, threading.RLock()) if self._halved else self._lock
        with making:
            found = self._networks.get(name)
            if found is None:
                found = network.build(self._blueprint(name), self.settings, f"{self._weights} {self.vision}")
                with self._lock:
                    self._networks[name] = found
                self._release()
            return found

    def _blueprint(self, name: str) -> Blueprint:
        if name in (grid_decoder.SHARED, grid_decoder.DECODER):
            return grid_decoder.blueprint(name, self.vision.grid, self.vision.channels, self._loaded)
        if name in halves.NAMES:
            return halves.blueprint(name, self.vision.low_res, self.settings.precision, self._loaded)
        return self._encoder_blueprint() if name == "encoder" else self._decoder_blueprint(name)

    def _encoder_blueprint(self) -> Blueprint:
        side = self.vision.side

        def module() -> torch.nn.Module:
            from manylens.models.sam.module import Encoder

            return Encoder(self._loaded(), self.vision.mean, self.vision.deviation)

        def graph() -> Any:
            from manylens.models.sam.graph import build

            state = self._loaded().vision_encoder.state_dict()
            return build(self.vision, {name: tensor.numpy() for name, tensor in state.items()})

        def example() -> list[torch.Tensor]:
            import torch

            return [torch.zeros((1, side, side, 3), dtype=torch.uint8), torch.tensor([[side, side]])]

        return Blueprint("sam-encoder", module, example, ("picture", "inner"), (EMBEDDING,), graph=graph, changes=3)

    def _decoder_blueprint(self, name: str) -> Blueprint:
        grid, channels, low_res = self.vision.grid, self.vision.channels, self.vision.low_res
        masked = name == "masked-decoder"

        def module() -> torch.nn.Module:
            from manylens.models.sam.module import Decoder

            return Decoder(self._loaded(), masked)

        def example() -> list[torch.Tensor]:
            import torch

            given = [torch.zeros(1, grid, grid, channels), torch.zeros(2, 7, channels)]
            return [*given, torch.zeros(2, 1, low_res, low_res)] if masked else given

        shapes = {
            EMBEDDING: (1, grid, grid, channels),
            "tokens": (-1, -1, channels),
            "masks": (-1, 1, low_res, low_res),
        }
        inputs = (EMBEDDING, "tokens", *(("masks",) if masked else ()))
        return Blueprint(f"sam-{name}", module, example, inputs, ("low_res", "iou"), shapes, changes=2)

    def _loaded(self) -> SamModel:
        """The checkpoint's module; of its encoder no more than what :meth:`_release` leaves."""
        with self._lock:
            if self._source is None:
                from manylens.models.sam.module import prompt_tables, token_weights

                self._source = self._load()
                self._tables = prompt_tables(self._source) | (token_weights(self._source) if self._halved else {})
            return self._source

    def _load(self) -> SamModel:
        from transformers import SamModel

        # Eager attention holds the scores of all tokens; the other one does not.
        return checkpoint.load(SamModel, self.files, self.row.id, attn_implementation="sdpa")

    def _release(self) -> None:
        """Let go of what no network will be made of any more."""
        with self._lock:
            if not self.settings.device.startswith("cpu"):
                self._source = None  # its parts moved to the device with the network that was made of them
            elif self._source is not None and "encoder" in self._networks:
                # The encoder, nearly all of the weights. The decoders are made of the rest when they are asked.
                kept = {name: part for name, part in self._source._modules.items() if name != "vision_encoder"}
                self._source._modules = kept  # not taken out: another thread may be going through them


def _everything(decoder: SamDecoder, scene: Scene, canvas: Canvas, request: SegmentRequest, ctx: Context) -> Detections:
    from manylens.models.promptable import everything

    return everything.generate(decoder, scene, canvas, everything.Everything.of(request), ctx.check)
