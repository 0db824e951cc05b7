"""What a table holds already: its ids, streamed, and how many rows have vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import lance
import pyarrow as pa

from lance_align.tables.failures import lance_failures
from lance_align.tables.names import quoted
from lance_align.tables.schema import CONTENT_HASH, ERROR, ID


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RowCounts:
    """Rows of a table: `embedded` without an error, `failed` with one."""

    embedded: int
    failed: int

    @property
    def total(self) -> int:
        """All rows."""
        return self.embedded + self.failed


def read_done_ids(
    uri: str,
    *,
    storage_options: Mapping[str, str] | None = None,
    version: int | None = None,
    batch_rows: int = 65_536,
) -> Iterator[pa.StringArray]:
    """Stream the ids of a table; only that column is read, and one batch is held at a time.

    Args:
        version: a version of the table; None for the latest.
        batch_rows: most ids in one array.

    Raises:
        TableError: the table is missing or cannot be read.
    """
    with lance_failures("read the ids of", uri):
        dataset = _open(uri, storage_options, version)
        for batch in dataset.to_batches(columns=[ID], batch_size=batch_rows):
            yield cast(pa.StringArray, batch.column(0))


def read_content_hashes(
    uri: str,
    *,
    storage_options: Mapping[str, str] | None = None,
    version: int | None = None,
    batch_rows: int = 65_536,
) -> Iterator[tuple[pa.StringArray, pa.StringArray]]:
    """Stream the ids of a table and the content hash of each, null where a row has none; see `read_done_ids`."""
    with lance_failures("read the ids of", uri):
        dataset = _open(uri, storage_options, version)
        for batch in dataset.to_batches(columns=[ID, CONTENT_HASH], batch_size=batch_rows):
            yield cast(pa.StringArray, batch.column(ID)), cast(pa.StringArray, batch.column(CONTENT_HASH))


def read_failed_ids(
    uri: str,
    vectors: Sequence[str],
    *,
    storage_options: Mapping[str, str] | None = None,
    version: int | None = None,
    batch_rows: int = 65_536,
) -> Iterator[pa.StringArray]:
    """Stream the ids of rows without one of their vectors; see `read_done_ids`.

    An error beside all vectors is left from before a `merge_insert` that embedded the row: nothing failed there.

    Args:
        vectors: the vector columns; they are read through, for Lance keeps nulls beside the values.
    """
    with lance_failures("read the failed rows of", uri):
        dataset = _open(uri, storage_options, version)
        missing = " OR ".join(f"{quoted(vector)} IS NULL" for vector in vectors)
        for batch in dataset.to_batches(columns=[ID], filter=missing, batch_size=batch_rows):
            yield cast(pa.StringArray, batch.column(ID))


def count_rows(
    uri: str,
    *,
    error: str = ERROR,
    storage_options: Mapping[str, str] | None = None,
    version: int | None = None,
) -> RowCounts:
    """Count a table's rows with and without an error.

    Args:
        error: the column of errors.

    Raises:
        TableError: the table is missing or cannot be read.
    """
    with lance_failures("count the rows of", uri):
        dataset = _open(uri, storage_options, version)
        failed = dataset.count_rows(f"{quoted(error)} IS NOT NULL")
        return RowCounts(embedded=dataset.count_rows() - failed, failed=failed)


def first_failed(
    uri: str,
    number: int,
    *,
    error: str = ERROR,
    storage_options: Mapping[str, str] | None = None,
    version: int | None = None,
) -> list[tuple[str, str]]:
    """The first rows with an error: the id, or the number of the row in a table without ids, and the error.

    Args:
        number: at most so many.
        error: the column of errors.

    Raises:
        TableError: the table is missing or cannot be read.
    """
    with lance_failures("read the failed rows of", uri):
        dataset = _open(uri, storage_options, version)
        columns = [ID, error] if ID in dataset.schema.names else [error]
        condition = f"{quoted(error)} IS NOT NULL"
        rows = dataset.to_table(columns=columns, filter=condition, limit=number, with_row_id=True).to_pylist()
    return [(str(row.get(ID, f"row {row['_rowid']}")), str(row[error])) for row in rows]


def _open(uri: str, storage_options: Mapping[str, str] | None, version: int | None) -> lance.LanceDataset:
    return lance.dataset(uri, version=version, storage_options=dict(storage_options) if storage_options else None)
