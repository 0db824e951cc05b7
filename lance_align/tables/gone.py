"""Rows that the input of a job no longer has: listed, or removed on request."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from lance.commit import CommitConflictError
from numpy.typing import NDArray

from lance_align.errors import TableError
from lance_align.tables.conflicts import attempts, may_retry
from lance_align.tables.done import read_done_ids
from lance_align.tables.failures import lance_failures
from lance_align.tables.layout import ID

BATCH_ROWS = 65_536

IsGone = Callable[[pa.StringArray], NDArray[np.bool_]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """Rows that are in the table and not in the input: how many, and the first ids."""

    rows: int
    ids: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """How many rows have left the table, and in which version."""

    rows: int
    version: int


def list_gone(
    uri: str, is_gone: IsGone, *, version: int, limit: int, storage_options: Mapping[str, str] | None = None
) -> Gone:
    """Read the ids of a version and count those that are gone.

    Args:
        is_gone: tells for n ids, as ``(n,) bool``.
        limit: most ids that are listed, in the table's order.

    Raises:
        TableError: the version cannot be read.
    """
    rows = 0
    listed: list[str] = []
    for ids in read_done_ids(uri, version=version, storage_options=storage_options):
        gone = ids.filter(pa.array(is_gone(ids)))
        rows += len(gone)
        listed += map(str, gone[: limit - len(listed)].to_pylist())
    return Gone(rows=rows, ids=tuple(listed))


def remove_gone(
    uri: str, is_gone: IsGone, *, version: int, storage_options: Mapping[str, str] | None = None
) -> Removed:
    """Remove the rows of the latest version that are gone, all in one version.

    Rows are named by their addresses: ids are anybody's text. Only data files that `version` had are looked into, so
    that a row which another writer has added or written anew since stays. So does one that a compaction has moved
    since; the next run removes it. 100,000 rows of one fragment take Lance a second (measured, pylance 14).

    Returns:
        What has left; the present version if nothing has.

    Raises:
        TableError: the storage failed, or other writers were faster time and again.
    """
    options = dict(storage_options) if storage_options else None
    with lance_failures("remove rows from", uri):
        old = lance.dataset(uri, version=version, storage_options=options)
        files = {file for fragment in old.get_fragments() for file in _files(fragment)}
        for is_last in attempts():
            dataset = lance.dataset(uri, storage_options=options)
            try:
                return _remove(dataset, [f for f in dataset.get_fragments() if files.issuperset(_files(f))], is_gone)
            except CommitConflictError as error:
                if is_last or not may_retry(error):
                    raise TableError(f"other writers kept changing {uri}; run the same command again") from error
    raise AssertionError("unreachable")


def _remove(dataset: Any, fragments: Sequence[Any], is_gone: IsGone) -> Removed:
    updated, emptied, rows = [], [], 0
    for fragment in fragments:
        addresses = _addresses(fragment, is_gone)
        if addresses:
            rows += len(addresses)
            rest = fragment.delete(f"_rowaddr IN ({', '.join(map(str, addresses))})")
            if rest is None:
                emptied.append(fragment.fragment_id)
            else:
                updated.append(rest)
    if rows:
        deletion = lance.LanceOperation.Delete(updated, emptied, "rows that the input no longer has")
        transaction = lance.Transaction(read_version=dataset.version, operation=deletion)
        dataset = lance.LanceDataset.commit(dataset, transaction, max_retries=0)
    return Removed(rows=rows, version=int(dataset.version))


def _addresses(fragment: Any, is_gone: IsGone) -> list[int]:
    addresses: list[int] = []
    for batch in fragment.to_batches(columns=[ID], with_row_address=True, batch_size=BATCH_ROWS):
        gone = pa.array(is_gone(batch.column(ID)))
        addresses += batch.column("_rowaddr").filter(gone).to_pylist()
    return addresses


def _files(fragment: Any) -> list[str]:
    return [str(file.path) for file in fragment.metadata.files]
