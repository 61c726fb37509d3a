"""ViT (Dosovitskiy et al., 2021), DINO (Caron et al., 2021), DINOv2 (Oquab et al., 2023; Darcet et al., 2024, with
registers) and DINOv3 (Siméoni et al., 2025): vectors of pictures, regions and patches, and what follows from them.
"""

from manylens.models.dino.model import Dino

__all__ = ["Dino"]
