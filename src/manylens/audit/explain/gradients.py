"""Methods that need gradients, and occlusion on tensors: Grad-CAM, integrated gradients, captum's occlusion."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from manylens.audit.explain.options import Baseline, Options
from manylens.audit.explain.pictures import emptied
from manylens.audit.explain.saliency import Opened, Saliency
from manylens.errors import EngineError, PromptError, UnsupportedError
from manylens.media import Image

if TYPE_CHECKING:
    import torch

_GAP = 0.05  # how much of the score integrated gradients may miss before it is said


def grad_cam(opened: Opened, options: Options) -> Saliency:
    """Class activation map weighted by gradients (Selvaraju et al., 2017).

    A layer's channels are weighted by the mean of the score's gradient over the picture, added up, and kept where
    positive. A transformer's tokens are laid out on their grid first. Where no layer is named it is the last one whose
    places still matter: behind it a transformer reads the class token alone.

    Raises:
        PromptError: The layer is no tap of the model, or the score does not depend on it.
    """
    import torch

    taps = _candidates(opened, options.layer)
    with _watched(opened, list(taps.values())) as outputs, torch.enable_grad():
        score = opened.score(opened.pixels.clone().requires_grad_()).sum()
        seen = {name: outputs[tap] for name, tap in taps.items() if tap in outputs}
        gradients = torch.autograd.grad(score, list(seen.values()), allow_unused=True) if seen else ()
    for (name, output), gradient in reversed(list(zip(seen.items(), gradients, strict=True))):
        if gradient is None:
            continue
        maps, slopes = (_as_maps(opened, tensor.detach())[0] for tensor in (output, gradient))
        if slopes.abs().max() > 0:
            cam = (slopes.mean(dim=(1, 2))[:, None, None] * maps).sum(dim=0).relu()
            return Saliency(cam.numpy(), details={"layer": name})
    raise PromptError(f"layer {options.layer or 'any'}: the score does not depend on its places", "name another layer")


def integrated_gradients(opened: Opened, options: Options) -> Saliency:
    """Gradients added up on the straight way from a baseline to the picture (Sundararajan et al., 2017); captum's.

    The attributions sum to the difference of the two scores; ``details`` say how nearly, as ``gap`` (absolute) and
    ``gap_share`` (of the difference).
    """
    captum = _captum()
    baseline = _baseline(opened, options.baseline or "black")
    method = captum.IntegratedGradients(opened.score)
    found, _ = method.attribute(
        opened.pixels,
        baselines=baseline,
        n_steps=options.steps,
        internal_batch_size=options.batch,
        return_convergence_delta=True,
    )
    here, there = (_value(opened, pixels) for pixels in (opened.pixels, baseline))
    total = float(found.sum())
    gap = abs(total - (here - there))
    details: dict[str, Any] = {"score": here, "baseline_score": there, "sum": total, "gap": gap}
    details["gap_share"] = gap / max(abs(here - there), 1e-12)
    notes = [f"the parts miss the whole by {details['gap_share']:.0%}: take more steps"]
    return Saliency(
        found.detach()[0].sum(dim=0).float().numpy(),
        signed=True,
        details=details | ({"notes": notes} if details["gap_share"] > _GAP else {}),
    )


def occlusion(opened: Opened, options: Options) -> Saliency:
    """How much the score sinks when a square is covered (Zeiler & Fergus, 2014), on tensors; captum's."""
    import torch

    captum = _captum()
    side = max(2, round(min(opened.pixels.shape[-2:]) * options.window))
    stride = max(1, round(side * (options.stride or 0.5)))
    with torch.no_grad():
        found = captum.Occlusion(opened.score).attribute(
            opened.pixels,
            sliding_window_shapes=(3, side, side),
            strides=(3, stride, stride),
            baselines=_baseline(opened, options.baseline or "mean"),
            perturbations_per_eval=options.batch,
        )
    details = {"window": side, "stride": stride}
    return Saliency(found[0].mean(dim=0).float().numpy(), signed=True, details=details)


def _value(opened: Opened, pixels: torch.Tensor) -> float:
    import torch

    with torch.no_grad():
        return float(opened.score(pixels)[0])


def _baseline(opened: Opened, kind: Baseline) -> torch.Tensor:
    return opened.trainable.preprocess([Image.of(emptied(opened.image, kind))])


def _candidates(opened: Opened, layer: str | None) -> dict[str, torch.nn.Module]:
    """The layers to try by name, first to last: the one that is named, or the blocks and what comes after them."""
    taps = opened.trainable.taps
    if layer is not None:
        if layer not in taps:
            raise PromptError(f"layer {layer!r}: the model has none of that name", f"name one of {', '.join(taps)}")
        return {layer: taps[layer]}
    found = {f"block.{i}": block for i, block in enumerate(opened.trainable.blocks)}
    return found | ({"features": taps["features"]} if "features" in taps else {})


@contextmanager
def _watched(opened: Opened, modules: list[Any]) -> Iterator[dict[Any, torch.Tensor]]:
    """What the modules give while the block runs, by module."""
    outputs: dict[Any, torch.Tensor] = {}

    def keep(module: Any, given: Any, made: Any) -> None:
        outputs[module] = made[0] if isinstance(made, tuple) else made

    hooks = [module.register_forward_hook(keep) for module in modules]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _as_maps(opened: Opened, output: torch.Tensor) -> torch.Tensor:
    """A layer's output as ``(B, C, h, w)``; tokens lose those before the patches."""
    patch, prefix = opened.trainable.patch, opened.trainable.prefix
    if output.ndim == 4:
        return output
    if output.ndim != 3 or not patch:
        raise UnsupportedError(f"layer output {tuple(output.shape)}: neither maps nor tokens", "name another layer")
    rows, columns = (side // patch for side in opened.pixels.shape[-2:])
    return output[:, prefix:].transpose(1, 2).unflatten(2, (rows, columns))


def _captum() -> Any:
    try:
        import captum.attr
    except ImportError as error:
        raise EngineError(
            "captum is not installed, and this method needs it", "run pip install 'manylens[audit]'"
        ) from error
    return captum.attr
