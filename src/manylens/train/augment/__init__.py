"""Pictures changed before they are shown: policies that go by seed, epoch and picture alone, and mixing of pairs."""

from manylens.train.augment.augment import POLICIES, Augment
from manylens.train.augment.draws import generator, which_view
from manylens.train.augment.mix import Mixed, cutmix, mixup, soft
from manylens.train.augment.strength import strengths

__all__ = ["POLICIES", "Augment", "Mixed", "cutmix", "generator", "mixup", "soft", "strengths", "which_view"]
