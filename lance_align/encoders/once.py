"""A value made once, by whichever thread needs it first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

# Held by whoever imports a library or builds a model for the first time. Of two threads that import transformers at
# once, the second gets it half made ("module 'transformers' has no attribute …"), for it replaces itself meanwhile.
LOADING = threading.RLock()


class Once(Generic[T]):
    """A value made at first use by one thread; others wait. A failure is raised, and tried again next time."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: list[T] = []

    @property
    def made(self) -> bool:
        """Whether the value is there."""
        return bool(self._made)

    def __call__(self) -> T:
        if not self._made:
            with LOADING:
                if not self._made:
                    self._made.append(self._make())
        return self._made[0]
