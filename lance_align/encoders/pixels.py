"""uint8 pixels to a module's input, beside the model."""

from __future__ import annotations

import torch
from torch import nn

from lance_align.spec import ImageSpec


class PixelInput(nn.Module):
    """What takes uint8 pixels ``(n, *image.shape)``.

    Args:
        image: what the pixels have been through, and how they are scaled.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, image: ImageSpec) -> None:
        super().__init__()
        self.image = image
        self._dtype, self._memory_format = torch.float32, torch.contiguous_format
        self.register_buffer("scale", torch.empty(3), persistent=False)
        self.register_buffer("shift", torch.empty(3), persistent=False)
        self.set_scale()

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return self._dtype

    def set_scale(self) -> None:
        """Take scale and shift from the spec."""
        self.scale.copy_(torch.tensor(self.image.scale))
        self.shift.copy_(torch.tensor(self.image.shift))

    def use(self, *, dtype: torch.dtype, memory_format: torch.memory_format = torch.contiguous_format) -> None:
        """Compute in a type and an order of memory; pixels are scaled in float32."""
        self._dtype, self._memory_format = dtype, memory_format
        scale, shift = self.scale, self.shift
        self.to(dtype=dtype, memory_format=memory_format)  # type: ignore[call-overload]  # torch leaves it out
        self.scale, self.shift = scale, shift

    def scaled(self, pixels: torch.Tensor) -> torch.Tensor:
        """``(n, 3, height, width)`` as the model was trained on; of videos, n x frames of them."""
        found = torch.addcmul(self.shift, pixels.to(torch.float32), self.scale).flatten(0, -4).permute(0, 3, 1, 2)
        return found.to(self._dtype).contiguous(memory_format=self._memory_format)


class PixelTower(PixelInput):
    """uint8 pixels to features ``(n, dim) float32``, not yet normalised."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.features(self.scaled(pixels)).to(torch.float32)

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features ``(n, dim)`` of scaled pixels."""
        raise NotImplementedError


class PairTower(PixelInput):
    """uint8 pixels ``(n, *image.shape)`` and something of texts, looked at together, to float32."""

    def forward(self, pixels: torch.Tensor, *texts: torch.Tensor) -> torch.Tensor:
        return self.pairs(self.scaled(pixels), *texts).to(torch.float32)

    def pairs(self, pixels: torch.Tensor, *texts: torch.Tensor) -> torch.Tensor:
        """Of scaled pixels."""
        raise NotImplementedError
