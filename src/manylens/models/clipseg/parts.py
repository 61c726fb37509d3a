"""CLIPSeg in three parts, so that a picture is encoded once for all words."""

from __future__ import annotations

from typing import Any

import torch


class _Encoder(torch.nn.Module):
    """Pixels ``(1, 3, h, w)`` to the states of the layers that the decoder reads, ``(layers, 1, tokens, D)``."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vision, self.layers = model.clip.vision_model, tuple(model.extract_layers)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        hidden = self.vision.pre_layrnorm(self.vision.embeddings(pixels, interpolate_pos_encoding=True))
        states = []
        for number, layer in enumerate(self.vision.encoder.layers[: max(self.layers) + 1]):
            hidden = layer(hidden, attention_mask=None)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
            if number in self.layers:
                states.append(hidden)
        return torch.stack(states)


class _Decoder(torch.nn.Module):
    """States and a text's vector ``(1, D)`` to logits ``(1, side, side)``."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.decoder = model.decoder

    def forward(self, states: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        logits = self.decoder(tuple(states.unbind(0)), vector).logits
        return logits.reshape(1, *logits.shape[-2:])


class _Text(torch.nn.Module):
    """Token ids ``(N, L)`` to vectors ``(N, D)``."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.clip = model.clip

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        found = self.clip.get_text_features(input_ids=ids)
        return getattr(found, "pooler_output", found)


_PARTS = {"encoder": _Encoder, "decoder": _Decoder, "text": _Text}


def part(model: Any, name: str) -> torch.nn.Module:
    """One part: ``encoder``, ``decoder`` or ``text``."""
    return _PARTS[name](model).eval()
