"""From a table that LanceDB opened to its Lance dataset."""

from __future__ import annotations

from typing import Any

from lance_align.errors import TableError
from lance_align.tables.failures import lance_failures


def dataset_of(table: Any) -> Any:
    """The Lance dataset of an open LanceDB table, at the version the table stands at; the table itself never moves.

    Raises:
        TableError: not a table of LanceDB's synchronous API on files, or it cannot be opened.
    """
    if not callable(getattr(table, "to_lance", None)):
        raise TableError(
            f"{type(table).__name__} is not a table of LanceDB's synchronous API; open one with "
            "lancedb.connect(...).open_table(...)"
        )
    with lance_failures("open", str(getattr(table, "name", "the table"))):
        return table.to_lance()
