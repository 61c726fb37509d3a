"""The one config of a training: validated, as YAML or JSON, with ``--set a.b=c``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from manylens.training.errors import TrainError
from manylens.training.recipes import usual_batch
from manylens.training.values import keys, nearest, with_changes

Share = Field(ge=0, le=1)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class DataSection(_Section):
    """Which pictures: what ``manylens dataset`` reads, and which of them are for what.

    Attributes:
        source: Labelled data: our own folder, COCO JSON, class folders, mask PNGs, CSV.
        images: Folder that the data's file names are relative to.
        format: Of the data; recognised by default.
        train: The split to learn from.
        val: The split to judge by after each epoch.
        holdout: Share of the training records that is held out for validation where no split of that name is there.
        stratify: Column whose classes every split shall hold alike: ``label``, ``annotations`` (the categories of a
            picture's instances), any column; by default what fits the task. Empty for none.
        group: Column of what must not be parted, such as ``patient``.
        target: Pictures without labels of the place where the model shall work, for domain adaptation.
        target_format: Of the target; ``folders`` takes a folder of pictures.
        check: Whether the data is looked over before the training.
        strict: Whether what the check warns of is an error.
        allow: Kinds of findings that would stop the training and that you take for warnings, such as ``one-example``.
    """

    source: str = ""
    images: str | None = None
    format: str | None = None
    train: str = "train"
    val: str = "val"
    holdout: float = Field(default=0.2, ge=0, lt=1)
    stratify: str | None = None
    group: str | None = None
    target: str | None = None
    target_format: str | None = "folders"
    check: bool = True
    strict: bool = False
    allow: tuple[str, ...] = ()


class HeadSection(_Section):
    """What is put on the encoder.

    Attributes:
        kind: ``linear``, ``mlp``, ``attentive`` for a picture; ``linear-mask``, ``upernet``, ``eomt`` for masks; and
            so on; by default the plainest for the task.
        options: Of that head, such as ``hidden``.
    """

    kind: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class LoraSection(_Section):
    """Low-rank adaptation (Hu et al., 2022).

    Attributes:
        rank: Of the matrices.
        alpha: The update is scaled by alpha / rank.
        dropout: Of what goes into the matrices.
        targets: Suffixes of the layers; by default those that the family names.
    """

    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ()


class TransferSection(_Section):
    """How much of the base model learns.

    Attributes:
        mode: ``frozen`` (only the head), ``partial`` (the last blocks too, see ``train_blocks``), ``gradual`` (block by
            block from the last, see ``unfreeze_every``), ``lora``, ``full``; ``scratch`` is as ``full`` from new
            weights, so that it tells what those of the base are worth.
        train_blocks: How many of the encoder's last blocks learn in mode ``partial``.
        unfreeze_every: Epochs between one block's start and the next one's in mode ``gradual`` (Howard & Ruder, 2018).
        unfreeze_from: The epoch in which the last block starts.
        layer_decay: Each block learns at this share of the rate of the block after it (Clark et al., 2020).
        encoder_rate: Share of the head's rate at which the encoder learns; from scratch it learns at the full rate.
        lora: Of mode ``lora``.
        batch_norm: Of frozen layers: ``frozen`` keeps their statistics, ``train`` lets them follow the data. Layers
            that learn always follow it; ``sync`` is as ``train``, over all devices.
    """

    mode: Literal["frozen", "partial", "gradual", "lora", "full", "scratch"] = "frozen"
    train_blocks: int = Field(default=2, ge=1)
    unfreeze_every: int = Field(default=1, ge=1)
    unfreeze_from: int = Field(default=1, ge=0)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    encoder_rate: float = Field(default=0.1, gt=0)
    lora: LoraSection = LoraSection()
    batch_norm: Literal["frozen", "train", "sync"] = "frozen"


class OptimiserSection(_Section):
    """How weights step.

    Attributes:
        kind: ``adamw`` or ``sgd`` (with momentum).
        lr: Learning rate of the head at the peak of the schedule; by default what fits recipe and mode.
        weight_decay: None of it on norms and biases.
        momentum: Of ``sgd``; the first beta of ``adamw``.
        clip: Largest norm of the gradient; 0 for no limit.
        accumulate: Batches whose gradients make one step.
    """

    kind: Literal["adamw", "sgd"] = "adamw"
    lr: float | None = Field(default=None, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    clip: float = Field(default=1.0, ge=0)
    accumulate: int = Field(default=1, ge=1)


class ScheduleSection(_Section):
    """How the learning rate goes.

    Attributes:
        kind: ``cosine``, ``constant``, ``step``, ``multistep``, ``onecycle``, ``plateau``, ``cyclic`` (cosine
            with restarts).
        warmup: Share of the training in which the rate rises linearly.
        floor: The last rate as a share of the first (cosine, cyclic).
        factor: What the rate is multiplied with (step, multistep, plateau).
        every: Epochs between steps (step).
        milestones: Epochs of the steps (multistep).
        patience: Epochs without progress before the rate falls (plateau).
        cycles: How many (cyclic).
    """

    kind: Literal["cosine", "constant", "step", "multistep", "onecycle", "plateau", "cyclic"] = "cosine"
    warmup: float = Field(default=0.05, ge=0, lt=1)
    floor: float = Field(default=0.0, ge=0, lt=1)
    factor: float = Field(default=0.1, gt=0, lt=1)
    every: int = Field(default=10, ge=1)
    milestones: tuple[int, ...] = ()
    patience: int = Field(default=3, ge=0)
    cycles: int = Field(default=1, ge=1)


class RegulariseSection(_Section):
    """What keeps a network from learning its pictures by heart.

    Attributes:
        dropout: In the head.
        drop_path: Share of the encoder's blocks passed over at random, rising to this at the last (Huang et al., 2016).
        label_smoothing: Share of a label that is spread over all classes.
        mixup: Alpha of mixup (Zhang et al., 2018); 0 for none.
        cutmix: Alpha of cutmix (Yun et al., 2019); 0 for none; on pixels only.
        ema: Decay of the moving average of weights that is judged and kept; 0 for none.
    """

    dropout: float = Field(default=0.0, ge=0, lt=1)
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)
    ema: float = Field(default=0.0, ge=0, lt=1)


class AugmentSection(_Section):
    """How pictures are changed before they are shown.

    Attributes:
        policy: ``none``, ``flip``, ``light``, ``rand`` (RandAugment, Cubuk et al., 2020).
        strength: 0..1.
        views: How many fixed views of each picture are encoded and kept where the encoder is frozen; the first is the
            picture as it is.
        rare: How much stronger, at most, the changes are for the rarest class: 2 is twice the strength.
        copy_paste: Share of pictures that get instances of others pasted in (Ghiasi et al., 2021).
        options: Of the recipe's own augmentation.
    """

    policy: Literal["none", "flip", "light", "rand"] = "none"
    strength: float = Field(default=0.5, ge=0, le=1)
    views: int = Field(default=4, ge=1)
    rare: float = Field(default=1.0, ge=1)
    copy_paste: float = Field(default=0.0, ge=0, le=1)
    options: dict[str, Any] = Field(default_factory=dict)


class ImbalanceSection(_Section):
    """What is done where some classes are rare.

    Attributes:
        loss: ``cross_entropy``, ``weighted``, ``focal``, ``class_balanced``, ``ldam``, ``logit_adjusted``,
            ``post_hoc``.
        loss_options: Of it, such as ``gamma``.
        sampling: ``shuffle``, ``balanced``, ``square_root``, ``repeat_factor``, ``oversample``, ``undersample``.
        sampling_options: Of it.
        synthetic: ``smote`` and its kin, on the features of a frozen encoder; empty for none.
        synthetic_neighbours: Between how many nearest examples of a class new ones are made.
    """

    loss: str = "cross_entropy"
    loss_options: dict[str, Any] = Field(default_factory=dict)
    sampling: str = "shuffle"
    sampling_options: dict[str, Any] = Field(default_factory=dict)
    synthetic: str = ""
    synthetic_neighbours: int = Field(default=5, ge=1)


class DomainSection(_Section):
    """Adapting to ``data.target``, whose pictures have no labels.

    Attributes:
        kind: ``coral``, ``dann`` and ``self-training`` while it trains, ``adabn`` and ``tent`` (test-time adaptation)
            once it is over; empty for none.
        weight: Of its loss beside the task's.
        confidence: From which a pseudo-label counts.
    """

    kind: Literal["", "adabn", "coral", "dann", "self-training", "tent"] = ""
    weight: float = Field(default=1.0, gt=0)
    confidence: float = Field(default=0.9, gt=0, lt=1)


class EnsembleSection(_Section):
    """Several trainings made one model; see :mod:`manylens.training.ensembling`.

    Attributes:
        kind: ``folds`` (each holds another part of the data out), ``snapshots`` (of one training whose rate falls and
            rises again), ``vote`` (other seeds), all of which vote; ``soup`` and ``greedy-soup`` (other seeds from one
            start), whose weights are averaged; empty for none.
        members: How many.
    """

    kind: Literal["", "folds", "snapshots", "soup", "greedy-soup", "vote"] = ""
    members: int = Field(default=5, ge=2)


class LoopSection(_Section):
    """How long, how much at a time, and where.

    Attributes:
        epochs: Times that all is shown.
        batch_size: Things in one step, over all devices; 0 for what fits the recipe (32 pictures of one class each,
            fewer where each holds many objects).
        patience: Epochs without progress after which the training stops; 0 for never.
        monitor: The figure of validation that tells progress; by default the recipe's own.
        mode: Whether more of it is better; by default as the recipe says.
        precision: ``f32``, ``bf16``, ``f16``.
        device: ``auto``, ``cpu``, ``cuda``.
        devices: How many on each machine.
        nodes: Machines.
        strategy: ``auto``, ``ddp``, ``fsdp``.
        workers: Processes that prepare pictures; by default what the machine has to spare.
    """

    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=0, ge=0)
    patience: int = Field(default=0, ge=0)
    monitor: str | None = None
    mode: Literal["max", "min"] | None = None
    precision: Literal["f32", "bf16", "f16"] = "f32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = Field(default=1, ge=1)
    nodes: int = Field(default=1, ge=1)
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    workers: int = Field(default=0, ge=0)


class RecordSection(_Section):
    """What the run keeps beside the model.

    Attributes:
        card: Whether a model card is written, with figures of the saved model on validation pictures.
        pictures: On how many of them at most.
    """

    card: bool = True
    pictures: int = Field(default=100, ge=0)


class Config(_Section):
    """A whole training.

    Attributes:
        task: ``classify``, ``segment``, ``detect`` or ``embed``.
        recipe: Which way to train for it; by default the task's plainest.
        model: The base model.
        side: Side in pixels of the squares that pictures are resized to, their aspect not kept; by default the model's.
        seed: Of every random step.
        options: Of the recipe itself.
    """

    task: Literal["classify", "segment", "detect", "embed"]
    recipe: str | None = None
    model: str = "manylens/vit-s"
    side: int | None = Field(default=None, ge=16)
    seed: int = Field(default=0, ge=0)
    data: DataSection = DataSection()
    head: HeadSection = HeadSection()
    transfer: TransferSection = TransferSection()
    optimiser: OptimiserSection = OptimiserSection()
    schedule: ScheduleSection = ScheduleSection()
    regularise: RegulariseSection = RegulariseSection()
    augment: AugmentSection = AugmentSection()
    imbalance: ImbalanceSection = ImbalanceSection()
    domain: DomainSection = DomainSection()
    ensemble: EnsembleSection = EnsembleSection()
    loop: LoopSection = LoopSection()
    record: RecordSection = RecordSection()
    options: dict[str, Any] = Field(default_factory=dict)
    search: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Config:
        """Validate nested values, and fill in what hangs on the recipe.

        Raises:
            TrainError: A key does not exist (the nearest one is named), or a value does not fit; one line.
        """
        try:
            made = cls.model_validate(values)
        except ValidationError as error:
            raise _said(error) from None
        if made.loop.batch_size:
            return made
        loop = made.loop.model_copy(update={"batch_size": usual_batch(made.task, made.recipe)})
        return made.model_copy(update={"loop": loop})

    def changed(self, changes: Mapping[str, Any]) -> Config:
        """A copy with values by dotted key, such as ``{"optimiser.lr": 1e-3}``."""
        return Config.of(with_changes(self.model_dump(mode="json"), changes))

    def to_json(self) -> dict[str, Any]:
        """All values, those of defaults too."""
        return self.model_dump(mode="json")


def _said(error: ValidationError) -> TrainError:
    """The first mistake, and how many more there are, in one line."""
    first, *others = error.errors()
    more = f" (and {len(others)} more mistake{'s' if len(others) > 1 else ''})" if others else ""
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = nearest(key, keys(Config))
        return TrainError(
            f"config {key!r}: there is no such key{more}", f"did you mean {near}?" if near else "see docs/train.md"
        )
    if first["type"] == "missing":
        return TrainError(f"config {key!r}: is missing{more}", f"give it, as in --set {key}=...")
    reason = first["msg"][0].lower() + first["msg"][1:]
    return TrainError(f"config {key!r}: {first.get('input')!r} does not fit{more}", reason)
