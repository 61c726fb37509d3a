"""Every error a user can meet.

Each error is one line that names the input and the remedy: ``cat.jpg: not an image (it holds text); give a JPEG``.
The command line prints that line and leaves with :attr:`ManylensError.exit_code`: 2 where the user can put it right by
asking differently, 1 where something of ours, of the machine or of the network failed.
"""

from __future__ import annotations

from typing import ClassVar


class ManylensError(Exception):
    """Base of all errors that manylens raises on purpose.

    Args:
        what: What is wrong, beginning with the name of the input at fault.
        remedy: What the user can do about it; an imperative without a full stop.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, remedy: str = "") -> None:
        self.what = " ".join(str(what).split())
        self.remedy = " ".join(str(remedy).split())
        super().__init__(f"{self.what}; {self.remedy}" if self.remedy else self.what)

    def __reduce__(self) -> tuple[type[ManylensError], tuple[str, str]]:
        return type(self), (self.what, self.remedy)


class UserError(ManylensError):
    """The request cannot be served as it was put."""

    exit_code = 2


class MediaError(UserError):
    """A file or array is not the picture, sound, video or table that it should be."""


class PromptError(UserError):
    """A prompt (click, box, mask, words, example) does not fit the media or contradicts itself."""


class UnknownTaskError(UserError):
    """No task has that name."""


class UnknownModelError(UserError):
    """No catalog row, run or folder has that name."""


class UnsupportedError(UserError):
    """The model, or every model at hand, cannot do what the request needs."""


class LicenceError(UserError):
    """A model's licence forbids commercial use, and nobody has accepted that yet."""


class BudgetError(UserError):
    """A model, or a cost, can never fit the budget that was given."""


class PlanError(UserError):
    """A plan is not well formed, or a request was not understood."""


class OutputError(ManylensError):
    """A result could not be written: disk full, no permission. What stood there before is untouched."""


class WeightsError(ManylensError):
    """A weight file is missing, corrupted, or not what the catalog says it is."""


class NetworkError(ManylensError):
    """A source of weights did not answer, or connections are switched off."""


class EngineError(ManylensError):
    """An inference engine is missing or failed."""


class CancelledError(ManylensError):
    """The caller cancelled the work."""


class DeadlineError(ManylensError):
    """The time limit of the call passed."""


class CostError(UserError):
    """The cost cap that the user set is reached."""
