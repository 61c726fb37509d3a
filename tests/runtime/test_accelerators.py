import pytest

from manylens.errors import UserError
from manylens.runtime import accelerators
from manylens.session import Session


@pytest.mark.parametrize(
    ("device", "gpu", "said"),
    [
        ("cpu", False, None),
        ("cuda", True, None),
        ("cuda:1", True, None),
        ("cuda", False, "device cuda: torch finds no GPU here"),
        ("gpu", True, "device 'gpu': no such device"),
        ("cuda:x", True, "no such device"),
        ("", True, "no such device"),
    ],
)
def test_a_device_that_is_not_here_is_refused(device, gpu, said, monkeypatch):
    monkeypatch.setattr(accelerators, "cuda", lambda: gpu)
    if said is None:
        assert accelerators.check(device) == device
    else:
        with pytest.raises(UserError, match=said):
            accelerators.check(device)


def test_a_session_refuses_it_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(accelerators, "cuda", lambda: False)
    with pytest.raises(UserError, match="no GPU here"):
        Session(home=tmp_path, device="cuda")


def test_torch_is_not_loaded_to_look_for_a_gpu_where_no_driver_is(monkeypatch, tmp_path):
    monkeypatch.setattr(accelerators, "_DEVICE_FILES", (tmp_path / "nothing",))
    monkeypatch.setitem(__import__("sys").modules, "torch", None)  # an import would fail
    accelerators.cuda.cache_clear()
    assert accelerators.cuda() is False
    accelerators.cuda.cache_clear()
