"""Several trainings made one: folds, snapshots, soups of weights, and votes."""

from manylens.training.ensemble.folds import fold, fold_numbers
from manylens.training.ensemble.snapshot import cyclic_share, snapshot_steps
from manylens.training.ensemble.soup import Soup, greedy_soup, soup
from manylens.training.ensemble.vote import fitted_weights, majority, vote

__all__ = [
    "Soup",
    "cyclic_share",
    "fitted_weights",
    "fold",
    "fold_numbers",
    "greedy_soup",
    "majority",
    "snapshot_steps",
    "soup",
    "vote",
]
