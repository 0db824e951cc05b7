"""A table that a command names: opened, with the vector column it means and the model that wrote it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from lance_align.encoders import allow_models
from lance_align.errors import TableError
from lance_align.functions import AlignFunction, table_function
from lance_align.tables.handles import lancedb_table
from lance_align.tables.layout import VECTOR
from lance_align.tables.location import table_location
from lance_align.tables.metadata import read_functions
from lance_align.tables.schema import FUNCTION


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NamedTable:
    """An open LanceDB table.

    Attributes:
        table: of LanceDB's synchronous API.
        vector: the vector column.
        function: our embedding function of it.
        source: the column that it embeds.
    """

    table: Any
    vector: str
    function: AlignFunction
    source: str

    @property
    def schema(self) -> pa.Schema:
        """Of the table."""
        schema: pa.Schema = self.table.schema
        return schema


def named_table(
    *,
    db: str | os.PathLike[str],
    table: str,
    vector: str | None = None,
    model: str | None = None,
    storage_options: Mapping[str, str] | None = None,
) -> NamedTable:
    """Open a table that searches itself.

    Args:
        vector: the vector column; None for the one there is, or the one called ``vector``.
        model: the model that the table names, if it is not a known one: to say its name is to trust it.

    Raises:
        TableError: the table is not there, or has no such column that a model of ours wrote.
    """
    if model is not None:
        allow_models(model)
    opened = lancedb_table(table_location(os.fspath(db), table, storage_options=storage_options))
    schema: pa.Schema = opened.schema
    sources = {
        str(entry.get("vector_column")): str(entry.get("source_column"))
        for entry in read_functions(schema)
        if entry.get("name") == FUNCTION and entry.get("vector_column") in schema.names
    }
    if vector is None:
        vector = VECTOR if VECTOR in sources or len(sources) != 1 else next(iter(sources))
    function = table_function(schema, vector) if vector in sources else None
    if function is None:
        seen = f"vector columns of a model: {', '.join(sources)}" if sources else "no column that a model of ours wrote"
        raise TableError(f"table {table!r} has no {vector!r} that can be searched with words; it has {seen}; {_REMEDY}")
    return NamedTable(table=opened, vector=vector, function=function, source=sources[vector])


_REMEDY = "name one with --vector, or give it vectors with lance-align backfill"
