"""What can be wrong with a training run that a user can put right."""

from __future__ import annotations

from manylens.errors import ManylensError, UserError


class TrainError(UserError):
    """The data, the config or the run does not allow this training."""


class DivergedError(ManylensError):
    """The loss is no number any more; the last good checkpoint stands."""
