"""Memory that ran out on any device: how libraries say so, and passes through a model that shrink until they fit."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# As they are worded, in lower case and without spaces, underscores and hyphens.
_WORDS = (
    "outofmemory",  # CUDA, HIP, XPU and MPS; CUDA_ERROR_OUT_OF_MEMORY, hipErrorOutOfMemory, torch.OutOfMemoryError
    "errormemoryallocation",  # cudaErrorMemoryAllocation
    "allocfailed",  # CUDNN_STATUS_ALLOC_FAILED, CUBLAS_STATUS_ALLOC_FAILED, MIOpen's, hipBLAS's
    "allocationfailed",  # CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
    "statusmemoryerror",  # rocblas_status_memory_error
    "cublasstatusnotinitialized",  # no room for the handle
    "unabletofindanenginetoexecute",  # cuDNN: no algorithm has room for its workspace
    "unabletofindavalidcudnnalgorithm",
    "cudacachingallocator.cpp",  # the allocator's own assertion, where the driver cannot be asked for the figures
    "invalidbuffersize",  # MPS
    "can'tallocatememory",
    "cannotallocatememory",
    "notenoughmemory",
    "insufficientmemory",
    "unabletoallocate",
    "couldnotallocate",
    "failedtoallocate",
    "badalloc",  # std::bad_alloc, of C++ libraries
    "resourceexhausted",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of the processor or of a device; torch need not be installed."""
    text = re.sub(r"[\s_-]", "", f"{type(error).__name__}: {error}".lower())
    return isinstance(error, MemoryError) or any(word in text for word in _WORDS)


def free_memory() -> None:
    """Give back what nothing refers to any more, also to the device."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


class PassSize:
    """How much goes through a model at once; halved for good where memory ran out.

    Args:
        size: of one pass, in whatever unit.

    Attributes:
        size: now.
        halved: how often it was halved.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.halved = 0

    def fit(self, run: Callable[[], T], *, most: int, least: int = 1) -> T:
        """What `run` returns, called again with a smaller `size` while memory runs out.

        Args:
            run: makes passes of at most `size`.
            most: no pass of this call is larger.
            least: nor smaller.

        Raises:
            Exception: of `run`; for memory, when the smallest pass does not fit.
        """
        while True:
            tried = min(self.size, most)
            try:
                return run()
            except Exception as error:
                if tried <= least or not is_out_of_memory(error):
                    raise
            free_memory()  # the error is gone, and with it the frames that held the tensors
            if self.size >= tried:  # else another thread has done it
                self.size = max(least, tried // 2)
                self.halved += 1
