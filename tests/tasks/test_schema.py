import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from manylens.media import Image
from manylens.tasks import Answer, Evidence, Provenance, Reading, TextLine, detections, to_json, with_provenance
from manylens.tasks.results import Depth, Embedding, Picture
from manylens.tasks.schema import results_schema

COPY = Path(__file__).parents[2] / "docs" / "results.schema.json"
BOX = (1.0, 2.0, 3.0, 4.0)


def test_the_copy_in_the_docs_is_up_to_date():
    """To renew it: python -m manylens.tasks.schema > docs/results.schema.json"""
    assert json.loads(COPY.read_text()) == results_schema()


@pytest.mark.parametrize(
    "result",
    [
        detections([BOX], [0.5], masks=np.ones((1, 4, 5), bool), names=["cat"], levels=["whole"]),
        detections([], []),
        Answer("two", evidence=(Evidence("box", "cat", 0.9, BOX, "detect"), Evidence("text", "OPEN"))),
        Reading((TextLine("OPEN", 0.9, BOX, ((1.0, 2.0), (3.0, 2.0))),)),
        Embedding(np.ones(4, np.float32), "s", np.zeros((2, 2, 4), np.float32)),
        Depth(np.zeros((4, 5), np.float32)),
        Picture(Image.of(np.zeros((4, 5, 3), np.uint8))),
    ],
)
def test_every_result_meets_the_schema(result):
    result = with_provenance(result, Provenance(task="t", model="m", inputs=("a",), notes=("n",)))
    jsonschema.validate(json.loads(json.dumps(to_json(result))), results_schema())


def test_the_schema_refuses_what_is_no_result():
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"type": "answer", "text": "two"}, results_schema())
