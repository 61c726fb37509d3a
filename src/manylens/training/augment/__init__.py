"""Pictures changed before they are shown: policies that go by seed, epoch and picture alone, and mixing of pairs."""

from manylens.training.augment.augment import POLICIES, Augment
from manylens.training.augment.draws import generator, which_view
from manylens.training.augment.mix import Mixed, cutmix, mixup, soft
from manylens.training.augment.strength import strengths

__all__ = ["POLICIES", "Augment", "Mixed", "cutmix", "generator", "mixup", "soft", "strengths", "which_view"]
