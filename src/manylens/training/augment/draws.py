"""Chance that is a pure function of seed, epoch and picture: resuming, and other batches, give the same views."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, epoch: int, id: int | str, use: str = "view") -> np.random.Generator:
    """The chance of one picture in one epoch.

    Args:
        seed: Of the training.
        epoch: From 0; or the number of a fixed view.
        id: Of the picture: its id, hash or number.
        use: What is drawn: another use has other chance.
    """
    digest = hashlib.blake2b(f"{use}|{seed}|{epoch}|{id}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def which_view(seed: int, epoch: int, id: int | str, views: int) -> int:
    """Which of its kept views a picture shows in an epoch: each once in as many epochs, in an order of its own.

    Args:
        seed: Of the training.
        epoch: From 0.
        id: Of the picture.
        views: How many are kept.
    """
    rounds, place = divmod(epoch, views)
    return int(generator(seed, rounds, id, "order").permutation(views)[place])
