"""What several models found in a picture, made one answer: masks, boxes, and how much each model counts."""

from manylens.models.adapted.fusion.boxes import Boxes, fuse_boxes
from manylens.models.adapted.fusion.masks import Instances, fuse
from manylens.models.adapted.fusion.shares import shares_of, vote_masks

__all__ = ["Boxes", "Instances", "fuse", "fuse_boxes", "shares_of", "vote_masks"]
