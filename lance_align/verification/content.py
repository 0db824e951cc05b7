"""Rows of a sample against the hash of their content that the job wrote: who differs was changed since."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lance_align.errors import LanceAlignError, RowError
from lance_align.images import DecodeLimits
from lance_align.tables.digests import content_hash, row_digests
from lance_align.tables.layout import CONTENT_HASH, ERROR, ID, IMAGE, URI, VECTOR, VECTOR_CRC32
from lance_align.tables.metadata import embedded_column, field_metadata, read_specs
from lance_align.tables.schema import THUMBNAIL_KEY
from lance_align.verification.findings import Collector
from lance_align.verification.reading import TAKE_ROWS, attempt, read_file


class ContentChecks:
    """Hashes rows again, from what the table holds of them.

    The hash is over the columns that the input had. A column that was renamed, dropped or cast since makes all hashes
    differ, which says nothing about a row: where no row of the sample has the hash that was written, none is judged.
    """

    def __init__(self, dataset: Any, collector: Collector, *, limits: DecodeLimits) -> None:
        self._dataset = dataset
        self._collector = collector
        self._limits = limits
        try:
            self._picture = _picture(dataset.schema)
            self._columns = _input_columns(dataset, self._picture)
        except LanceAlignError:  # damaged metadata is a finding of its own
            self._picture, self._columns = None, None

    def changed(self, positions: NDArray[np.int64]) -> dict[int, bool]:
        """Whether the content of rows is another than was written, by their positions in scan order.

        Rows whose hash is not known are left out, and those whose picture cannot be hashed here.
        """
        schema: pa.Schema = self._dataset.schema
        if self._columns is None or not len(positions):
            return {}
        if self._picture is not None and THUMBNAIL_KEY in field_metadata(schema, self._picture):
            self._collector.skip("hashes of the content: the originals of the thumbnails are not kept")
            return {}
        found: dict[int, bool] = {}
        for start in range(0, len(positions), TAKE_ROWS):
            part = positions[start : start + TAKE_ROWS].tolist()
            picture = [] if self._picture is None else [self._picture]
            rows, _ = attempt(self._dataset.take, part, columns=[*self._columns, *picture, CONTENT_HASH])
            if rows is not None:  # what cannot be read is found elsewhere
                found |= self._differing(rows, part)
        if found and all(found.values()):
            self._collector.skip("hashes of the content: no row of the sample has its own; columns were changed since")
            return {}
        return found

    def _differing(self, rows: pa.Table, positions: Sequence[int]) -> dict[int, bool]:
        written: list[str | None] = rows.column(CONTENT_HASH).to_pylist()
        found: dict[int, bool] = {}
        for row, (position, expected) in enumerate(zip(positions, written, strict=True)):
            if expected is None:  # of a row of `table.add`
                continue
            one = rows.slice(row, 1)
            try:
                image = self._image(one)
            except RowError:
                continue
            given = one.select(self._columns or [])
            # A later input may have lacked columns, which are null then.
            fewer = given.select([name for name in given.column_names if given.column(name).null_count == 0])
            found[position] = expected not in {content_hash(row_digests(each)[0], image) for each in (given, fewer)}
        return found

    def _image(self, row: pa.Table) -> bytes | None:
        if self._picture is None:
            return None
        cell: Any = row.column(self._picture)[0].as_py()
        if self._picture == URI and cell is not None:
            if "://" in cell:
                raise RowError("missing", "nothing is fetched")
            return read_file(cell, self._limits)
        return bytes(cell) if cell is not None else None


def _picture(schema: pa.Schema) -> str | None:
    """The column of the embed job's pictures; None where it embeds texts alone."""
    column = embedded_column(schema, VECTOR)
    return column.source if column is not None and column.kind == "image" else None


def _input_columns(dataset: Any, picture: str | None) -> list[str] | None:
    """The columns that the input had: they came into the table with its hashes, and Lance numbers columns as they come.

    None for a table that the embed job did not make, and where the picture's column has another name by now.
    """
    schema: pa.Schema = dataset.schema
    if CONTENT_HASH not in schema.names or schema.field(CONTENT_HASH).type != pa.string():
        return None
    if picture not in (None, IMAGE, URI) or (picture is not None and picture not in schema.names):
        return None
    numbers = {field.name(): field.id() for field in dataset.lance_schema.fields()}
    own = {ID, picture, ERROR, CONTENT_HASH, VECTOR_CRC32, *read_specs(schema)}
    return [name for name in schema.names if name not in own and numbers[name] < numbers[CONTENT_HASH]]
