"""Masked autoencoding: most of a picture is hidden, and drawn from the rest (He et al., 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from manylens.training.selfsupervised import masking
from manylens.training.selfsupervised.options import Options
from manylens.training.selfsupervised.towers import Seen, Vit


class MaeOptions(Options):
    """How a picture is hidden and drawn again.

    Attributes:
        ratio: Share of patches that the encoder does not see.
        width: Of the decoder; a multiple of four times its heads.
        depth: Blocks of the decoder.
        heads: Of its attention.
        normalise: Whether each patch is drawn with its mean and contrast taken off, which teaches more.
    """

    ratio: float = Field(default=0.75, gt=0, lt=1)
    width: int = Field(default=256, ge=4)
    depth: int = Field(default=2, ge=1)
    heads: int = Field(default=4, ge=1)
    normalise: bool = True


class Mae(nn.Module):
    """An encoder that sees some patches, and a light decoder that draws the others; only the encoder is kept.

    Args:
        tower: The encoder.
        mean: What is taken from each channel of pixels in 0..1.
        std: What the rest is then divided by.
        options: How it is done.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, tower: Vit, mean: Sequence[float], std: Sequence[float], options: MaeOptions | None = None
    ) -> None:
        super().__init__()
        self.options = options = options or MaeOptions()
        self.tower = tower
        width = options.width
        self.enter = nn.Linear(tower.width, width)
        self.hidden = nn.Parameter(torch.empty(width))
        nn.init.normal_(self.hidden, std=0.02)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, options.heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(options.depth)
        )
        self.norm = nn.LayerNorm(width)
        self.draw = nn.Linear(width, 3 * tower.patch**2)
        scale = 1 / torch.tensor(std, dtype=torch.float32)
        self.register_buffer("scale", scale[:, None, None], persistent=False)
        self.register_buffer("shift", (-torch.tensor(mean) * scale)[:, None, None], persistent=False)

    @property
    def encoder(self) -> Vit:
        """The encoder to keep."""
        return self.tower

    def normalised(self, pixels: Tensor) -> Tensor:
        """Pixels in 0..1 as the encoder takes them."""
        return torch.addcmul(self.shift, pixels, self.scale)

    def forward(self, pixels: Tensor, numbers: Tensor) -> dict[str, Tensor]:
        """How wrong the hidden patches are drawn.

        Args:
            pixels: In 0..1, ``(B, 3, H, W)``, whole patches.
            numbers: In 0..1, ``(B, N)``: by them it is chosen what is hidden.

        Returns:
            ``loss``, the mean squared error over the pixels of hidden patches, a scalar; and ``vectors`` ``(B, D)``.
        """
        pixels = self.normalised(pixels)
        keep = masking.kept(numbers, self.options.ratio)
        seen = self.tower(pixels, keep=keep)
        wanted = patches_of(pixels, self.tower.patch)
        if self.options.normalise:
            wanted = standardised(wanted)
        hidden = torch.ones(numbers.shape, device=pixels.device).scatter_(1, keep, 0.0)
        errors = (self.drawn(seen, keep).float() - wanted).square().mean(dim=-1)
        return {"loss": (errors * hidden).sum() / hidden.sum(), "vectors": seen.vector.detach()}

    def drawn(self, seen: Seen, keep: Tensor) -> Tensor:
        """All patches as they are drawn from what was seen of the kept ones, ``(B, N, 3 * patch²)``."""
        count, width = seen.grid[0] * seen.grid[1], self.options.width
        tokens = self.enter(seen.patches)
        whole = self.hidden.to(tokens.dtype).expand(len(tokens), count, -1)
        whole = whole.scatter(1, keep[..., None].expand(-1, -1, width), tokens)
        whole = whole + places(seen.grid, width, tokens.device)
        whole = torch.cat([self.enter(seen.vector)[:, None], whole], dim=1)
        for block in self.blocks:
            whole = block(whole)
        found: Tensor = self.draw(self.norm(whole[:, 1:]))
        return found


def patches_of(pixels: Tensor, patch: int) -> Tensor:
    """Pixels ``(B, 3, H, W)`` as patches ``(B, N, patch * patch * 3)``, row by row; a pixel's channels are together."""
    batch, channels, height, width = pixels.shape
    cells = pixels.view(batch, channels, height // patch, patch, width // patch, patch)
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch * patch * channels)


def standardised(patches: Tensor) -> Tensor:
    """Each patch with its mean taken off and its deviation set to 1."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


def places(grid: tuple[int, int], width: int, device: torch.device) -> Tensor:
    """Where each patch is, as sines and cosines: ``(rows * columns, width)``; half for the row, half for the column."""
    rows, columns = grid
    rates = 1 / 10000 ** (torch.arange(width // 4, device=device) / (width / 4))
    y, x = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
    waves = [one.flatten()[:, None] * rates for one in (y, x)]
    return torch.cat([turned for wave in waves for turned in (wave.sin(), wave.cos())], dim=1)
