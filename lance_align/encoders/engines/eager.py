"""torch, one operation after the other: convolutions that have taken in their normalisation, channels last on CPUs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lance_align.encoders.devices import full_precision
from lance_align.encoders.engines.base import EngineName, Features, Pixels
from lance_align.encoders.towers import VisionTower

# Each convolution of an EfficientNet in transformers, and the normalisation behind it.
_PAIRS = (
    ("convolution", "batchnorm"),
    ("expand_conv", "expand_bn"),
    ("depthwise_conv", "depthwise_norm"),
    ("project_conv", "project_bn"),
)
# Of one forward pass. On CPUs more pictures fall out of the caches: 3.9 images/s at 4 pictures of 289 pixels, 3.2 at
# 16, 3.4 at 1 (two cores of an EPYC, noisy). On a GPU 128 of them hold about 8 GB of activations.
PIXELS_PER_BATCH = {"cpu": 4 * 289 * 289, "mps": 32 * 289 * 289, "cuda": 128 * 289 * 289}


class EagerEngine:
    """A tower as a module.

    Args:
        tower: in eval mode, on its device; it is not changed.
        device: of the tower.
        batch_size: most images of one forward pass; None for what fits.
    """

    name: EngineName = "torch"

    def __init__(self, tower: VisionTower, device: torch.device, *, batch_size: int | None) -> None:
        height, width = tower.image.crop
        self._tower, self._device = tower, device
        self._batch_size = batch_size or max(1, PIXELS_PER_BATCH[device.type] // (height * width))

    def __call__(self, pixels: Pixels) -> Features:
        """See `Engine`."""
        starts = range(0, len(pixels), self._batch_size)
        return np.concatenate([self._run(pixels[start : start + self._batch_size]) for start in starts])

    @torch.inference_mode()
    def _run(self, pixels: Pixels) -> Features:
        with full_precision(self._device):
            features: Features = self._tower(torch.tensor(pixels).to(self._device)).cpu().numpy()
        return features


def prepare(tower: VisionTower, device: torch.device) -> None:
    """Make a tower faster, in place, and not different.

    Each BatchNorm goes into the weights of the convolution before it: y = g (Wx - m) / s + b is one linear map. On CPUs
    the channels of a pixel lie side by side; on GPUs that is slower for EfficientNets on several cards (timm's tables).
    """
    for module in tower.modules():
        for convolution, normalisation in _PAIRS:
            if hasattr(module, convolution) and hasattr(module, normalisation):
                folded = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, normalisation))
                setattr(module, convolution, folded)
                setattr(module, normalisation, nn.Identity())
    if device.type == "cpu":
        tower.memory_format = torch.channels_last
        loose: Any = tower  # torch's annotations leave this argument out
        loose.to(memory_format=torch.channels_last)
