"""How much of each picture a label covers, as columns of a table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from lance_align.encoders.segmenting import segmenter
from lance_align.encoders.zero_shot import DEFAULT_TEMPLATE
from lance_align.errors import ArgumentError, TableError
from lance_align.tables.failures import lance_failures
from lance_align.tables.handles import check_writable
from lance_align.tables.names import check_new_name
from lance_align.tables.schema import IMAGE

BATCH_ROWS = 64  # of pictures: of 5 MB each, 320 MB


def add_areas(
    table: Any,
    labels: Sequence[str],
    *,
    prefix: str = "area_",
    template: str = DEFAULT_TEMPLATE,
    image_column: str = IMAGE,
    model: str | Path = "nvidia/groupvit-gcc-yfcc",
    revision: str | None = None,
    device: str = "auto",
) -> int:
    """Add the share of each picture that each label covers, a column a label, to a LanceDB table.

    One version is made, with all columns or without a change. Rows added later have nulls there; drop the columns and
    add them again.

    Args:
        table: an open LanceDB table (of the synchronous API); it is moved to the new version.
        labels: see `lance_align.segment`.
        prefix: of the columns' names; a label follows, in lower case, other than letters and digits as ``_``.
        template: the sentence a label is put into.
        image_column: encoded images; rows without one, or with one that cannot be read, get nulls.
        model: see `lance_align.segment`.
        revision: of a hub model.
        device: as in `lance_align.load_encoder`.

    Returns:
        The version of the table that has the columns, float32, from 0 to 1.

    Raises:
        ArgumentError: as `lance_align.segment`, two labels would share a column, or the prefix cannot be in a name.
        TableError: there is no such image column, one of the new columns is there already, the table stands at a
            version that was checked out, or it cannot be written.
        ModelError: as `lance_align.segment`.

    >>> version = lance_align.add_areas(table, ["a heart", "paper"], model="nvidia/groupvit-gcc-yfcc")
    >>> table.count_rows("area_a_heart + area_paper > 0.99")
    60
    """
    check_writable(table)
    looking = segmenter(labels, template=template, model=model, revision=revision, device=device)
    names = _columns(labels, prefix)
    for name in names:
        check_new_name(name, argument="column")
    fields: list[pa.Field[Any]] = [pa.field(name, pa.float32()) for name in names]
    schema = pa.schema(fields)
    _check_columns(table, names, image_column)

    @lance.batch_udf(output_schema=schema)
    def areas(batch: pa.RecordBatch) -> pa.RecordBatch:
        shares = looking(batch.column(0).to_pylist()).areas
        columns: list[pa.Array[Any]] = [pa.array(column, from_pandas=True) for column in np.ascontiguousarray(shares.T)]
        return pa.record_batch(columns, schema=schema)

    with lance_failures("add areas to", table.name):
        table.checkout_latest()
        table.to_lance().add_columns(areas, read_columns=[image_column], batch_size=BATCH_ROWS)
        table.checkout_latest()
    return int(table.version)


def _columns(labels: Sequence[str], prefix: str) -> list[str]:
    taken: dict[str, str] = {}
    for label in labels:
        name = prefix + re.sub(r"\W", "_", label.lower())
        if name in taken:
            raise ArgumentError(f"labels {taken[name]!r} and {label!r} would share the column {name!r}; rename one")
        taken[name] = label
    return list(taken)


def _check_columns(table: Any, names: Sequence[str], image_column: str) -> None:
    schema: pa.Schema = table.schema
    for name in names:
        if name in schema.names:
            raise TableError(
                f"table {table.name!r} has a column {name!r} already; choose another prefix, or "
                f"table.drop_columns({list(names)}) first"
            )
    kind = schema.field(image_column).type if image_column in schema.names else None
    if kind is None or not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise TableError(
            f"table {table.name!r} has no column {image_column!r} of encoded images; it has {', '.join(schema.names)}"
        )
