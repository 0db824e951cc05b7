"""Names of devices and precisions to torch's own, and float32 that stays float32."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, get_args

from lance_align.errors import ArgumentError

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_flags_lock = threading.Lock()


def resolve_device(device: str) -> torch.device:
    """``"auto"`` is the first CUDA device, else Apple's, else the CPU; any other name is torch's.

    Raises:
        ArgumentError: not one of ``"auto"``, ``"cpu"``, ``"mps"``, ``"cuda"``, ``"cuda:N"``, or this machine lacks it.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        found = torch.device(device)
        if found.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError(f"{found.type} is not supported")
        if found.type == "cuda" and found.index is None:
            found = torch.device("cuda", torch.cuda.current_device())
        torch.empty(0, device=found)
    except (RuntimeError, TypeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ArgumentError(
            f"device {device!r} cannot be used here ({reason}); expected 'auto', 'cpu', 'mps', 'cuda' or 'cuda:N'"
        ) from error
    return found


def check_precision(precision: str) -> None:
    """Refuse what is no precision.

    Raises:
        ArgumentError: says which there are.
    """
    if precision not in PRECISIONS:
        raise ArgumentError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}")


def resolve_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """``"auto"`` is bfloat16 on GPUs that compute in it, as ALIGN was trained, else float32."""
    import torch

    if precision == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Convolutions without TF32 on CUDA: its ten bits of mantissa are too few for vectors equal to the reference's.

    The switch is process-wide, so one thread at a time runs inside it; other devices have nothing to switch.
    """
    if device.type != "cuda":
        yield
        return
    import torch

    with _flags_lock, torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
