"""Looking the data over before a training: what would stop it, what would spoil its figures, what it is made of."""

from manylens.training.check.findings import Finding, Report
from manylens.training.check.run import Checker, check, resized

__all__ = ["Checker", "Finding", "Report", "check", "resized"]
