"""Pictures, masks, sound, video and series: decoded one way, checked once, known by their content (floor 1)."""

from manylens.media.audio import Audio
from manylens.media.files import atomic_write
from manylens.media.formats import ImageInfo, max_pixels
from manylens.media.image import Image
from manylens.media.mask import RLE, Mask, MaskInput, bounds, from_rle, save_cutout_png, save_mask_png, to_rle
from manylens.media.pictures import made_by, save_image
from manylens.media.series import Series
from manylens.media.sources import without_paths
from manylens.media.video import Video

__all__ = [
    "RLE",
    "Audio",
    "Image",
    "ImageInfo",
    "Mask",
    "MaskInput",
    "Series",
    "Video",
    "atomic_write",
    "bounds",
    "from_rle",
    "made_by",
    "max_pixels",
    "save_cutout_png",
    "save_image",
    "save_mask_png",
    "to_rle",
    "without_paths",
]
