"""Several trainings made one: folds, snapshots, soups of weights, and votes."""

from manylens.training.ensemble.folds import fold, fold_numbers
from manylens.training.ensemble.instances import Instances, fuse
from manylens.training.ensemble.snapshot import cyclic_share, snapshot_steps
from manylens.training.ensemble.soup import Soup, greedy_soup, soup
from manylens.training.ensemble.vote import fitted_weights, majority, vote, vote_masks

__all__ = [
    "Instances",
    "Soup",
    "cyclic_share",
    "fitted_weights",
    "fold",
    "fold_numbers",
    "fuse",
    "greedy_soup",
    "majority",
    "snapshot_steps",
    "soup",
    "vote",
    "vote_masks",
]
