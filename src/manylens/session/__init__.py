"""The door (floor 5): tasks in, results out."""

from manylens.session.calls import CallOptions
from manylens.session.door import Session, default_session
from manylens.session.opened import Clicks, Opened

__all__ = ["CallOptions", "Clicks", "Opened", "Session", "default_session"]
