"""``manylens track`` with a stand-in model, on frames, an animation and a film; and what goes wrong."""

import json

import numpy as np
import PIL.Image
import pytest

from manylens import models
from manylens.cli import main
from manylens.cli import parameters as cli_parameters
from manylens.media import to_rle
from manylens.tasks.results import Frame, Tracked, Tracks
from tests.evaluation import scripted
from tests.evaluation.scripted import Scripted


def followed(request):
    mask = np.zeros((request.video.height, request.video.width), bool)
    mask[8:20, 8:24] = True
    one = Tracked(1, (8.0, 8.0, 24.0, 20.0), 0.9, dict(to_rle(mask)))
    frames = []
    for index, _ in enumerate(request.video):  # every frame is read, as a model does
        frames.append(Frame(index, (one,)))
    return Tracks(frames=tuple(frames), width=request.video.width, height=request.video.height, fps=request.video.fps)


@pytest.fixture
def run(make_session, monkeypatch, capsys):
    monkeypatch.setitem(models.FAMILIES, "scripted", scripted.FAMILY)
    Scripted.answer, Scripted.asked = staticmethod(followed), []
    session = make_session(scripted.row(tasks="track = ['points', 'box', 'mask']"))
    monkeypatch.setattr(cli_parameters, "session_for", lambda options: session)
    monkeypatch.setattr("manylens.cli.task_commands.session_for", lambda options: session)

    def call(*words):
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        printed = capsys.readouterr()
        return left.value.code or 0, printed.out, printed.err

    return call


FRAMES = [np.random.default_rng(n).integers(0, 256, (32, 48, 3), np.uint8) for n in range(4)]


@pytest.fixture(params=["folder", "gif", "mp4"])
def video(request, tmp_path):
    path = tmp_path / "clip"
    pictures = [PIL.Image.fromarray(frame) for frame in FRAMES]
    if request.param == "folder":
        path.mkdir()
        for number, picture in enumerate(pictures):
            picture.save(path / f"{number}.png")
        return path
    path = path.with_suffix(f".{request.param}")
    if request.param == "gif":
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)
        return path
    import av

    with av.open(str(path), "w") as film:
        stream = film.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for frame in FRAMES:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        film.mux(stream.encode())
    return path


def test_words_and_files(run, video, tmp_path):
    code, out, err = run("track", video, "--point", "12,10", "-o", tmp_path / "out")
    assert (code, err) == (0, "")
    assert "4 frames of 48x32 pixels" in out
    assert "1 object       in 4 frames: 0-3" in out
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["clip-track-masks", "clip-track.json", "clip-track.mp4", "clip-track.png"]
    assert len(list((tmp_path / "out" / "clip-track-masks").iterdir())) == 4


def test_json(run, video):
    code, out, _ = run("track", video, "--box", "4,4,30,30", "--frame", "2", "--json")
    body = json.loads(out)
    assert code == 0
    assert body["input"] == video.name
    assert len(body["frames"]) == 4
    assert Scripted.asked[0].frame == 2


@pytest.mark.parametrize(
    ("make", "more", "words"),
    [
        (lambda folder: None, (), "has no frames"),
        (lambda folder: _save(folder, FRAMES), ("--frame", "9"), "has no frame 9"),
        (lambda folder: _save(folder, [*FRAMES, FRAMES[0][:20]]), (), "frame 4 is 48 x 20"),
        (lambda folder: _save(folder, FRAMES, cut=2), (), "2.png"),
        (lambda folder: _save(folder, FRAMES), ("--point", "500,1"), "outside"),
    ],
)
def test_what_goes_wrong_is_one_line_and_writes_nothing(run, tmp_path, make, more, words):
    folder = tmp_path / "clip"
    folder.mkdir()
    make(folder)
    code, out, err = run("track", folder, "--point", "12,10", *more, "-o", tmp_path / "out")
    assert code == 2
    assert words in err
    assert err.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "out").exists()


def _save(folder, frames, cut=None):
    for number, frame in enumerate(frames):
        path = folder / f"{number}.png"
        PIL.Image.fromarray(frame).save(path)
        if number == cut:
            path.write_bytes(path.read_bytes()[:300])
