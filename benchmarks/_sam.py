"""A SAM checkpoint of the published size with seeded noise for weights, as a folder in the hub's format and as Meta's.

Its masks are noise, too, but as many and as sure as a trained model's: the quality head is shifted, and the logits are
spread, so that most masks pass the usual thresholds.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manylens.runtime.engines import EngineSettings

_VERSION = 1
_PREPROCESSOR = {
    "image_processor_type": "SamImageProcessor",
    "do_resize": True,
    "size": {"longest_edge": 1024},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "do_pad": True,
    "pad_size": {"height": 1024, "width": 1024},
}


def checkpoint(seed: int = 0) -> Path:
    """The folder of a SAM ViT-B of noise, made once and kept with the machine's temporary files (360 MB)."""
    folder = Path(tempfile.gettempdir()) / f"manylens-bench-sam-vit-b-{_VERSION}-{seed}"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=folder.parent) as name:
            made = Path(name) / "made"
            vit_b(seed).save_pretrained(made)
            (made / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSOR))
            try:
                made.replace(folder)
            except OSError:  # another process was faster
                shutil.rmtree(made, ignore_errors=True)
    return folder


def vit_b(seed: int = 0) -> Any:
    """``SamModel`` of ViT-B with every tensor noise: matrices by their fan-in, norms around one."""
    import torch
    from transformers import SamConfig, SamModel

    with torch.device("meta"):
        sam: Any = SamModel(SamConfig())
    sam = sam.to_empty(device="cpu")
    sam.tie_weights()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in sam.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim >= 2:
                fan = tensor[0].numel() if tensor.ndim > 2 or len(tensor) > 1 else tensor.shape[-1]
                tensor.copy_(noise / fan**0.5)
            else:
                tensor.copy_(0.2 * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
        sam.shared_image_embedding.positional_embedding.normal_(generator=generator)
        decoder = sam.mask_decoder
        decoder.iou_prediction_head.proj_out.weight.mul_(0.1)
        decoder.iou_prediction_head.proj_out.bias.copy_(torch.tensor([0.95, 0.94, 0.95, 0.96]))
        for part in decoder.output_hypernetworks_mlps:
            part.proj_out.weight.mul_(30)
            part.proj_out.bias.mul_(30)
    return sam.eval()


def loaded(folder: Path, attention: str = "eager") -> Any:
    """The checkpoint as plain transformers loads it, float32."""
    import torch
    from transformers import SamModel

    return SamModel.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention).eval()


@cache
def meta(folder: Path) -> Any:
    """The checkpoint as Meta's own model; see :func:`benchmarks._baselines.meta_sam.meta_sam`."""
    from benchmarks._baselines.meta_sam import meta_sam

    return meta_sam(loaded(folder))


def encoder_flops() -> float:
    """Floating-point operations of the matrix products of ViT-B's encoder for one picture, without padding.

    A multiplication and an addition count as two. Twelve blocks of 12 D^2 on each of 4096 tokens; scores and sums of
    attention over all tokens in four blocks and over windows of 196 in eight; the first convolution and the neck.
    """
    tokens, width, window = 64 * 64, 768, 14 * 14
    blocks = 12 * 12 * width**2 * tokens
    attention = 2 * width * tokens * (4 * tokens + 8 * window)
    ends = tokens * (3 * 16 * 16 * width + width * 256 + 9 * 256 * 256)
    return 2.0 * (blocks + attention + ends)


def settings() -> EngineSettings:
    """The fastest engine of a processor for SAM: OpenVINO, bf16 where the processor has it."""
    from manylens.runtime.engines import EngineSettings, has_bf16

    return EngineSettings("openvino", "bf16" if has_bf16() else "f32")


def opened(folder: Path, settings: EngineSettings) -> Any:
    """The checkpoint as manylens serves it."""
    from manylens import models
    from manylens.catalog import Catalog, WeightsStore

    row = Catalog.load().resolve(folder)
    return models.load(row, WeightsStore().ensure(row), settings)
