"""Two writers of one table at once: Lance tells the second one to look again, how often it does so, and at what."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import lance
from lance.commit import CommitConflictError

MAX_ATTEMPTS = 20
FIRST_PAUSE_S = 0.05  # doubles with each attempt up to MAX_PAUSE_S, times a random share: some 30 s in all
MAX_PAUSE_S = 3.0


def attempts() -> Iterator[bool]:
    """Count the tries of a commit, with pauses between them; True for the last."""
    for attempt in range(MAX_ATTEMPTS):
        if attempt:
            time.sleep(min(FIRST_PAUSE_S * 2 ** (attempt - 1), MAX_PAUSE_S) * random.uniform(0.5, 1.0))
        yield attempt == MAX_ATTEMPTS - 1


def may_retry(error: BaseException) -> bool:
    """Whether the commit may be tried again on the version that is the latest by now."""
    return isinstance(error, CommitConflictError) and bool(error.retryable)


def is_conflict(error: BaseException) -> bool:
    """Another writer was first; of changed columns Lance says so in words, some of them as an OSError (pylance 14)."""
    text = str(error).lower()
    return "conflict" in text or "incompatible transaction" in text or "preempted" in text


def transaction_of(dataset: Any, version: int) -> lance.Transaction | None:
    """What made a version, or None where Lance does not tell.

    Old versions are cleaned up, and pylance 14 fails on a compaction that moved an index (it makes a ``RewrittenIndex``
    without three of its arguments).
    """
    try:
        found: lance.Transaction = dataset.read_transaction(version)
        return found
    except TypeError:
        return None
    except OSError as error:
        if "was not found" in str(error):
            return None
        raise
