"""Batches drawn one step ahead of the model that learns from them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """What is drawn for a step, while the next step's is drawn in a thread: reading and decoding hide behind a GPU.

    A draw may depend on its step alone, so that it does not matter when it is made. An error of a draw is raised at its
    own step. One draw more than without is in memory.

    Args:
        draw: a step to what is wanted there; called by one thread at a time.
        end: the step that nothing is drawn for any more; None where nobody knows.
    """

    def __init__(self, draw: Callable[[int], T], *, end: int | None = None) -> None:
        self._draw, self._end = draw, end
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._drawn: dict[int, Future[T]] = {}

    def __enter__(self) -> Ahead[T]:
        """Nothing is drawn yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the draw that is being made, and forget it."""
        self._thread.shutdown(cancel_futures=True)

    def __call__(self, step: int) -> T:
        """What is drawn for a step."""
        drawn = self._drawn.pop(step, None) or self._thread.submit(self._draw, step)
        if self._end is None or step + 1 < self._end:
            self._drawn[step + 1] = self._thread.submit(self._draw, step + 1)
        return drawn.result()
