import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from manylens.errors import EngineError
from manylens.runtime import compiled_cache, engines
from manylens.runtime.cpu import has_bf16, threads
from manylens.runtime.engines import EngineSettings
from manylens.runtime.held import Held
from manylens.runtime.paths import compiled_folder

onnx = pytest.importorskip("onnx")


def network(scale: float = 1.0, size: int = 64) -> bytes:
    """ONNX: ``hidden = image @ weights``, ``sum = hidden + other``; a free batch side."""
    from onnx import TensorProto, helper, numpy_helper

    weights = scale * np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["image:0", "w"], ["hidden"]),
            helper.make_node("Add", ["hidden", "other"], ["sum"]),
        ],
        "toy",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name in ("image:0", "other")],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["n", size])],
        [numpy_helper.from_array(weights, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return made.SerializeToString()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "toy.onnx").write_bytes(network())
    return tmp_path / "toy.onnx"


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)


def expected(image: np.ndarray, scale: float = 1.0) -> np.ndarray:
    return image @ (scale * np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32))


def blobs() -> list[Path]:
    return sorted(compiled_folder().rglob("*.npz"))


def test_default_settings_are_f32_on_all_cores() -> None:
    settings = EngineSettings()
    assert (settings.engine, settings.precision, settings.threads, settings.device) == (
        "openvino",
        "f32",
        threads(),
        "cpu",
    )
    assert EngineSettings(**settings.to_json()) == settings  # type: ignore[arg-type]
    assert settings.label == "openvino f32"
    assert EngineSettings("torch", "bf16", device="cuda").label == "torch bf16 cuda"


def test_arrays_in_arrays_out(path: Path, image: np.ndarray) -> None:
    toy = engines.compile(path)
    assert toy.inputs == ("image:0", "other")
    assert toy.outputs == ("sum",)
    by_order, by_name = toy(image, image), toy(**{"other": image, "image:0": image})
    np.testing.assert_allclose(by_order[0], expected(image) + image, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(by_order[0], by_name[0])
    (mixed,) = toy(image, other=0 * image)
    np.testing.assert_allclose(mixed, expected(image), rtol=1e-4, atol=1e-4)


def test_inputs_of_any_layout_and_read_only_ones(path: Path, image: np.ndarray) -> None:
    toy = engines.compile(path)
    image.flags.writeable = False
    strided = np.asfortranarray(image)
    np.testing.assert_array_equal(toy(strided, strided)[0], toy(image, image)[0])


def test_results_belong_to_the_caller(path: Path, image: np.ndarray) -> None:
    toy = engines.compile(path)
    (first,) = toy(image, image)
    kept = first.copy()
    toy(image * 5, image)
    np.testing.assert_array_equal(first, kept)
    first[:] = 0


@pytest.mark.parametrize(
    "source", [str, Path, lambda path: path.read_bytes(), lambda path: engines.core().read_model(path)]
)
def test_every_kind_of_source(path: Path, image: np.ndarray, source: Callable) -> None:
    (result,) = engines.compile(source(path))(image, image)
    np.testing.assert_allclose(result, expected(image) + image, rtol=1e-4, atol=1e-4)


def test_a_model_in_memory_stays_as_it_is(path: Path) -> None:
    model = engines.core().read_model(path)
    engines.compile(model, reshape={"image:0": (2, 64)}, outputs=["hidden"])
    assert str(model.inputs[0].get_partial_shape()) == "[?,64]"
    assert len(model.outputs) == 1
    assert "sum" in model.outputs[0].get_names()


def test_inner_outputs_cut_the_rest_away(path: Path, image: np.ndarray) -> None:
    cut = engines.compile(path, outputs=["hidden"])
    assert cut.inputs == ("image:0",)
    np.testing.assert_allclose(cut(image)[0], expected(image), rtol=1e-4, atol=1e-4)
    both = engines.compile(path, outputs=["sum", "hidden"])
    total, hidden = both(image, image)
    np.testing.assert_allclose(total - hidden, image, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("reshape", [{"image:0": (3, 64)}, (3, 64), [-1, 64]])
def test_reshape(path: Path, image: np.ndarray, reshape: object) -> None:
    toy = engines.compile(path, outputs=["hidden"], reshape=reshape)  # type: ignore[arg-type]
    assert toy(image)[0].shape == (3, 64)
    if reshape != [-1, 64]:
        with pytest.raises(EngineError, match="inference failed"):
            toy(image[:2])


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_precision_and_threads_are_pinned(path: Path, mode: engines.Mode) -> None:
    for _ in range(2):  # compiled, then taken from the cache
        toy = engines.compile(path, EngineSettings(threads=1), mode=mode)
        assert toy.precision == "f32"
        live = toy._live()
        assert live.get_property("INFERENCE_NUM_THREADS") == 1
        assert live.get_property("ENABLE_CPU_PINNING") is False


@pytest.mark.skipif(not has_bf16(), reason="the processor has no bf16")
def test_bf16_is_another_number_and_close(path: Path, image: np.ndarray) -> None:
    exact = engines.compile(path, EngineSettings(precision="f32"))(image, image)[0]
    rough = engines.compile(path, EngineSettings(precision="bf16"))
    assert rough.precision == "bf16"
    result = rough(image, image)[0]
    assert not np.array_equal(result, exact)
    np.testing.assert_allclose(result, exact, rtol=0.05, atol=0.3)


def test_the_compiled_form_is_kept_and_gives_the_same_numbers(path: Path, image: np.ndarray, monkeypatch) -> None:
    first = engines.compile(path)(image, image)[0]
    assert len(blobs()) == 1
    monkeypatch.setattr(engines, "_read", lambda model: pytest.fail("the file was read again"))
    again = engines.compile(path)
    assert (again.inputs, again.outputs) == (("image:0", "other"), ("sum",))
    np.testing.assert_array_equal(again(image, image)[0], first)


def test_whatever_changes_the_numbers_is_compiled_apart(path: Path, image: np.ndarray) -> None:
    engines.compile(path)
    engines.compile(path, EngineSettings(precision="bf16"))
    engines.compile(path, EngineSettings(threads=1))
    engines.compile(path, outputs=["hidden"])
    engines.compile(path, outputs=["hidden"], reshape=(3, 64))
    engines.compile(path, mode="throughput")
    assert len(blobs()) == 6 - (threads() == 1)


def test_another_file_of_the_same_name_is_not_taken_for_the_first(path: Path, image: np.ndarray) -> None:
    engines.compile(path)
    state = path.stat()
    path.write_bytes(network(scale=2.0))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert path.stat().st_size == state.st_size
    (result,) = engines.compile(path)(image, 0 * image)
    np.testing.assert_allclose(result, expected(image, 2.0), rtol=1e-4, atol=1e-4)


def test_a_model_in_memory_is_kept_by_the_name_of_its_content(path: Path, image: np.ndarray) -> None:
    model = engines.core().read_model(path)
    engines.compile(model)
    assert blobs() == []
    engines.compile(model, identity="sha256 of it")
    assert len(blobs()) == 1


@pytest.mark.parametrize("damage", [lambda data: data[:500], lambda data: b"", lambda data: data[:-300] + b"x" * 300])
def test_a_damaged_compiled_form_is_made_again(path: Path, image: np.ndarray, damage: Callable) -> None:
    first = engines.compile(path)(image, image)[0]
    (blob,) = blobs()
    whole = blob.read_bytes()
    blob.write_bytes(damage(whole))
    np.testing.assert_array_equal(engines.compile(path)(image, image)[0], first)
    assert blobs() == [blob]
    assert len(blob.read_bytes()) == len(whole)


def test_a_kept_network_outlives_its_file_and_is_let_go(path: Path, image: np.ndarray) -> None:
    first = engines.compile(path)(image, image)[0]
    (blob,) = blobs()
    for _ in range(3):  # each rests on a mapping of its own, and lets it go with the network
        kept = engines.compile(path)
        blob.rename(blob.with_suffix(".moved"))
        np.testing.assert_array_equal(kept(image, image)[0], first)
        blob.with_suffix(".moved").rename(blob)
        kept.close()
    compiled_cache._cache(compiled_folder()).clear()
    np.testing.assert_array_equal(engines.compile(path)(image, image)[0], first)


def test_a_compiled_form_that_openvino_refuses_is_made_again(path: Path, image: np.ndarray) -> None:
    first = engines.compile(path)(image, image)[0]
    (blob,) = blobs()
    compiled_cache._cache(compiled_folder()).put(blob.stem, {"blob": np.arange(99, dtype=np.uint8)})
    np.testing.assert_array_equal(engines.compile(path)(image, image)[0], first)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda path: engines.compile(path.with_name("none.onnx")), r"none.onnx: no such file"),
        (lambda path: engines.compile(path, outputs=["tail"]), r"has no tensor tail"),
        (lambda path: engines.compile(path, reshape={"image:0": (1, 63)}), r"toy.onnx: cannot be compiled"),
        (lambda path: engines.compile(b"hello"), r"network: not a network that OpenVINO reads"),
        (lambda path: engines.compile(path, EngineSettings("torch")), r"torch f32: not settings of the OpenVINO"),
        (lambda path: engines.compile(path, EngineSettings(device="cuda")), r"openvino f32 cuda: not settings"),
    ],
)
def test_what_cannot_be_compiled(path: Path, call: Callable, match: str) -> None:
    with pytest.raises(EngineError, match=match) as caught:
        call(path)
    assert "\n" not in str(caught.value)


def test_a_truncated_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(EngineError, match=r"toy.onnx: not a network that OpenVINO reads"):
        engines.compile(path)
    assert blobs() == []


@pytest.mark.parametrize(
    ("arrays", "named"),
    [((), {}), (("x",), {}), (("x", "x", "x"), {}), (("x", "x"), {"other": "x"}), (("x",), {"y": "x"})],
)
def test_wrong_inputs(path: Path, image: np.ndarray, arrays: tuple, named: dict) -> None:
    toy = engines.compile(path)
    with pytest.raises(EngineError, match=r"network: .*it has"):
        toy(*[image for _ in arrays], **dict.fromkeys(named, image))


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_threads_share_a_network(path: Path, mode: engines.Mode) -> None:
    toy = engines.compile(path, mode=mode)
    wrong = []

    def work(seed: int) -> None:
        image = np.random.default_rng(seed).standard_normal((seed % 4 + 1, 64)).astype(np.float32)
        alone = expected(image)
        for _ in range(30):
            if not np.allclose(toy(image, 0 * image)[0], alone, rtol=1e-3, atol=1e-3):
                wrong.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert wrong == []


def test_after_close(path: Path, image: np.ndarray) -> None:
    toy = engines.compile(path)
    toy(image, image)
    toy.close()
    for _ in range(2):
        with pytest.raises(EngineError, match="after it was closed"):
            toy(image, image)
    toy.close()


def test_one_core_for_all() -> None:
    found = []
    workers = [threading.Thread(target=lambda: found.append(engines.core())) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert len({id(core) for core in found}) == 1


def test_an_engine_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("No module named 'openvino'")

    monkeypatch.setattr(engines, "_core", missing)
    with pytest.raises(
        EngineError, match=r"openvino: does not run here \(No module named 'openvino'\); use --engine torch"
    ):
        engines.core()


def test_outputs_go_where_they_are_held_and_stay_there(path: Path, image: np.ndarray) -> None:
    compiled, zeros = engines.compile(path), np.zeros_like(image)
    first, second = np.empty_like(image), np.empty_like(image)
    compiled.into([Held(first)], image, zeros)
    compiled.into([Held(second)], 2 * image, zeros)
    (third,) = compiled(3 * image, zeros)
    for number, found in enumerate((first, second, third), 1):
        np.testing.assert_allclose(found, number * expected(image), rtol=1e-4, atol=1e-4)


def test_what_was_held_is_not_written_by_a_later_call(path: Path, image: np.ndarray) -> None:
    compiled, zeros, kept = engines.compile(path), np.zeros_like(image), image.copy()
    for given in (Held(kept), 2 * image, 3 * image[:1]):
        compiled(given, zeros if isinstance(given, Held) else np.zeros_like(given))
    np.testing.assert_array_equal(kept, image)


@pytest.mark.parametrize("rows", [1, 5])
def test_an_output_of_another_shape_is_refused(rows: int, path: Path, image: np.ndarray) -> None:
    with pytest.raises(EngineError, match=r"was to be written|inference failed"):
        engines.compile(path).into([Held(np.empty((rows, 64), np.float32))], image, image)


def test_what_is_cast_before_an_array_was_held_is_cast_after(path: Path, image: np.ndarray) -> None:
    compiled = engines.compile(path)
    for held in (False, True):
        other = Held(image) if held else image
        found = compiled(image.astype(np.float64), other)[0]
        np.testing.assert_allclose(found, expected(image) + image, rtol=1e-4, atol=1e-4)
        found = compiled(image.astype(np.float64), image.tolist())[0]
        np.testing.assert_allclose(found, expected(image) + image, rtol=1e-4, atol=1e-4)
