"""What a GPU can do at most, and how long passes take on it."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lance_align.benchmarks.measuring import Line
from lance_align.benchmarks.weights import IMAGE_FLOP
from lance_align.encoders.devices import full_precision
from lance_align.encoders.memory import free_memory, is_out_of_memory
from lance_align.encoders.pixels import PixelTower

WARM_UP = 2
# For the ceilings; those of a rehearsal on the CPU mean nothing.
_MATRIX = {"cuda": 8192, "cpu": 256}
_COPY_BYTES = {"cuda": 2**30, "cpu": 2**20}


@dataclasses.dataclass(frozen=True, slots=True)
class Card:
    """A GPU under measurement.

    Attributes:
        device: which.
        rounds: measured passes of each way.
        flops: measured rate of matrix products in FLOP/s, by type; float32 without TF32, as the towers compute.
        bandwidth: measured rate of a copy on the device, bytes read and written a second.
    """

    device: torch.device
    rounds: int
    flops: dict[torch.dtype, float]
    bandwidth: float

    @classmethod
    def measured(cls, device: torch.device, *, rounds: int) -> Card:
        """A GPU; or the CPU, to rehearse the benchmark."""
        size = _MATRIX[device.type]
        flops = {}
        for dtype in (torch.float32, torch.bfloat16):
            matrix = torch.randn(size, size, dtype=dtype, device=device)
            flops[dtype] = 2 * size**3 / min(seconds(matrix.matmul, matrix, device=device, rounds=10))
        source = torch.empty(_COPY_BYTES[device.type], dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        fastest = min(seconds(target.copy_, source, device=device, rounds=10))
        return cls(device=device, rounds=rounds, flops=flops, bandwidth=2 * source.numel() / fastest)

    def seconds(self, run: Callable[..., Any], *arguments: Any) -> list[float]:
        """Of `rounds` passes; none where the GPU has too little memory for it."""
        try:
            return seconds(run, *arguments, device=self.device, rounds=self.rounds)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return []
        finally:
            free_memory()

    def limits(self, images_a_second: float, dtype: torch.dtype, values_an_image: int) -> dict[str, float]:
        """A rate of the image tower as shares of what the card does at most.

        Args:
            images_a_second: the rate.
            dtype: computed in.
            values_an_image: see `activations`.
        """
        width = torch.finfo(dtype).bits // 8
        return {
            "percent of matrix peak": 100 * images_a_second * IMAGE_FLOP / self.flops[dtype],
            "percent of bandwidth": 100 * images_a_second * values_an_image * width / self.bandwidth,
        }


@torch.inference_mode()
def seconds(run: Callable[..., Any], *arguments: Any, device: torch.device, rounds: int) -> list[float]:
    """Of each of `rounds` calls on a device, after some that are not measured."""
    found = []
    with full_precision(device):
        for number in range(WARM_UP + rounds):
            _wait(device)
            started = time.perf_counter()
            run(*arguments)
            _wait(device)
            if number >= WARM_UP:
                found.append(time.perf_counter() - started)
    return found


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def activations(tower: PixelTower) -> int:
    """Values that the layers of a tower on the CPU read and write for a picture, were each a kernel of its own."""
    values = 0

    def count(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal values
        values += sum(each.numel() for each in (*inputs, output) if isinstance(each, torch.Tensor))

    leaves = [module for module in tower.modules() if not list(module.children()) and type(module) is not nn.Identity]
    hooks = [module.register_forward_hook(count) for module in leaves]
    height, width = tower.image.crop
    tower(torch.zeros((1, height, width, 3), dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    return values


def line(
    part: str, name: str, *, unit: str, rows: int, times_s: list[float], cosine: float | None, notes: dict[str, float]
) -> Line:
    """A line of the benchmark, from the seconds that `rows` rows took; ratios are made when all lines are there."""
    return Line(
        part=part,
        name=name,
        unit=unit,
        median=rows / statistics.median(times_s),
        low=rows / max(times_s),
        high=rows / min(times_s),
        min_cosine=cosine,
        mean_cosine=cosine,
        notes=notes,
    )
