from __future__ import annotations

import io
import struct
import sys

import numpy as np
import PIL.Image
import pytest

from manylens.errors import MediaError
from manylens.media import Image, Video, without_paths

COUNT, WIDTH, HEIGHT = 12, 48, 32


def frames_of(count=COUNT):
    """Gray frames, each brighter than the one before, with a dark left half."""
    frames = np.zeros((count, HEIGHT, WIDTH, 3), np.uint8)
    for index in range(count):
        frames[index, :, WIDTH // 2 :] = 20 + 200 * index // count
    return frames


def brightness(frames):
    return [round(float(frame.array[:, WIDTH // 2 + 4 :].mean())) for frame in frames]


def film(frames, format_name="mp4", codec="mpeg4", path=None, **options):
    av = pytest.importorskip("av")
    file = io.BytesIO()
    with av.open(str(path) if path else file, "w", format=format_name, options=options) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.bit_rate = 2_000_000
        stream.gop_size = 4
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path.read_bytes() if path else file.getvalue()


@pytest.fixture(params=["film", "folder", "gif", "list", "array"])
def video(request, tmp_path):
    """The same twelve frames in every form."""
    frames = frames_of()
    if request.param == "film":
        path = tmp_path / "film.mp4"
        path.write_bytes(film(frames))
        return Video.of(path)
    if request.param == "folder":
        (tmp_path / "notes.txt").write_text("not a frame")
        for index, frame in enumerate(frames):
            PIL.Image.fromarray(frame).save(tmp_path / f"{index}.png")  # 10.png comes after 2.png
        return Video.of(tmp_path, fps=10)
    if request.param == "gif":
        first, *rest = [PIL.Image.fromarray(frame) for frame in frames]
        first.save(tmp_path / "a.gif", save_all=True, append_images=rest, duration=100)
        return Video.of(tmp_path / "a.gif")
    return Video.of(list(frames) if request.param == "list" else frames, fps=10)


def test_frames_in_order(video):
    assert (video.size, video.count, len(video), video.fps) == ((WIDTH, HEIGHT), COUNT, COUNT, 10)
    expected = [int(frame[0, -1, 0]) for frame in frames_of()]
    for _ in range(2):  # each pass starts anew
        assert brightness(video) == pytest.approx(expected, abs=4)
    assert brightness(video.frames(2, 9, 3)) == pytest.approx(expected[2:9:3], abs=4)
    assert brightness([video.frame(7)]) == pytest.approx(expected[7:8], abs=4)
    for index in (-1, COUNT):
        with pytest.raises(MediaError, match=f"has no frame {index}; give a frame from 0 to 11"):
            video.frame(index)
    assert Video.of(video) is video


def test_id_is_that_of_the_frames(tmp_path):
    frames = frames_of(3)
    for index, frame in enumerate(frames):
        PIL.Image.fromarray(frame).save(tmp_path / f"{index}.bmp")
    assert Video.of(tmp_path).id == Video.of(frames, fps=5).id == Video.of([Image.of(frame) for frame in frames]).id
    assert Video.of(frames[::-1]).id != Video.of(frames).id
    assert Video.of(frames[:2]).id != Video.of(frames).id


@pytest.mark.parametrize("kind", [("matroska", "mpeg4"), ("avi", "mpeg4"), ("webm", "libvpx")])
def test_other_containers(kind):
    video = Video.of(film(frames_of(), *kind))
    assert (video.size, video.fps) == ((WIDTH, HEIGHT), 10)
    assert len(list(video)) == video.count == COUNT


def test_no_frames(tmp_path):
    for source, name in (([], "frames"), (tmp_path, str(tmp_path)), (np.zeros((0, 4, 4, 3), np.uint8), "frames")):
        with pytest.raises(MediaError, match=f"{name}: has no frames"):
            Video.of(source)


def test_a_frame_of_another_size():
    frames = list(frames_of(3))
    frames[2] = frames[2][:-1]
    with pytest.raises(MediaError, match="frames: frame 2 is 48 x 31, the first 48 x 32"):
        list(Video.of(frames))
    with pytest.raises(MediaError, match="frame 2"):
        Video.of(frames).frame(2)


def test_a_broken_frame_in_a_folder_is_named(tmp_path):
    PIL.Image.fromarray(frames_of(1)[0]).save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(MediaError, match=r"1\.png: the file is empty"):
        list(Video.of(tmp_path))


@pytest.mark.parametrize(
    "kind", [("mp4", "mpeg4", {"movflags": "faststart"}), ("avi", "mpeg4", {}), ("matroska", "mpeg4", {})]
)
def test_cut_in_the_middle(tmp_path, kind):
    format_name, codec, options = kind
    path = tmp_path / "film"
    noise = np.random.default_rng(0).integers(0, 256, (COUNT, HEIGHT, WIDTH, 3), np.uint8)
    whole = film(noise, format_name, codec, path, **options)
    path.write_bytes(whole[: int(len(whole) * 0.6)])
    with pytest.raises(MediaError, match=r"film: .*cut in the middle") as caught:
        list(Video.of(path))
    assert "\n" not in str(caught.value)


def test_cut_before_its_index(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(film(frames_of())[:-900])  # the index stands at the end
    with pytest.raises(MediaError, match=r"film\.mp4: not video that can be read, or cut short"):
        list(Video.of(path))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"words", r"bytes: not video that can be read, or cut short \(it holds text\)"),
        (b"", "bytes: the file is empty"),
        ("none.mp4", r"none\.mp4: no such file"),
        ("https://example.org/a.mp4", "https addresses are not opened"),
        (3, "int: not a video"),
        ([3], "int: not an image"),
    ],
)
def test_refuses(source, message):
    with pytest.raises(MediaError, match=message):
        Video.of(source)


def test_a_sound_file_holds_no_video():
    av = pytest.importorskip("av")
    file = io.BytesIO()
    with av.open(file, "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    with pytest.raises(MediaError, match="bytes: holds no video"):
        Video.of(file.getvalue())


def test_films_need_pyav_and_the_rest_does_not(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MediaError, match=r"reading it needs PyAV; run: pip install 'manylens\[video\]'"):
        Video.of(b"\0\0\0\x20ftypisom")
    assert len(Video.of(frames_of(2))) == 2


@pytest.mark.parametrize("fps", [0, -1, float("nan")])
def test_a_rate_that_is_none(fps):
    with pytest.raises(MediaError, match="frames a second"):
        Video.of(frames_of(2), fps=fps)


def test_only_one_frame_is_in_memory(tmp_path):
    for index, frame in enumerate(frames_of(3)):
        PIL.Image.fromarray(frame).save(tmp_path / f"{index}.png")
    video = Video.of(tmp_path)
    assert next(iter(video)) is not next(iter(video))


def test_folders_can_be_refused(tmp_path):
    with without_paths(), pytest.raises(MediaError, match="paths are not accepted here"):
        Video.of(tmp_path)


def test_the_pixel_limit(monkeypatch):
    data = film(frames_of())
    monkeypatch.setenv("MANYLENS_MAX_PIXELS", "1000")
    with pytest.raises(MediaError, match="48 x 32"):
        Video.of(data)


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_a_film_that_asks_to_be_turned(matrix, turns):
    """A phone held upright writes frames that lie on their side, and in its file how to turn them."""
    flat = film(frames_of())
    head = flat.index(b"tkhd")
    place = flat.index(struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30), head)
    a, b, c, d = (65536 * value for value in matrix)
    turned = flat[:place] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + flat[place + 36 :]
    video, expected = Video.of(turned), Video.of(flat)
    assert video.size == ((HEIGHT, WIDTH) if turns in (1, -1) else (WIDTH, HEIGHT))
    np.testing.assert_array_equal(video.frame(11).array, np.rot90(expected.frame(11).array, turns))
    assert video.frame(0).info.turned
