"""Pictures, masks, sound, video and series: decoded one way, checked once, known by their content."""

from manylens.media.files import atomic_write
from manylens.media.formats import ImageInfo
from manylens.media.image import Image
from manylens.media.sources import without_paths

__all__ = ["Image", "ImageInfo", "atomic_write", "without_paths"]
