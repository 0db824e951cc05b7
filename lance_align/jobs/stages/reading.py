"""Tables of a split, read once more where the storage fails in passing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pyarrow as pa

from lance_align import faults
from lance_align.errors import SourceError
from lance_align.jobs.sources import Source, Split

ATTEMPTS = 3
FIRST_PAUSE_S = 0.5  # doubles with each attempt

# What another attempt does not mend.
_LASTING = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)


def read_split(source: Source, split: Split, *, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """What ``source.read(split, columns=columns)`` gives, with up to `ATTEMPTS` attempts.

    A split read twice gives the same tables, so an attempt leaves out those that came before.

    Raises:
        OSError: the last attempt failed as well, or the file is not there or may not be read.
        SourceError: the content cannot be read.
    """
    yielded = 0
    for attempt in range(1, ATTEMPTS + 1):
        try:
            for number, table in enumerate(source.read(split, columns=columns)):
                if number < yielded:
                    continue
                faults.reach("after_read", rows=table.num_rows)
                yielded += 1
                yield table
            return
        except (OSError, SourceError) as error:
            if attempt == ATTEMPTS or not _passing(error):
                raise
            time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))


def _passing(error: Exception) -> bool:
    cause = error.__cause__ if isinstance(error, SourceError) else error
    return isinstance(cause, OSError) and not isinstance(cause, _LASTING)
