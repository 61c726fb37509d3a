import numpy as np
import pytest

from manylens.errors import WeightsError
from manylens.models import names
from manylens.tasks import ClassifyRequest

LITE0, LITE3 = "manylens/efficientnet-lite0", "manylens/efficientnet-lite3"


@pytest.mark.parametrize("size", [(224, 224), (225, 190), (7, 33), (1, 1)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2), (1, 1)])
def test_convolutions_pad_as_tensorflow_does(size, kernel, stride):
    import torch

    from manylens.models.lite0.module import _SameConv

    convolve = _SameConv(1, 1, kernel, stride)
    picture = torch.randn(1, 1, *size)
    found = convolve(picture)
    assert found.shape[-2:] == tuple(-(-side // stride) for side in size)
    # TensorFlow's rule by hand, for the first output pixel: how far the window hangs over the top left corner.
    over = [max((-(-side // stride) - 1) * stride + kernel - side, 0) // 2 for side in size]
    window = torch.nn.functional.pad(picture, (over[1], kernel, over[0], kernel))[0, 0, :kernel, :kernel]
    assert found[0, 0, 0, 0].item() == pytest.approx((window * convolve.weight[0, 0]).sum().item(), abs=1e-5)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    from manylens.models.lite0 import module

    broken = tmp_path / "efficientnet-lite0-57934424.pth"
    broken.write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError, match=r"efficientnet-lite0-57934424\.pth: not the network that it should be"):
        module.load(broken)


@pytest.mark.weights
@pytest.mark.parametrize(
    ("photograph", "everyday"),
    [("cat.jpg", "cat"), ("photographer.jpg", "tripod"), ("sign.png", "street sign")],
)
def test_photographs_are_what_they_show(run, example, photograph, everyday):
    found = run(LITE0, ClassifyRequest.of(image=example(photograph), top=1000), engine="torch")
    assert names.everyday(found.best.name) == everyday
    assert found.best.score > 0.5
    assert sum(label.score for label in found.labels) == pytest.approx(1, abs=1e-5)


@pytest.mark.weights
def test_its_labels_are_those_of_lite3(run, example):
    request = ClassifyRequest.of(image=example("cat.jpg"), top=1000)
    both = [{label.name for label in run(model, request).labels} for model in (LITE0, LITE3)]
    assert both[0] == both[1]


@pytest.mark.weights
def test_names_to_choose_from(run, example):
    found = run(LITE0, ClassifyRequest.of(image=example("cat.jpg"), names=["dog", "cat"]), engine="torch")
    assert found.best.name == "cat"


@pytest.mark.weights
def test_the_trainable_form_is_a_copy_and_differentiable(load, example):
    import torch

    from manylens.media import Image

    model = load(LITE0, engine="torch")
    picture = Image.of(example("cat.jpg"))
    opened = model.trainable()
    pixels = opened.preprocess([picture, picture]).requires_grad_()
    outputs = opened.forward(pixels)
    outputs["logits"].sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0
    assert outputs["image"].norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert names.everyday(opened.labels[int(outputs["logits"][0].argmax())]) == "cat"
    square = ((pixels.detach()[:1] * 128 + 127).permute(0, 2, 3, 1).round()).numpy().astype(np.uint8)
    assert model.logits(square) == pytest.approx(outputs["logits"][:1].detach().numpy(), abs=1e-3)
    before = model.logits(square)
    with torch.no_grad():
        opened.parts["head"].weight.zero_()
    assert (model.logits(square) == before).all()
