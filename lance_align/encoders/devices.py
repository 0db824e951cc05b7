"""Names of devices and precisions to torch's own, and float32 that stays float32."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from lance_align.encoders.memory import is_out_of_memory
from lance_align.errors import ArgumentError, LanceAlignError, ModelError

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_flags_lock = threading.RLock()  # what measures an encoder holds it round the encoder's own


def has_accelerator() -> bool:
    """Whether a model may run elsewhere than on the CPU; torch is asked only where a driver's device is there."""
    if sys.platform == "darwin":
        return True
    drivers = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
    if sys.platform == "linux" and not any(Path(driver).exists() for driver in drivers):
        return False
    import torch

    return bool(torch.cuda.is_available())


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
        hint = "expected 'auto', 'cpu', 'mps', 'cuda' or 'cuda:N'"
        if str(device).startswith("cuda") and not torch.cuda.is_available():
            hint = (
                f"torch {torch.__version__} sees no GPU, whatever Ray counts: it is a build for CPUs, or wants a newer "
                "driver; install another build, or take device='cpu'"
            )
        raise ArgumentError(f"device {device!r} cannot be used here ({reason}); {hint}") from error
    return found


def device_name(device: torch.device) -> str:
    """As a user names it: the first one of a kind goes without its number."""
    return str(device) if device.index else device.type


def precision_name(dtype: torch.dtype) -> Precision:
    """The inverse of `resolve_dtype`."""
    return "bfloat16" if str(dtype) == "torch.bfloat16" else "float32"


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
        if device.type != "cuda":
            return torch.float32
        with torch.cuda.device(device):
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Float32 without TF32 on CUDA: its ten bits of mantissa are too few for vectors equal to the reference's.

    The switch is process-wide, so one thread at a time runs inside it, and may enter again; the user's settings are
    back at the end. Other devices have nothing to switch.
    """
    if device.type != "cuda":
        yield
        return
    import torch

    cudnn: Any = torch.backends.cudnn

    def allow_tf32(allowed: bool) -> None:
        cudnn.allow_tf32 = allowed

    matmul = (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest")
    with (
        _flags_lock,
        _ieee(torch.backends.cuda.matmul, *matmul),
        _ieee(cudnn.conv, lambda: cudnn.allow_tf32, allow_tf32, False),
    ):
        yield


@contextmanager
def _ieee(operations: Any, read: Callable[[], Any], write: Callable[[Any], None], full: Any) -> Iterator[None]:
    """Operations of torch in float32 proper, by both of its names for that.

    A program that uses ``fp32_precision`` makes the older switch raise where they disagree; one that uses the older
    (so does torch.compile) expects them to agree (docs.pytorch.org/docs/stable/notes/cuda.html, torch 2.9 and later).

    Args:
        operations: have a `fp32_precision`.
        read, write: the older switch.
        full: its value for float32.
    """
    before = operations.fp32_precision
    if before in ("ieee", "none"):
        yield
        return
    try:
        older = read()
    except RuntimeError:
        older = None
    try:
        if older is not None:
            write(full)
        operations.fp32_precision = "ieee"
        yield
    finally:
        if older is not None:
            write(older)
        operations.fp32_precision = before


# After these every later call of the process fails as well: only another process can use the device, or another one.
_LOST = (
    "acceleratorerror",
    "cuda error",
    "cuda driver error",
    "hip error",
    "device-side assert",
    "illegal memory access",
    "illegal address",
    "unspecified launch failure",
    "uncorrectable ecc",
    "status_execution_failed",
    "device lost",
    "gpu is lost",
    "fallen off the bus",
)


def is_device_lost(error: BaseException) -> bool:
    """Whether an error of torch says that a process can use its GPU no more; memory that ran out is none."""
    text = f"{type(error).__name__}: {error}".lower()
    return any(words in text for words in _LOST) and not is_out_of_memory(error)


@contextmanager
def load_errors(name: str, device: object) -> Iterator[None]:
    """Whatever torch, a driver or a disk raises while a model is loaded, as a typed error: it is no row's fault.

    Raises:
        ModelError: says what happened; typed errors pass as they are.
    """
    try:
        yield
    except LanceAlignError:
        raise
    except Exception as error:  # torch raises almost anything
        reason = (str(error).strip().splitlines() or ["no message"])[0]
        raise ModelError(
            f"model {name!r} cannot be loaded on {device} ({type(error).__name__}: {reason}); "
            "free memory there, or use another device"
        ) from error
