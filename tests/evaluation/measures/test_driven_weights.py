"""The measures that drive a model, on embedded weights and photographs with hand-drawn masks."""

from pathlib import Path

import numpy as np
import pytest

import manylens
from manylens.data import Annotation, Dataset, Problems, Record
from manylens.evaluation.measures.promptable import run_boxes, run_clicks
from manylens.evaluation.measures.propagation import run as propagate
from manylens.evaluation.measures.tracks import JFMeasure
from manylens.media import from_rle, to_rle
from manylens.runtime import paths

pytestmark = pytest.mark.weights

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """The real weights in a home without embeddings."""
    home = tmp_path_factory.mktemp("home")
    real = paths.home() / "weights"
    real.mkdir(parents=True, exist_ok=True)
    (home / "weights").symlink_to(real, target_is_directory=True)
    with manylens.Session(home=home) as made:
        yield made


@pytest.fixture(scope="module")
def drawn():
    return Dataset.read(EXAMPLES / "regions.json", images=EXAMPLES, format="coco")


def test_clicks_and_boxes_on_what_people_drew(session, drawn):
    problems = Problems()
    drawn = [record for record in drawn if record.path.name in ("astronaut.jpg", "cat.jpg")]
    clicks = run_clicks(drawn, session, model="manylens/regions-s", problems=problems, clicks=3, columns=["place"])
    figures = clicks.all()
    assert figures["1-click mIoU"] > 0.8
    assert figures["1-click mIoU"] <= figures["oracle mIoU"]
    assert figures["IoU@3"] > figures["IoU@1"] + 0.03
    assert clicks.units.columns["place"] == ["indoors"] * 3
    assert run_boxes(drawn, session, model="manylens/regions-s", problems=problems).all()["box mIoU"] > 0.75
    assert len(clicks.units) == 3
    assert not len(problems)


def test_a_mask_is_carried_through_a_moving_picture(session, drawn, tmp_path):
    import cv2
    import PIL.Image

    cat = next(record for record in drawn if record.path.name == "cat.jpg")
    pixels, mask = cat.image().array, from_rle(cat.annotations[0].mask).astype(np.uint8)
    frames = []
    for t in range(6):
        turn = cv2.getRotationMatrix2D((cat.width / 2, cat.height / 2), 3.0 * t, 1 + 0.04 * t)
        turn[:, 2] += (6 * t, -3 * t)
        path = tmp_path / f"{t}.png"
        size = (cat.width, cat.height)
        PIL.Image.fromarray(cv2.warpAffine(pixels, turn, size, borderMode=cv2.BORDER_REFLECT)).save(path)
        shown = dict(to_rle(cv2.warpAffine(mask, turn, size, flags=cv2.INTER_NEAREST)))
        columns = {"video": "cat", "frame": t}
        frames.append(
            Record(f"f{t}", path, *size, annotations=(Annotation(f"a{t}", "cat", mask=shown),), columns=columns)
        )
    carried = propagate(frames, session, model="manylens/vit-s", problems=Problems()).all()
    still = JFMeasure()
    for frame in frames:
        still.add(frame, {"cat": frames[0].annotations[0].mask})
    assert carried["J"] > 0.95
    assert carried["J&F"] > still.tally().all()["J&F"] + 0.2
