"""From a table that LanceDB opened to its Lance dataset, and the other way."""

from __future__ import annotations

from typing import Any

from lance_align.errors import TableError
from lance_align.tables.creation import open_table
from lance_align.tables.failures import LANCE_ERRORS, lance_failures
from lance_align.tables.location import TableLocation, missing_table


def dataset_of(table: Any) -> Any:
    """The Lance dataset of an open LanceDB table, at the version the table stands at; the table itself never moves.

    Raises:
        TableError: not a table of LanceDB's synchronous API on files, or it cannot be opened.
    """
    check_table(table)
    with lance_failures("open", str(getattr(table, "name", "the table"))):
        return table.to_lance()


def check_table(table: Any) -> None:
    """Refuse what is no open table.

    Raises:
        TableError: not a table of LanceDB's synchronous API on files.
    """
    if not callable(getattr(table, "to_lance", None)):
        raise TableError(
            f"{type(table).__name__} is not a table of LanceDB's synchronous API; open one with "
            "lancedb.connect(...).open_table(...)"
        )


def check_writable(table: Any) -> None:
    """Refuse a table that stands at a checked-out version, as LanceDB's own ``add`` does; the table never moves.

    LanceDB does not say whether it does. Every change of such a table is refused first of all, also one that no table
    could do: to drop a column without a name.

    Raises:
        TableError: as `check_table`, or `lancedb.Table.checkout` was called on it.
    """
    check_table(table)
    try:
        table.drop_columns([""])
    except (*LANCE_ERRORS, AttributeError) as error:
        if "is checked out" in str(error):
            raise TableError(
                f"table {table.name!r} stands at version {table.version}, which was checked out, and cannot be changed "
                "there; call table.checkout_latest() first, or table.restore()"
            ) from error


def lancedb_table(location: TableLocation) -> Any:
    """The open LanceDB table; looked for first, because LanceDB makes the folder of a database that is not there.

    Raises:
        TableError: it is not there, or cannot be opened.
    """
    import lancedb  # takes seconds, which a job need not begin with

    if open_table(location.uri, storage_options=location.storage_options) is None:
        raise missing_table(location.uri)
    with lance_failures("open", location.uri):
        return lancedb.connect(location.db, storage_options=location.storage_options).open_table(location.name)
