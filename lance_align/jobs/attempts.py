"""Calls to the storage, repeated where a failure may pass: object stores answer 503 now and then, mounts drop out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from lance_align.errors import TableError
from lance_align.tables.failures import is_passing

T = TypeVar("T")

ATTEMPTS = 3
FIRST_PAUSE_S = 0.5  # doubles with each attempt


def attempts(call: Callable[[], T]) -> T:
    """What `call` returns, after up to `ATTEMPTS` attempts; a full disk or a missing permission has only one.

    Raises:
        OSError, TableError: of the last attempt.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return call()
        except (OSError, TableError) as error:
            if not is_passing(error):
                raise
        time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
    return call()
