"""Images behind a network, fetched a few ahead of the one that is decoded.

A fetch waits tens of milliseconds for an answer and takes no processor meanwhile. Decoding stays one after another.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

FETCHES = 8  # at once, in a task
AHEAD_BYTES = 64 * 2**20  # of fetched images that wait, as far as the largest one so far tells


def read_ahead(
    items: Iterable[T], read: Callable[[T], R], *, waits: Callable[[T], bool], size: Callable[[R], int]
) -> Iterator[R]:
    """What `read` gives for each item, in order.

    The first item is read alone; then up to `FETCHES` at once, fewer where images are large: eight of the largest that
    are allowed may come at once only after small ones. An error of `read` is raised in the turn of its item. What is
    still fetched when the iterator is closed is not waited for, nor does the process wait for it at its end.

    Args:
        waits: whether reading an item waits for a network; others are read in their turn, by the calling thread.
        size: bytes of what was read.
    """
    source = iter(items)
    queue: deque[tuple[T, Future[R] | None]] = deque()
    largest, window = 1, 1
    while True:
        for item in islice(source, max(0, window - len(queue))):  # more wait than may after a large one
            queue.append((item, _started(read, item) if waits(item) else None))
        if not queue:
            return
        item, future = queue.popleft()
        found = read(item) if future is None else future.result()
        largest = max(largest, size(found))
        window = max(1, min(FETCHES, AHEAD_BYTES // largest))
        yield found


def _started(read: Callable[[T], R], item: T) -> Future[R]:
    """Read in a daemon thread; the end of a process would wait for those of an executor, and a server may be silent."""
    future: Future[R] = Future()

    def fetch() -> None:
        try:
            future.set_result(read(item))
        except BaseException as error:  # noqa: BLE001  raised in the turn of its item
            future.set_exception(error)

    threading.Thread(target=fetch, name="fetch", daemon=True).start()
    return future
