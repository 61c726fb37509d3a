"""Three operators on masks that transformers' SAM 3 takes from a package of compiled code, on the processor."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Kernels:
    """What ``Sam3VideoModel`` asks of ``kernels-community/cv-utils``."""

    def generic_nms(self, ious: Tensor, scores: Tensor, threshold: float, use_iou_matrix: bool = True) -> Tensor:
        """Of masks that overlap by more than a threshold, the one of the higher score stays.

        Args:
            ious: float ``(N, N)``.
            scores: float ``(N,)``.
            threshold: IoU above which two are the same.
            use_iou_matrix: Always true.

        Returns:
            Which stay, int64, the best first.
        """
        overlaps = (ious > threshold).cpu().numpy()
        kept: list[int] = []
        for one in torch.argsort(-scores, stable=True).tolist():
            if not overlaps[one, kept].any():
                kept.append(one)
        return torch.tensor(kept, dtype=torch.int64, device=scores.device)

    def cc_2d(self, masks: Tensor, get_counts: bool = True) -> tuple[Tensor, Tensor]:
        """Connected components, corners counted as connected.

        Args:
            masks: uint8 ``(N, 1, H, W)``.
            get_counts: Always true.

        Returns:
            The component of each pixel, 0 outside, and how many pixels that has: int32 ``(N, 1, H, W)``.
        """
        import cv2

        labels = np.zeros(masks.shape, np.int32)
        counts = np.zeros(masks.shape, np.int32)
        for number, mask in enumerate(masks[:, 0].cpu().numpy()):
            _, found, about, _ = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=cv2.CV_32S)
            areas = about[:, cv2.CC_STAT_AREA]
            areas[0] = 0  # what is not in the mask
            labels[number, 0], counts[number, 0] = found, areas[found]
        return torch.from_numpy(labels).to(masks.device), torch.from_numpy(counts).to(masks.device)
