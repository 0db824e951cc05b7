"""Batches on their way to a device: on CUDA the next one travels while the last is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch


def on_device(batches: Iterable[torch.Tensor], device: torch.device) -> Iterator[torch.Tensor]:
    """The same batches on a device, in order.

    On CUDA each is copied from pinned memory on a stream of its own, one batch ahead; what the caller's stream does
    with a batch waits for its copy. One batch more than in use is on the device.

    Args:
        batches: on the CPU; taken one at a time.
        device: where to.
    """
    if device.type != "cuda":
        for batch in batches:
            yield batch.to(device)
        return
    copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ahead: tuple[torch.Tensor, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(copies):
            moved = batch.pin_memory().to(device, non_blocking=True)
            arrived = copies.record_event()
        if ahead is not None:
            yield _received(*ahead, device)
        ahead = moved, arrived
    if ahead is not None:
        yield _received(*ahead, device)


def _received(batch: torch.Tensor, arrived: torch.cuda.Event, device: torch.device) -> torch.Tensor:
    stream = torch.cuda.current_stream(device)
    stream.wait_event(arrived)
    batch.record_stream(stream)  # else its memory could be given to the next copy while this stream reads it
    return batch
