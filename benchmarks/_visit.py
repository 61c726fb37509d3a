"""One click with a SAM checkpoint in a process of its own, for :mod:`benchmarks.second_visit`."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

from benchmarks._harness import cache_of, timed
from benchmarks._pictures import EXAMPLES


def main() -> None:
    """Click and print a JSON line; what is imported and found before the clock starts counts for no visit."""
    import cv2  # noqa: F401
    import openvino  # noqa: F401
    import PIL.Image  # noqa: F401
    import supervision  # noqa: F401

    import manylens.models.sam.model  # noqa: F401
    from manylens.media import Image
    from manylens.runtime import engines
    from manylens.session import Session
    from manylens.tasks import request

    told = json.loads(sys.argv[1])
    with Session(engine=told["engine"], precision=told["precision"]) as session:
        row = session.catalog.resolve(told["folder"])
        session.weights.weights_hash(row)  # the folder's files are hashed once in a process
        engines.core()
        Image.of(EXAMPLES / "coffee.jpg").id  # noqa: B018 - what opens pictures is a library, too

        def visit() -> Any:
            asked = request("segment", image=told["photo"], points=[(320, 240)])
            return session.run(asked, model=told["folder"])

        seconds, found = timed(visit)
    masks = hashlib.sha256(found.mask.tobytes()).hexdigest()
    loaded = any(name in sys.modules for name in ("torch", "transformers"))
    print(json.dumps({"seconds": seconds, "cache": cache_of(found), "torch": loaded, "masks": masks}))


if __name__ == "__main__":
    main()
