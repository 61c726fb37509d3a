"""What recipes that put a head on an encoder share: freezing, kept features, and the folder that comes of it."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from filelock import FileLock
from torch import Tensor, nn

from manylens.models.adapted import bundle, heads
from manylens.models.adapted.backbone import Backbone
from manylens.models.adapted.bundle import Adapted, Base, Spec
from manylens.models.adapted.encoding import Encoding
from manylens.runtime.store import EmbeddingStore
from manylens.training.balance.names import check_name
from manylens.training.errors import TrainError
from manylens.training.inputs import features
from manylens.training.inputs.features import Features
from manylens.training.inputs.pictures import Pictures
from manylens.training.inputs.views import Views
from manylens.training.recipes.adapting import Adapting
from manylens.training.recipes.base import Given, Recipe, Step
from manylens.training.transfer.freezing import FrozenNorms, Places, drop_path, freeze, merged

_ENCODER = "backbone.encoder."


class Head(nn.Module):
    """The network of a training with a frozen encoder, whose features are kept: only the head."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head


class OnEncoder(Recipe):
    """A recipe that trains a head, and what the config says of the encoder.

    Attributes:
        backbone: The encoder.
        head: On it.
        side: Of the squares that it is shown.
        labels: Names of the classes.
        cached: Whether the encoder is frozen and its features are kept.
    """

    architecture: ClassVar[str]
    heads: ClassVar[tuple[str, ...]]
    """Heads that answer the recipe's task, the usual one first."""
    usual_rates: ClassVar[tuple[float, float]] = (2e-3, 1e-3)
    """Learning rate of the head where the encoder is frozen, and where it learns too."""

    def __init__(self, given: Given, labels: Sequence[str]) -> None:
        super().__init__(given)
        self._adapting: Adapting | None = None
        config, trainable = given.config, given.trainable
        self.labels = tuple(labels)
        self.side = self._fitting(config.side or trainable.side or 224)
        self.kind = config.head.kind or self.heads[0]
        check_name("head.kind", self.kind, self.heads)
        self.options = self.head_options()
        for name in self.options:
            check_name(f"head.options of {self.kind!r}", name, heads.options(self.kind))
        self.cached = config.transfer.mode == "frozen" and not self.on_pixels()
        self._before: dict[str, Tensor] = {}
        if not self.cached:  # the encoder may learn, or its norms adapt to a target
            self._before = {name: one.detach().cpu().clone() for name, one in trainable.module.state_dict().items()}
        self.places = Places(trainable)
        self.backbone = Backbone(trainable, needs_of(self.kind, len(self.labels), self.options))
        torch.manual_seed(config.seed)  # the head's first weights, and LoRA's
        self._waits = {f"{_ENCODER}{name}": epoch for name, epoch in freeze(trainable, config.transfer).items()}
        self.head = heads.build(self.kind, self.backbone.widths, len(self.labels), self.options)
        self.network: Any = Head(self.head) if self.cached else Adapted(self.backbone, self.head)
        self._norms = FrozenNorms(self.backbone, config.transfer.batch_norm)
        if config.regularise.drop_path:
            if config.transfer.mode == "frozen":
                raise TrainError(
                    "regularise.drop_path: the encoder is frozen, no block of it is passed over",
                    "leave it out, or choose another transfer.mode",
                )
            drop_path(trainable.blocks, config.regularise.drop_path)
        if self.cached or config.transfer.mode == "frozen":
            self.backbone.eval().requires_grad_(False)

    # ------------------------------------------------------------------ what recipes say

    def head_options(self) -> dict[str, Any]:
        """Options of the head: those of the config, with what the rest of the config asks of it."""
        options = dict(self.config.head.options)
        if self.config.regularise.dropout:
            options.setdefault("dropout", self.config.regularise.dropout)
        return options

    def on_pixels(self) -> bool:
        """Whether something is done to pixels anew each time, so that features cannot be kept."""
        return False

    @abstractmethod
    def details(self) -> dict[str, Any]:
        """What the folder's ``config.json`` says beside the usual."""

    # ------------------------------------------------------------------ what the loop asks

    def before_epoch(self, step: Step) -> None:
        """Frozen batch norms stay as they are; pseudo-labels of the target are drawn."""
        if self._adapting is not None:
            self._adapting.before_epoch(step)
        self._norms.hold()
        if self.config.transfer.mode == "frozen" and not self.cached:
            self.backbone.eval()

    def finish(self) -> None:
        """Adapt to the target what is adapted once the training is over."""
        if self._adapting is not None:
            self._adapting.finish(self.given.say)

    def depth(self, name: str) -> int | None:
        """See :meth:`Recipe.depth`; LoRA's matrices learn at the head's rate."""
        if not name.startswith(_ENCODER) or ".lora_" in name:
            return None
        return self.places.of(name.removeprefix(_ENCODER))

    @property
    def rate(self) -> float:
        """The usual learning rate of the head; from scratch all has it, and an encoder takes smaller steps."""
        mode = self.config.transfer.mode
        return self.usual_rates[mode != "frozen"] / (5 if mode == "scratch" else 1)

    def answer(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """What the network says of a batch: of its ``features``, or of its ``pixels``."""
        if self.cached:
            return self.network.head(batch["features"], (self.side, self.side))
        return self.network(batch["pixels"])

    def save(self, folder: Path) -> None:
        """Write the model's folder."""
        changed = bundle.differing(self._before, merged(self.backbone.encoder)) if self._before else {}
        base = self.given.base
        spec = Spec(
            architecture=self.architecture,
            base=Base(base["id"], base["weights"], base.get("licence", ""), base.get("licence_note", "")),
            side=self.side,
            head=self.kind,
            options=self.options,
            labels=self.labels,
            details={"needs": list(self.backbone.needs), **self.details()},
        )
        bundle.write(folder, spec, self.head.state_dict(), changed)

    # ------------------------------------------------------------------ parts

    def adapt(self) -> None:
        """Adapt to a target as the config says; for recipes that are :class:`.adapting.Adaptable`."""
        recipe: Any = self
        self._adapting = Adapting.of(recipe)
        if self._adapting is not None and self._adapting.helper is not None:
            self.network.helper = self._adapting.helper  # learns too, and is not saved with the model

    def with_target(self, found: dict[str, Tensor], embedded: Tensor, step: Step) -> dict[str, Tensor]:
        """Losses with what the target adds, where there is one; see :meth:`.adapting.Adapting.added`."""
        return found if self._adapting is None else self._adapting.added(found, embedded, step)

    def features(self, pictures: Pictures, views: Views | None = None) -> Features:
        """The kept features of pictures, encoded where they are not kept yet."""
        given = self.given
        found = Features(self._encoding, given.base["weights"], pictures, self._kept, views)
        given.cache.mkdir(parents=True, exist_ok=True)
        with FileLock(given.cache / "encoding.lock"):  # of several processes one encodes, and the others find it
            found.prepare(given.progress)
        encoding_now = f"{found.encoded} encoded, {found.found} found" if found.encoded else f"{found.found} found"
        given.say(
            f"features of {len(pictures)} pictures, {found.views} view(s) each: {encoding_now} ({given.settings.label})"
        )
        return found

    @cached_property
    def _encoding(self) -> Encoding:
        return Encoding(self.backbone, self.side, self.given.settings, self.given.base["weights"])

    @cached_property
    def _kept(self) -> EmbeddingStore:
        return features.store(self.given.cache)

    def _fitting(self, side: int) -> int:
        patch = self.given.trainable.patch or 1
        fitting = max(patch, round(side / patch) * patch)
        if self.config.side and fitting != side:
            self.given.say(f"side {side} becomes {fitting}, whole patches of {patch} pixels")
        return fitting


def needs_of(kind: str, labels: int, options: Mapping[str, Any]) -> tuple[str, ...]:
    """The features that a head wants, which it says itself: one of any width is made for a moment."""
    widths: defaultdict[str, int] = defaultdict(lambda: 48)
    with torch.random.fork_rng(devices=[]):
        made: Any = heads.build(kind, widths, labels, options)
    return tuple(made.needs)
