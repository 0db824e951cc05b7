"""torch: the tower as a module, with its normalisation folded away, eager or compiled."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lance_align.encoders.devices import Precision, full_precision, precision_name
from lance_align.encoders.engines.base import EngineName, Features, Pixels
from lance_align.encoders.engines.staging import on_device
from lance_align.encoders.memory import PassSize, free_memory, is_out_of_memory
from lance_align.encoders.pixels import PixelTower

# Each convolution of an EfficientNet in transformers, and the normalisation behind it.
_PAIRS = (
    ("convolution", "batchnorm"),
    ("expand_conv", "expand_bn"),
    ("depthwise_conv", "depthwise_norm"),
    ("project_conv", "project_bn"),
)
# Of one forward pass. On CPUs more pictures fall out of the caches: 3.9 images/s at 4 pictures of 289 pixels, 3.2 at
# 16, 3.4 at 1 (two cores of an EPYC, noisy). On a GPU 128 of them hold about 8 GB of activations in float32.
PIXELS_PER_BATCH = {"cpu": 4 * 289 * 289, "mps": 32 * 289 * 289, "cuda": 128 * 289 * 289}
_FORMATS = (torch.contiguous_format, torch.channels_last)
_TRIALS = 3


class ModuleEngine:
    """A tower as a module.

    Args:
        tower: in eval mode, on its device; it is not changed.
        device: of the tower.
        batch_size: most images of one forward pass; None for what fits. Memory that runs out makes it smaller.
        compiled: whether `torch.compile` makes kernels of it, at the first call: about a minute, which torch keeps on
            disk for the next process. All forward passes then have the size of a whole batch.
    """

    name: EngineName
    precision: Precision

    def __init__(
        self, tower: PixelTower, device: torch.device, *, batch_size: int | None, compiled: bool = False
    ) -> None:
        self.name = "compiled" if compiled else "torch"
        self._forward: Any = torch.compile(tower, dynamic=False) if compiled else tower
        self._device = device
        self.precision = precision_name(tower.dtype)
        self._pass = PassSize(batch_size or max(1, PIXELS_PER_BATCH[device.type] // tower.image.pixels))

    @property
    def halved(self) -> int:
        """How often a forward pass did not fit into memory, so that all later ones are smaller."""
        return self._pass.halved

    def __call__(self, pixels: Pixels) -> Features:
        """See `Engine`; a pass that does not fit into memory is halved, down to one image."""
        return self._pass.fit(lambda: self._features(pixels), most=self._whole(len(pixels)))

    @torch.inference_mode()
    def _features(self, pixels: Pixels) -> Features:
        size = self._pass.size
        batches = (pixels[start : start + size] for start in range(0, len(pixels), size))
        with full_precision(self._device):
            found = [self._forward(batch) for batch in on_device(batches, self._device, whole=self._whole)]
            features: Features = torch.cat(found)[: len(pixels)].cpu().numpy()
        return features

    def _whole(self, rows: int) -> int:
        """A pass is filled up with black images, which no vector depends on, where sizes should be few."""
        if self.name == "compiled":
            return self._pass.size
        # cuDNN looks for its fastest algorithms anew for each size.
        return min(self._pass.size, 1 << (rows - 1).bit_length()) if self._device.type == "cuda" else rows


def prepare(tower: PixelTower, device: torch.device, dtype: torch.dtype, *, fold: bool = True) -> None:
    """Make a tower faster, in place; in float32 it gives the same vectors.

    With `fold`, each BatchNorm goes into the weights of the convolution before it: y = g (Wx - m) / s + b is one linear
    map. Then the weights take `dtype`. On CPUs the channels of a pixel lie side by side; on GPUs both orders are tried,
    for which is faster depends on the card (timm's tables).
    """
    for module in tower.modules() if fold else ():
        for convolution, normalisation in _PAIRS:
            if hasattr(module, convolution) and hasattr(module, normalisation):
                folded = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, normalisation))
                setattr(module, convolution, folded)
                setattr(module, normalisation, nn.Identity())
    tower.use(dtype=dtype, memory_format=torch.channels_last)
    if device.type == "cuda":
        tower.use(dtype=dtype, memory_format=min(_FORMATS, key=lambda order: _seconds(tower, device, dtype, order)))


def _seconds(tower: PixelTower, device: torch.device, dtype: torch.dtype, memory_format: torch.memory_format) -> float:
    """Of a forward pass of a quarter of a batch on a GPU, the best of some; endless where it does not fit."""
    try:
        return _fastest(tower, device, dtype, memory_format)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    free_memory()  # the engine will find the pass that fits
    return float("inf")


@torch.inference_mode()
def _fastest(tower: PixelTower, device: torch.device, dtype: torch.dtype, memory_format: torch.memory_format) -> float:
    tower.use(dtype=dtype, memory_format=memory_format)
    rows = max(1, PIXELS_PER_BATCH[device.type] // (4 * tower.image.pixels))
    pixels = torch.randint(0, 256, (rows, *tower.image.shape), dtype=torch.uint8, device=device)
    best = float("inf")
    for _ in range(1 + _TRIALS):  # the first one chooses algorithms
        torch.cuda.synchronize(device)
        started = time.perf_counter()
        with full_precision(device):
            tower(pixels)
        torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return best
