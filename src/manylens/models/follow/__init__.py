"""Following objects through a video with an encoder that was never trained for it, and colour for their outlines."""

from manylens.models.follow.model import Follow

__all__ = ["Follow"]
