"""Adapting to pictures without labels of the place where a model shall work: the target."""

from manylens.training.domain.adabn import adabn
from manylens.training.domain.adversarial import Dann, dann_strength, reverse
from manylens.training.domain.coral import Coral, coral
from manylens.training.domain.norms import norm_parameters
from manylens.training.domain.pseudo import IGNORED, Pseudo, pseudo_labels, self_training_loss, share_at, thresholds
from manylens.training.domain.tent import Tented, entropy, tent

__all__ = [
    "IGNORED",
    "Coral",
    "Dann",
    "Pseudo",
    "Tented",
    "adabn",
    "coral",
    "dann_strength",
    "entropy",
    "norm_parameters",
    "pseudo_labels",
    "reverse",
    "self_training_loss",
    "share_at",
    "tent",
    "thresholds",
]
