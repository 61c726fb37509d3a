"""Several trainings made one: folds, snapshots, soups of weights, and votes."""

from manylens.train.ensemble.folds import fold, fold_numbers
from manylens.train.ensemble.instances import Instances, fuse
from manylens.train.ensemble.snapshot import cyclic_share, snapshot_steps
from manylens.train.ensemble.soup import Soup, greedy_soup, soup
from manylens.train.ensemble.vote import fitted_weights, majority, vote, vote_masks

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
