"""Batches on their way to a device: on CUDA the next one travels while the last is computed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def on_device(
    batches: Iterable[NDArray[np.uint8]], device: torch.device, *, whole: Callable[[int], int] = lambda rows: rows
) -> Iterator[torch.Tensor]:
    """The same batches on a device, in order.

    On CUDA each is copied from pinned memory on a stream of its own, one batch ahead; what the caller's stream does
    with a batch waits for its copy. One batch more than in use is on the device.

    Args:
        batches: taken one at a time.
        device: where to.
        whole: how many rows a batch of so many is filled up to with zeros.
    """
    if device.type != "cuda":
        for batch in batches:
            yield staged(batch, rows=whole(len(batch)), pinned=False).to(device)
        return
    copies = _copies(device)
    ahead: tuple[torch.Tensor, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(copies):
            # torch keeps pinned memory for the next batch as soon as this copy has ended.
            moved = staged(batch, rows=whole(len(batch)), pinned=True).to(device, non_blocking=True)
            arrived = copies.record_event()
        if ahead is not None:
            yield _received(*ahead, device)
        ahead = moved, arrived
    if ahead is not None:
        yield _received(*ahead, device)


def staged(batch: NDArray[np.uint8], *, rows: int, pinned: bool) -> torch.Tensor:
    """A batch as a tensor of `rows` rows on the CPU, the last ones zeros: the same memory, or one copy.

    Args:
        batch: of at most `rows` rows; it is copied where it is read-only, as views of Arrow's memory are.
        rows: of the tensor.
        pinned: whether a device may copy it by itself.
    """
    if not pinned and rows == len(batch) and batch.flags.writeable:
        return torch.from_numpy(batch)
    tensor = torch.empty((rows, *batch.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
    tensor.numpy()[: len(batch)] = batch
    tensor[len(batch) :] = 0
    return tensor


@functools.cache
def _copies(device: torch.device) -> Any:
    """The stream of a device's copies: torch's allocator keeps memory for each stream apart."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _received(batch: torch.Tensor, arrived: torch.cuda.Event, device: torch.device) -> torch.Tensor:
    stream = torch.cuda.current_stream(device)
    stream.wait_event(arrived)
    batch.record_stream(stream)  # else its memory could be given to the next copy while this stream reads it
    return batch
