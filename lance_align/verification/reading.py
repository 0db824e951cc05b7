"""Reading a table that may be damaged: what cannot be read is a finding, and the rest is read all the same."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pyarrow as pa

from lance_align.errors import RowError
from lance_align.images import DecodeLimits
from lance_align.tables.failures import LANCE_ERRORS, table_error
from lance_align.verification.findings import Collector

BATCH_ROWS = 4096  # of ids, vectors and reasons: 10 MB at 640 dimensions
WIDE_BATCH_ROWS = 256  # of columns that may hold anything
TAKE_ROWS = 8  # pictures held at once

_P = ParamSpec("_P")
_T = TypeVar("_T")


def attempt(read: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> tuple[_T | None, str | None]:
    """The result of a call, or in one line why there is none.

    Lance panics on some damaged pages; what arrives is a BaseException of PyO3 without an importable class.
    """
    try:
        return read(*args, **kwargs), None
    except BaseException as error:
        if not isinstance(error, LANCE_ERRORS) and type(error).__name__ != "PanicException":
            raise
        return None, str(table_error(error, doing="read", uri="it")).removeprefix("could not read it: ")


def read_fragment(
    fragment: Any, columns: Sequence[str], collector: Collector, *, batch_rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """The rows of a fragment, a batch at a time, until one cannot be read: then each bad column is a finding."""
    batches, error = attempt(_scan, fragment, columns, batch_rows)
    while batches is not None:
        batch, error = attempt(_next, batches)
        if batch is None:
            break
        yield batch
    if error is not None:
        collector.add("unreadable", _blame(fragment, columns, batch_rows, error))


def _scan(fragment: Any, columns: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
    return iter(fragment.to_batches(columns=list(columns), batch_size=batch_rows))


def _next(batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    """The next batch, checked before it is touched: damaged offsets would lead out of its buffers."""
    batch = next(batches, None)
    if batch is not None:
        batch.validate(full=True)
    return batch


def _read_through(fragment: Any, column: str, batch_rows: int) -> None:
    batches = _scan(fragment, [column], batch_rows)
    while _next(batches) is not None:
        pass


def _blame(fragment: Any, columns: Sequence[str], batch_rows: int, error: str) -> list[str]:
    """Which columns cannot be read, with the files of the fragment."""
    files = ", ".join(str(file.path) for file in fragment.data_files())
    place = f"fragment {fragment.fragment_id} ({files})"
    reasons = {column: attempt(_read_through, fragment, column, batch_rows)[1] for column in columns}
    bad = [f"{column} in {place}: {reason}" for column, reason in reasons.items() if reason is not None]
    return bad or [f"{place}: {error}"]


def read_file(path: str, limits: DecodeLimits) -> bytes:
    """The bytes of a regular file; a pipe or a device could be read for ever."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise RowError("missing", f"{path}: not a regular file")
        with Path(path).open("rb") as file:
            return file.read(limits.max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RowError("missing", f"{path}: {reason}") from None


def row_names(ids: Any, positions: Sequence[int]) -> list[str]:
    """What rows are called in a finding: their ids, or their places in scan order where there are none.

    Args:
        ids: a column, or None for a table without.
    """
    names: list[Any] = [None] * len(positions) if ids is None else ids.to_pylist()
    return [f"row {place}" if name is None else str(name) for name, place in zip(names, positions, strict=True)]
