"""EfficientNet-Lite0 (Tan & Le, 2019) in torch: ImageNet's 1,000 labels, differentiable from pixels."""

from manylens.models.lite0.model import Lite0

__all__ = ["Lite0"]
