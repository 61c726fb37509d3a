"""DINOv2 (Oquab et al., 2023) and vision transformers like it: vectors of pictures, of regions, and of patches."""

from manylens.models.dino.model import Dino

__all__ = ["Dino"]
