"""An ensemble of adapted models: one model whose members vote, each with its weight.

A vote is the weighted mean of the members' probabilities; of segmenters, of each cell of their maps. What members find
as objects is fused (:mod:`manylens.models.adapted.finders`). Members that left the encoder as it was share it: it runs
once, whatever their number.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from manylens.errors import OutputError, UnsupportedError, WeightsError
from manylens.models import checkpoint
from manylens.models.adapted.backbone import Backbone
from manylens.models.adapted.bundle import WEIGHTS, Adapted, Spec, assemble
from manylens.models.adapted.classifier import AdaptedClassifier
from manylens.models.adapted.dense import AdaptedSegmenter
from manylens.models.adapted.model import AdaptedModel
from manylens.models.base import Trainable

if TYPE_CHECKING:
    from manylens.catalog import Row
    from manylens.runtime.engines import EngineSettings

MEMBERS = "members"
"""The folder of the members, and the key of ``details`` in the config that names them with their shares."""

ARCHITECTURES: Mapping[str, str] = {
    "AdaptedClassifier": "AdaptedEnsemble",
    "AdaptedSegmenter": "AdaptedSegmenterEnsemble",
    "AdaptedMasks": "AdaptedMasksEnsemble",
    "AdaptedDetector": "AdaptedDetectorEnsemble",
}
"""What an ensemble of models of an architecture is called."""

FINDERS = ("AdaptedMasks", "AdaptedDetector")
"""Architectures whose models find objects, which are fused; those of the others vote."""

_ENCODER = "encoder."


@dataclass(frozen=True)
class Member:
    """A member as it lies on disk.

    Attributes:
        name: Of it.
        share: Of the vote; those of all members sum to 1.
        spec: What it is.
        files: Its own.
    """

    name: str
    share: float
    spec: Spec
    files: Mapping[str, Path]

    @classmethod
    def of(cls, folder: Path, name: str, share: float) -> Member:
        """Of a folder that a training wrote."""
        files = {file: folder / file for file in (checkpoint.CONFIG, WEIGHTS)}
        return cls(name, share, Spec.read(files, str(folder)), files)

    @property
    def own_encoder(self) -> bool:
        """Whether it changed something in the base model's encoder."""
        weights = {WEIGHTS: self.files[WEIGHTS]}
        return any(name.startswith(_ENCODER) for name in checkpoint.names(weights, self.name))


class Mixed(nn.Module):
    """Networks, or heads on the same features, that vote.

    It takes what they take. Its ``logits`` are the logarithm of the weighted mean of their probabilities, so that their
    softmax is that mean.

    Args:
        members: Each gives ``logits`` ``(B, C)`` or ``(B, C, h, w)``.
        shares: Of the vote, at least 0.
    """

    def __init__(self, members: Sequence[nn.Module], shares: Sequence[float]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.shares = tuple(share / sum(shares) for share in shares)

    def forward(self, *given: Any) -> dict[str, Tensor]:
        """``logits``, of the size of the first member's."""
        return {"logits": mixed([one(*given)["logits"] for one in self.members], self.shares)}


def mixed(logits: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """The logarithm of the weighted mean of the softmax of several logits ``(B, C, ...)``."""
    sides = logits[0].shape[2:]
    rows = []
    for one, share in zip(logits, shares, strict=True):
        if one.shape[2:] != sides:  # another head, whose map is coarser or finer
            one = nn.functional.interpolate(one, size=sides, mode="bilinear", align_corners=False)
        rows.append(torch.log_softmax(one.float(), dim=1) + (math.log(share) if share else -math.inf))
    stacked = torch.stack(rows)
    most = stacked.amax(dim=0)  # what an engine makes of logsumexp need not take it off
    return most + (stacked - most).exp().sum(dim=0).log()


def voting(members: Sequence[Member], opened: Callable[[], Trainable], name: str) -> nn.Module:
    """The network of an ensemble: pixels ``(B, 3, side, side)`` in 0..1 to ``logits``.

    Args:
        members: Of one base model.
        opened: Opens the base model, anew each time.
        name: What to call the ensemble in an error.
    """
    own = [one for one in members if one.own_encoder]
    shared = [one for one in members if not one.own_encoder]
    parts: list[nn.Module] = [assemble(one.spec, opened(), one.files, f"{name}, {one.name}") for one in own]
    shares = [one.share for one in own]
    if shared:
        base = opened()
        heads = [assemble(one.spec, base, one.files, f"{name}, {one.name}").head for one in shared]
        head = Mixed(heads, [one.share for one in shared])
        parts.append(Adapted(Backbone(base, needs(shared)), head))
        shares.append(sum(one.share for one in shared))
    network = parts[0] if len(parts) == 1 else Mixed(parts, shares)
    return network.eval().requires_grad_(False)


class Several(nn.Module):
    """Networks, or heads on the same features, whose answers are kept apart.

    Args:
        members: They take the same.
        names: What goes before the names of the answers of each.
    """

    def __init__(self, members: Sequence[nn.Module], names: Sequence[str]) -> None:
        super().__init__()
        self.members, self.names = nn.ModuleList(members), tuple(names)

    def forward(self, *given: Any) -> dict[str, Tensor]:
        """The answers of all."""
        found: dict[str, Tensor] = {}
        for one, before in zip(self.members, self.names, strict=True):
            found |= {f"{before}{name}": answer for name, answer in one(*given).items()}
        return found


def side_by_side(members: Sequence[Member], opened: Callable[[], Trainable], name: str) -> nn.Module:
    """The network of an ensemble whose members do not vote: pixels to the answers of all, ``NUMBER.NAME``.

    Arguments as of :func:`voting`; members are numbered from 0.
    """
    parts: list[nn.Module] = []
    names: list[str] = []
    shared: dict[str, Member] = {}
    for number, one in enumerate(members):
        if one.own_encoder:
            parts.append(assemble(one.spec, opened(), one.files, f"{name}, {one.name}"))
            names.append(f"{number}.")
        else:
            shared[f"{number}."] = one
    if shared:
        base = opened()
        heads = [assemble(one.spec, base, one.files, f"{name}, {one.name}").head for one in shared.values()]
        parts.append(Adapted(Backbone(base, needs([*shared.values()])), Several(heads, [*shared])))
        names.append("")
    return Several(parts, names).eval().requires_grad_(False)


def needs(members: Sequence[Member]) -> tuple[str, ...]:
    """The features that the heads of members want, each once."""
    return tuple(dict.fromkeys(feature for one in members for feature in one.spec.details["needs"]))


def write(folder: Path, members: Sequence[Member]) -> None:
    """Write an ensemble's folder, with its members inside.

    Args:
        folder: Exists.
        members: Of one base model, with the same classes.

    Raises:
        WeightsError: Two of them do not go together.
        OutputError: It cannot be written.
    """
    from manylens.runtime.paths import replacing

    _check(members, str(folder))
    first = members[0].spec
    rows = [{"name": one.name, "share": one.share} for one in members]
    spec = replace(
        first,
        architecture=ARCHITECTURES[first.architecture],
        details={**first.details, "needs": list(needs(members)), MEMBERS: rows},
    )
    try:
        for one in members:
            place = folder / MEMBERS / one.name
            place.mkdir(parents=True)
            for file, path in one.files.items():
                shutil.copyfile(path, place / file)
        with replacing(folder / checkpoint.CONFIG) as stream:
            stream.write(json.dumps(spec.to_json(), indent=1, ensure_ascii=False).encode())
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror or error})", "make room, and try again"
        ) from error


class Ensemble(AdaptedModel):
    """What ensembles of all kinds share: a network whose members vote; the rest is as of one model."""

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        super().__init__(row, files, settings)
        self.members = read(self.spec, files, row.id)

    def module(self) -> Any:
        """The network in torch, in evaluation mode: pixels ``(B, 3, side, side)`` in 0..1 to ``logits``."""
        return voting(self.members, self._opened, self.row.id)

    def trainable(self) -> Trainable:
        """None: there is no one network.

        Raises:
            UnsupportedError: Always; names a member, which has a trainable form.
        """
        member = Path(self.row.id) / MEMBERS / self.members[0].name
        raise UnsupportedError(f"{self.row.id}: is a vote of {len(self.members)} models", f"name one, such as {member}")


class AdaptedEnsemble(Ensemble, AdaptedClassifier):
    """Serves ``classify`` with the weighted mean of its members' probabilities."""


class AdaptedSegmenterEnsemble(Ensemble, AdaptedSegmenter):
    """Serves ``segment`` in the mode semantic: its members vote on each pixel."""


def read(spec: Spec, files: Mapping[str, Path], name: str) -> list[Member]:
    """The members that a folder's config names.

    Args:
        spec: Of the folder.
        files: Of the folder.
        name: What to call it in an error.

    Raises:
        WeightsError: A member is missing, its share is none, or members do not go together.
    """
    members = []
    for row in spec.details[MEMBERS]:
        above = f"{MEMBERS}/{row['name']}/"
        own = {file.removeprefix(above): path for file, path in files.items() if file.startswith(above)}
        share = float(row["share"])
        if WEIGHTS not in own or not (math.isfinite(share) and share > 0):
            raise WeightsError(f"{name}: its member {row['name']} has no weights, or no share", "train it again")
        members.append(Member(row["name"], share, Spec.read(own, f"{name}, {row['name']}"), own))
    if not members:
        raise WeightsError(f"{name}: has no members", "train it again")
    _check(members, name)
    if members[0].spec.base.weights != spec.base.weights:
        raise WeightsError(f"{name}: its members are of another base model than it says", "train it again")
    return members


def _check(members: Sequence[Member], name: str) -> None:
    """Raise where members do not go together."""
    first, *others = members
    for one in others:
        for what, mine, other in (
            ("base model", one.spec.base.weights, first.spec.base.weights),
            ("classes", one.spec.labels, first.spec.labels),
            ("side", one.spec.side, first.spec.side),
            ("kind", _kind(one), _kind(first)),
        ):
            if mine != other:
                raise WeightsError(
                    f"{name}: its members {first.name} and {one.name} differ in their {what}",
                    "make ensembles of models of one base, with the same classes and side",
                )
    if first.spec.architecture == "AdaptedMasks" and first.spec.details.get("kind") != "instance":
        raise WeightsError(
            f"{name}: its members find {_kind(first)[1]} regions", "make ensembles of models of instances"
        )


def _kind(member: Member) -> tuple[str, str]:
    """What it is, and what kind of regions it was trained to find."""
    return member.spec.architecture, str(member.spec.details.get("kind", ""))
