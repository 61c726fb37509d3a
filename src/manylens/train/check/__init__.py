"""Looking the data over before a training: what would stop it, what would spoil its figures, what it is made of."""

from manylens.train.check.findings import Finding, Report
from manylens.train.check.run import Checker, check

__all__ = ["Checker", "Finding", "Report", "check"]
