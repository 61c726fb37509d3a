import numpy as np
import pytest

from manylens.errors import CancelledError, MediaError, WeightsError
from manylens.media import Image
from manylens.models import network
from manylens.models.realesrgan import graphs, ncnn
from manylens.models.realesrgan.model import LARGEST, RealEsrgan, check_size, enlarged
from manylens.models.realesrgan.tiles import windows
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.tasks import UpscaleRequest

PHOTOS, DRAWINGS = "manylens/realesrgan-x4", "manylens/realesrgan-anime"
PARAM = """7767517
11 12
Input in 0 1 data
Split split 1 2 data data_a data_b
Convolution first 1 1 data_a a 0=4 1=3 4=1 5=1 6=108 9=2 -23310=1,2.000000e-01
PReLU bent 1 1 a b 0=4
Split again 1 2 b b1 b2
Convolution second 1 1 b1 c 0=4 1=3 4=1 5=1 6=144
Eltwise sum 2 1 c b2 d 0=1 -23301=2,2.000000e-01,1.000000e+00
Convolution last 1 1 d e 0=48 1=3 4=1 5=1 6=1728
PixelShuffle shuffle 1 1 e f 0=4
Interp up 1 1 data_b g 0=1 1=4.000000e+00 2=4.000000e+00
BinaryOp add 2 1 f g output
"""


def tiny(folder, rng):
    """A network of every kind of layer but a concatenation, in ncnn's files; and the arrays that went into them."""
    arrays, parts = [], []
    for out, into in ((4, 3), (4, 4), (48, 4)):
        kernel = rng.normal(0, 0.2, (out, into, 3, 3)).astype(np.float16 if into == 4 else np.float32)
        bias = rng.normal(0, 0.05, out).astype(np.float32)
        tag = np.uint32(0x01306B47 if into == 4 else 0)
        parts += [tag.tobytes(), kernel.tobytes(), bias.tobytes()]
        arrays.append((kernel.astype(np.float32), bias))
        if len(arrays) == 1:
            slope = rng.random(4).astype(np.float32)
            parts.append(slope.tobytes())
    (folder / "model.param").write_text(PARAM)
    (folder / "model.bin").write_bytes(b"".join(parts))
    return arrays, slope


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("ncnn")
    tiny(made, np.random.default_rng(0))
    return made


def built(folder, engine="openvino", precision="f32"):
    layers = ncnn.read(folder / "model.param", folder / "model.bin")
    plan = network.Blueprint(
        "tiny",
        lambda: graphs.torch_module(layers),
        lambda: (),
        ("image",),
        ("picture",),
        graph=lambda: graphs.openvino_graph(layers),
    )
    return network.build(plan, EngineSettings(engine=engine, precision=precision), "test")


def expected(pixels, arrays, slope):
    """The tiny network by hand, pixel by pixel."""

    def conv(x, kernel, bias):
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        out = np.empty((len(kernel), *x.shape[1:]), np.float64)
        for i, j in np.ndindex(*x.shape[1:]):
            out[:, i, j] = (kernel * padded[None, :, i : i + 3, j : j + 3]).sum((1, 2, 3)) + bias
        return out

    first = conv(pixels, *arrays[0])
    first = np.where(first > 0, first, 0.2 * first)
    bent = np.where(first > 0, first, slope[:, None, None] * first)
    last = conv(0.2 * conv(bent, *arrays[1]) + bent, *arrays[2])
    shuffled = (
        last.reshape(3, 4, 4, *pixels.shape[1:]).transpose(0, 3, 1, 4, 2).reshape(3, *(4 * np.array(pixels.shape[1:])))
    )
    return shuffled + pixels.repeat(4, axis=1).repeat(4, axis=2)


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_a_network_of_ncnn_computes_what_its_files_say(tmp_path, engine):
    rng = np.random.default_rng(1)
    arrays, slope = tiny(tmp_path, rng)
    pixels = rng.random((3, 6, 5)).astype(np.float32)
    found = built(tmp_path, engine)(pixels[None])[0][0]
    assert np.allclose(found, expected(pixels, arrays, slope), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p, b: (p.replace("7767517", "1"), b), "not a network of ncnn"),
        (lambda p, b: (p.replace("PReLU", "Softmax"), b), "Softmax is not known"),
        (lambda p, b: (p.replace("9=2", "9=1"), b), "activation of first"),
        (lambda p, b: (p.replace("11 12", "12 12"), b), "not a network of ncnn"),
        (lambda p, b: (p, b[:-8]), "ends in the middle of last"),
        (lambda p, b: (p, b + b"1234"), "4 bytes too many"),
        (lambda p, b: (p, b"\1\2\3\4" + b[4:]), "weights of first"),
    ],
)
def test_files_that_are_not_the_network_are_refused(folder, tmp_path, change, words):
    param, weights = change((folder / "model.param").read_text(), (folder / "model.bin").read_bytes())
    (tmp_path / "model.param").write_text(param)
    (tmp_path / "model.bin").write_bytes(weights)
    with pytest.raises(WeightsError, match=words):
        ncnn.read(tmp_path / "model.param", tmp_path / "model.bin")


@pytest.mark.parametrize("length", [1, 7, 31, 32, 33, 40, 63, 64, 100, 1001])
@pytest.mark.parametrize(("side", "margin"), [(32, 4), (32, 15), (33, 0)])
def test_windows_join_and_see_enough(length, side, margin):
    parts = windows(length, side, margin)
    assert [p.kept_from for p in parts] == [0, *(p.kept_to for p in parts[:-1])]
    assert parts[-1].kept_to == length
    assert {p.stop - p.start for p in parts} == {min(length, side)}
    for part in parts:
        assert 0 <= part.start <= part.kept_from < part.kept_to <= part.stop <= length
        assert part.start == 0 or part.kept_from - part.start >= margin
        assert part.stop == length or part.stop - part.kept_to >= margin


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (70, 2), (50, 61)])
@pytest.mark.parametrize("scale", [2, 4])
def test_tiles_are_the_whole(folder, size, scale):
    rgb = np.random.default_rng(2).integers(0, 256, (*size, 3), np.uint8)
    net = built(folder)
    whole = enlarged(rgb, net, scale=scale, side=1000)
    tiled = enlarged(rgb, net, scale=scale, side=24, margin=3)  # three convolutions see three pixels far
    assert whole.shape == (size[0] * scale, size[1] * scale, 3)
    assert np.array_equal(whole, tiled)


def test_twice_is_the_mean_of_four_times(folder):
    rgb = np.random.default_rng(3).integers(0, 256, (9, 8, 3), np.uint8)
    four = enlarged(rgb, built(folder)).astype(float)
    means = four.reshape(18, 2, 16, 2, 3).mean((1, 3))
    assert np.abs(enlarged(rgb, built(folder), scale=2) - means).max() <= 1  # both are rounded


def test_progress_is_told_and_work_can_be_stopped(folder):
    told = []
    rgb = np.zeros((40, 30, 3), np.uint8)
    enlarged(rgb, built(folder), side=24, margin=3, ctx=Context(progress=lambda done, line: told.append(done)))
    assert told == sorted(told)
    assert len(told) == 4
    assert told[-1] == 1
    ctx = Context()
    ctx.cancel.set()
    with pytest.raises(CancelledError):
        enlarged(rgb, built(folder), ctx=ctx)


@pytest.mark.parametrize(("size", "scale", "remedy"), [((6000, 4000), 4, "by 2"), ((20000, 9000), 4, "crop it$")])
def test_what_would_be_too_large_is_refused(size, scale, remedy):
    image = Image(np.broadcast_to(np.uint8(0), (size[1], size[0], 3)), name="huge.png")
    with pytest.raises(MediaError, match=rf"huge\.png: {scale} times .* the most is {LARGEST // 10**6}.*{remedy}"):
        check_size(image, scale)


@pytest.mark.weights
@pytest.mark.parametrize(("model", "most"), [(DRAWINGS, 0), (PHOTOS, 5)])
def test_real_tiles_show_no_seam(load, example, model, most):
    loaded = load(model)
    assert isinstance(loaded, RealEsrgan)
    rgb = Image.of(example("cat.jpg")).array[100:132, 60:230]
    whole, tiled = (enlarged(rgb, loaded._loaded(), side=side) for side in (1000, 128))
    apart = np.abs(whole.astype(int) - tiled)
    assert np.percentile(apart, 99.9) <= most  # the deep network sees further than any margin
    assert apart.mean() < 0.2


@pytest.mark.weights
def test_a_photograph_keeps_its_look(load, example):
    image = Image.of(example("cat.jpg")).crop((150, 90, 210, 140))
    (made,) = load(PHOTOS).run([UpscaleRequest.of(image=image, scale=2)], Context())
    assert made.image.size == (120, 100)
    small = made.image.array.reshape(50, 2, 60, 2, 3).mean((1, 3))
    assert np.abs(small - image.array).mean() < 8


@pytest.mark.weights
@pytest.mark.parametrize(("engine", "precision", "mean"), [("torch", "f32", 0.01), ("openvino", "bf16", 1.5)])
def test_engines_agree(load, example, engine, precision, mean):
    rgb = Image.of(example("cat.jpg")).array[100:132, 150:190]
    first = enlarged(rgb, load(DRAWINGS)._loaded())
    other = enlarged(rgb, load(DRAWINGS, engine=engine, precision=precision)._loaded())
    assert np.abs(first.astype(int) - other).mean() < mean
