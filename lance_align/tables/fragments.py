"""Rows to Lance data files. No table version is made: that is the committer's, on the driver."""

from __future__ import annotations

import json
from collections.abc import Mapping

import lance
import pyarrow as pa
from lance.fragment import write_fragments as lance_write_fragments

from lance_align.tables.failures import lance_failures


def write_fragments(uri: str, table: pa.Table, *, storage_options: Mapping[str, str] | None = None) -> list[str]:
    """Write rows as new data files of an existing table, invisible until they are committed.

    Files keep Lance's own limits (2**20 rows, 90 GB) and the table's storage version: a call holds one block of a
    job, so in practice one call makes one file. A file that is never committed is an orphan, which LanceDB's
    ``optimize`` removes after its retention time.

    Args:
        uri: the dataset of a table that `Committer.open_or_create` has created.
        table: columns of the table by name, in any order; nullable columns may be missing.

    Returns:
        One JSON text a fragment, for `Committer.commit`; none for no rows.

    Raises:
        TableError: the table is missing, the rows do not fit it, or the storage failed.
    """
    if table.num_rows == 0:
        return []
    with lance_failures("write rows to", uri):
        # Opened first, because given a URI without a table Lance would number the columns anew and start another.
        dataset = lance.dataset(uri, storage_options=dict(storage_options) if storage_options else None)
        fragments = lance_write_fragments(table, dataset, mode="append")
    return [json.dumps(fragment.to_json()) for fragment in fragments]
