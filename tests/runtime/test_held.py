import numpy as np
import pytest
import torch

from manylens.runtime.held import Held, empty, write


def test_float32_is_written_as_it_is() -> None:
    numbers = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    array = empty((2, 5, 4), "f32")
    write(array[:, 1:4], numbers)
    assert (array[:, 1:4] == numbers).all()


def test_bfloat16_is_rounded_to_the_nearest() -> None:
    rng = np.random.default_rng(0)
    numbers = (rng.standard_normal((50, 40)) * 10.0 ** rng.integers(-20, 20, (50, 40))).astype(np.float32)
    numbers[0, :4] = 0, -0.0, 1, -65280
    array = empty(numbers.shape, "bf16")
    write(array, numbers)
    found = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    right = torch.from_numpy(numbers).bfloat16()
    # Halfway between two, this goes away from zero and torch to the even one; no number here is halfway.
    assert torch.equal(found, right)
    assert not torch.equal(found.float(), torch.from_numpy(numbers))


@pytest.mark.parametrize(("precision", "kind"), [("f32", "f32"), ("bf16", "bf16")])
def test_the_engine_has_the_same_memory(precision, kind) -> None:
    array = empty((1, 4, 2), precision)
    held = Held(array[:, 1:3])
    assert (held.tensor.element_type.get_type_name(), list(held.tensor.shape)) == (kind, [1, 2, 2])
    write(array, np.zeros((1, 4, 2), np.float32))
    write(array[:, 1:3], np.full((1, 2, 2), 3, np.float32))
    raw = np.frombuffer(held.tensor.data.tobytes(), array.dtype)
    assert (raw == array[0, 1].flat[0]).all()
