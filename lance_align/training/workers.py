"""The processes that train one model together: who is there, and what they tell each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """This process among those of a run. Every worker calls the same methods in the same order.

    Attributes:
        rank: this process, from 0.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def of_group(cls) -> Workers:
        """The processes of torch.distributed's default group, which somebody has initialised."""
        return cls(rank=dist.get_rank(), count=dist.get_world_size())

    def gather_rows(self, rows: Tensor, counts: list[int]) -> Tensor:
        """All workers' rows, in the order of workers, without a gradient.

        Args:
            rows: ``(counts[rank], dim)``.
            counts: rows of each worker.

        Returns:
            ``(sum(counts), dim)``.
        """
        if self.count == 1:
            return rows.detach()
        longest = max(counts)
        padded = rows.new_zeros((longest, rows.shape[1]))  # a collective moves equal shapes
        padded[: len(rows)] = rows.detach()
        found = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(found, padded)
        return torch.cat([part[:count] for part, count in zip(found, counts, strict=True)])

    def gather(self, value: _T) -> list[_T]:
        """Everybody's value, in the order of workers."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value)
        return found

    def first(self, value: float, device: torch.device) -> float:
        """The first worker's number."""
        if self.count == 1:
            return value
        number = torch.tensor([value], dtype=torch.float64, device=device)
        dist.broadcast(number, src=0)
        return float(number)

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Make each gradient the sum of all workers'; one that is missing counts as zero."""
        if self.count == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])  # one message instead of hundreds
        dist.all_reduce(together)
        parts = torch.split(together, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


ALONE = Workers()
