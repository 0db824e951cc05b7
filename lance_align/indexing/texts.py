"""A full-text index for a column of texts."""

from __future__ import annotations

import time
from typing import Any

from lance_align.tables.failures import lance_failures
from lance_align.tables.handles import check_writable
from lance_align.tables.index_report import Action, IndexReport
from lance_align.tables.indexes import extend_index
from lance_align.tables.names import quoted

FTS = "FTS"  # LanceDB's name of the kind


def build_text_index(table: Any, column: str) -> IndexReport:
    """Build the full-text index of a column with LanceDB's defaults, or extend the one it has by the rows it lacks.

    Afterwards ``table.search("words", query_type="fts")`` finds rows by the words of their texts.

    Args:
        table: an open LanceDB table (of the synchronous API); it is moved to the new version.
        column: of strings.

    Raises:
        TableError: the table stands at a version that was checked out, LanceDB cannot build the index, or other
            writers got in between each time.
    """
    from lancedb import index

    check_writable(table)
    started = time.perf_counter()
    with lance_failures(f"index the texts of {column!r} in", str(table.name)):
        table.checkout_latest()
        there = next((i for i in table.list_indices() if list(i.columns) == [column] and i.index_type == FTS), None)
        if there is None:
            table.create_index(column, config=index.FTS())
            rows, added = int(table.count_rows(f"{quoted(column)} IS NOT NULL")), 0
        else:
            rows, added = int(there.num_indexed_rows or 0), int(there.num_unindexed_rows or 0)
            if added:
                extend_index(table, there.name)
            rows += added
    action: Action = "built" if there is None else "extended" if added else "kept"
    seconds = time.perf_counter() - started if action != "kept" else 0.0
    return IndexReport(vector=column, action=action, type=FTS, rows=rows, added=added, build_s=seconds)
