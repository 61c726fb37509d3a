"""Real-ESRGAN (Wang et al., 2021): pictures with four times the pixels along each side."""

from manylens.models.realesrgan.model import RealEsrgan

__all__ = ["RealEsrgan"]
