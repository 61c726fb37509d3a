"""What commands print while they work."""

import json

import numpy as np

from manylens.cli import output
from manylens.media import Image
from manylens.tasks import Provenance, SegmentRequest, detections, with_provenance

IMAGE = Image.of(np.full((60, 80, 3), 90, np.uint8))


def test_where_no_terminal_listens_progress_is_a_line_now_and_then(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(output, "monotonic", lambda: now[0])
    with output.bar("robustness", quiet=False) as progress:
        assert progress is not None
        for second, done, line in (
            (0, 0.0, "clean pictures"),
            (1, 0.05, "fog 1"),
            (12, 0.123, "fog 3"),
            (13, 0.2, "-"),
        ):
            now[0] = 100.0 + second
            progress(done, line)
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "robustness: 0 %, clean pictures",
        "robustness: 12 %, fog 3",
    ]
    assert said.out == ""
    with output.bar("robustness", quiet=True) as progress:
        assert progress is None


def test_a_folder_of_masks_is_one_line_for_people_and_every_file_for_machines(tmp_path, capsys):
    masks = np.zeros((30, 60, 80), bool)
    for i, mask in enumerate(masks):
        mask[2 * i : 2 * i + 2, 5:40] = True
    many = detections([[5, 2 * i, 40, 2 * i + 2] for i in range(30)], [0.5] * 30, masks=masks)
    asked = SegmentRequest.of(image=IMAGE, mode="everything")
    output.show("segment", asked, many, out=tmp_path, as_json=False, name="photo")
    wrote = [line for line in capsys.readouterr().out.splitlines() if line.startswith("wrote")]
    assert f"wrote {tmp_path / 'photo-segment-masks'} (30 files)" in wrote
    assert len(wrote) == 4
    output.show("segment", asked, many, out=tmp_path, as_json=True, name="photo")
    assert len(json.loads(capsys.readouterr().out)["files"]) == 33


def test_why_nothing_was_found_is_said_once(capsys):
    why = Provenance(task="segment", model="m", notes=("no region stands out",))
    empty = with_provenance(detections([], []), why)
    output.show("segment", SegmentRequest.of(image=IMAGE, mode="everything"), empty, out=None, as_json=False)
    said = capsys.readouterr()
    assert (said.out + said.err).count("no region stands out") == 1
