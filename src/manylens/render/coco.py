"""Detections as COCO JSON, with masks as RLE and class names kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from manylens.media import Image, to_rle

UNNAMED = "object"


def coco_json(pairs: Sequence[tuple[Image, Any]]) -> dict[str, Any]:
    """COCO's instance format for pictures and their Detections.

    Args:
        pairs: Each picture with what was found on it; a picture may come several times.

    Returns:
        ``images``, ``categories`` (ids from 1, in order of appearance) and ``annotations`` with ``bbox`` as x, y,
        width, height, ``area`` in pixels, ``segmentation`` as compressed RLE and ``score``.
    """
    images: dict[tuple[str, str], dict[str, Any]] = {}
    categories: dict[str, int] = {}
    rows: list[dict[str, Any]] = []
    for image, found in pairs:
        known = images.setdefault(
            (image.name, image.id),  # a copy of a file is a picture of its own
            {"id": len(images) + 1, "file_name": image.name, "width": image.width, "height": image.height},
        )
        for i in range(len(found)):
            name = str(found.data["class_name"][i]) or UNNAMED
            x0, y0, x1, y1 = (float(v) for v in found.xyxy[i])
            row: dict[str, Any] = {
                "id": len(rows) + 1,
                "image_id": known["id"],
                "category_id": categories.setdefault(name, len(categories) + 1),
                "bbox": [round(v, 2) for v in (x0, y0, x1 - x0, y1 - y0)],
                "area": round((x1 - x0) * (y1 - y0), 2),
                "iscrowd": 0,
            }
            if found.confidence is not None:
                row["score"] = round(float(found.confidence[i]), 6)
            if found.mask is not None:
                row["segmentation"] = to_rle(found.mask[i])
                row["area"] = int(np.count_nonzero(found.mask[i]))
            rows.append(row)
    return {
        "info": {"description": "made by manylens"},
        "images": list(images.values()),
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
        "annotations": rows,
    }
