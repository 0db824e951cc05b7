"""uint8 pixels to an image tower's input, beside the model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lance_align.spec import ImageSpec


class PixelTower(nn.Module):
    """uint8 pixels ``(n, *image.shape)`` to features ``(n, dim) float32``, not yet normalised.

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

    def set_scale(self) -> None:
        """Take scale and shift from the spec."""
        self.scale.copy_(torch.tensor(self.image.scale))
        self.shift.copy_(torch.tensor(self.image.shift))

    def use(self, *, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
        """Compute in a type and an order of memory; pixels are scaled in float32, and features come in it."""
        self._dtype, self._memory_format = dtype, memory_format
        for part in self.children():
            loose: Any = part  # torch's annotations leave memory_format out
            loose.to(dtype=dtype, memory_format=memory_format)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        scaled = torch.addcmul(self.shift, pixels.to(torch.float32), self.scale).flatten(0, -4).permute(0, 3, 1, 2)
        scaled = scaled.to(self._dtype).contiguous(memory_format=self._memory_format)
        return self.features(scaled).to(torch.float32)

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features ``(n, dim)`` of scaled pixels ``(n, 3, height, width)``; of videos, n x frames of them."""
        raise NotImplementedError
