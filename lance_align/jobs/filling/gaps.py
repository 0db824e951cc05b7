"""Rows of a table that have neither a value nor a reason: found in ranges of fragments, read and decoded in tasks."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lance_align.describers.prompts import Prompt
from lance_align.errors import RowError
from lance_align.images import Pixels
from lance_align.jobs.filling.pictures import picture_columns
from lance_align.jobs.sources import Source, Split
from lance_align.jobs.sources.base import CHUNK_ROWS, ranges
from lance_align.jobs.sources.location import References
from lance_align.jobs.stages.ahead import read_ahead
from lance_align.jobs.stages.decode import PIXELS, REASON, SECONDS, TABLE_BYTES, pixel_column
from lance_align.jobs.stages.reading import read_split
from lance_align.sandbox import Asking, Decoder
from lance_align.tables.filling import ADDRESS, Filler, Filling, Survey
from lance_align.tables.location import TableLocation

SPLIT_ROWS = 1024
BATCH_ROWS = 64  # pictures read at once: of 5 MB each, 320 MB
TEXT = "decoded.text"  # a text or a prompt on its way to the model
READ_SECONDS = "decoded.read_seconds"  # float32, spent on reading the row


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GapSource(Source):
    """The empty rows of one version of a table: their addresses, and the columns that the model needs.

    Attributes:
        uri: of the Lance dataset.
        version: the version that is read.
        filling: which column is made from which others.
        storage_options: of the table's object store.
    """

    uri: str
    version: int
    filling: Filling
    storage_options: Mapping[str, str] | None = dataclasses.field(default=None, repr=False)

    def tables(self, split: Split, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The empty rows of a fragment's range: first which they are, then the pictures or texts between them."""
        del columns  # all are always needed
        options = dict(self.storage_options) if self.storage_options else None
        dataset: Any = lance.dataset(self.uri, version=self.version, storage_options=options)
        fragment = dataset.get_fragment(split.group or 0)
        target, error = self.filling.target, self.filling.error
        state = _scan(dataset, fragment, [target, error], start=split.start, rows=split.rows or 0).to_table()
        empty = pc.and_(state.column(target).is_null(), state.column(error).is_null())
        places = np.flatnonzero(empty.to_numpy())
        if len(places) == 0:
            return
        first, last = int(places[0]), int(places[-1])
        wanted = state.column(ADDRESS).filter(empty).combine_chunks()
        scanner = _scan(dataset, fragment, list(self.filling.sources), start=split.start + first, rows=last - first + 1)
        for batch in scanner.to_batches():
            yield pa.Table.from_batches([batch]).filter(pc.is_in(batch.column(ADDRESS), value_set=wanted))


def _scan(dataset: Any, fragment: Any, columns: list[str], *, start: int, rows: int) -> Any:
    return dataset.scanner(
        columns=columns,
        fragments=[fragment],
        offset=start,
        limit=rows,
        with_row_address=True,
        batch_size=BATCH_ROWS,
        batch_readahead=2,
        blob_handling="all_binary",  # else a blob column gives the places of its values
    )


def gap_source(filler: Filler, location: TableLocation, references: References) -> GapSource:
    """The source of a filler's table.

    Args:
        references: what its paths and URLs mean.
    """
    fields: list[pa.Field[pa.DataType]] = [
        pa.field(ADDRESS, pa.uint64()),
        *(pa.field(name, filler.schema.field(name).type) for name in filler.filling.sources),
    ]
    return GapSource(
        location=references.root.at(f"{references.root.path}/{location.name}.lance"),
        schema=pa.schema(fields),
        splits=(),
        references=references,
        uri=location.uri,
        version=filler.version,
        filling=filler.filling,
        storage_options=location.storage_options,
    )


def gap_splits(survey: Survey, *, path: str) -> tuple[Split, ...]:
    """The tasks of a survey: ranges of the fragments that have empty rows."""
    return tuple(
        Split(path=path, group=gap.fragment, start=start, rows=rows)
        for gap in survey.gaps
        for start, rows in ranges(gap.rows, SPLIT_ROWS)
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReadGaps:
    """The first stage: one row that names a split in, its empty rows out, decoded.

    Attributes:
        source: the table, its splits left out.
        decoder: of images: of one size for an encoder, of any size for a describer; None for texts.
        prompt: what a describer is asked; None where it is not asked, and for encoders.
    """

    source: GapSource
    decoder: Asking | None
    prompt: Prompt | None = None

    @property
    def table_rows(self) -> int:
        """Rows that leave a task together."""
        return CHUNK_ROWS if self.decoder is None else max(1, min(CHUNK_ROWS, TABLE_BYTES // self.decoder.pixel_bytes))

    def __call__(self, row: pa.Table) -> Iterator[pa.Table]:
        """Tables of `ADDRESS`, the decoded columns, `TEXT` (a text, or a prompt), and the seconds spent."""
        split = Split.from_json(str(row.column("split")[0].as_py()))
        started = time.perf_counter()
        for table in read_split(self.source, split):
            share_s = (time.perf_counter() - started) / max(1, table.num_rows)
            if self.decoder is None:
                cells = table.column(self.source.filling.sources[0])
                texts = {TEXT: cells, SECONDS: _numbers([0.0] * len(cells))}
                yield _working(table.column(ADDRESS), texts, share_s)
            else:
                yield from self._decoded(table, self.decoder, share_s)
            started = time.perf_counter()

    def _decoded(self, table: pa.Table, decoder: Asking, read_s: float) -> Iterator[pa.Table]:
        for start in range(0, len(table), self.table_rows):
            part = table.slice(start, self.table_rows)
            pixels: list[Pixels | None] = []
            reasons: list[str | None] = []
            seconds: list[float] = []
            images = self._images(part.column(self.source.filling.sources[0]), decoder.limits.max_bytes)
            for _ in range(len(part)):
                began = time.perf_counter()
                found, reason = _pixels(next(images), decoder)
                pixels.append(found)
                reasons.append(reason)
                seconds.append(time.perf_counter() - began)
            columns: dict[str, Any] = {SECONDS: _numbers(seconds)}
            if isinstance(decoder, Decoder):
                columns[PIXELS] = pixel_column(pixels, decoder.image)
            else:
                prompts, objections = self._prompts(part)
                reasons = [reason or objection for reason, objection in zip(reasons, objections, strict=True)]
                columns |= {**picture_columns(pixels), TEXT: pa.array(prompts, pa.string())}
            columns[REASON] = pa.array(reasons, pa.string())
            yield _working(part.column(ADDRESS), columns, read_s)

    def _prompts(self, table: pa.Table) -> tuple[list[str | None], list[str | None]]:
        """What is asked of each row, and why it cannot be asked; None both where there is no prompt."""
        prompts: list[str | None] = [None] * len(table)
        reasons: list[str | None] = [None] * len(table)
        if self.prompt is not None:
            rows: list[dict[str, Any]] = table.select(list(self.prompt.columns)).to_pylist()
            for number in range(len(table)):
                try:
                    prompts[number] = self.prompt.fill(rows[number] if self.prompt.columns else {})
                except RowError as error:
                    reasons[number] = str(error)
        return prompts, reasons

    def _images(self, cells: pa.ChunkedArray[Any], max_bytes: int) -> Iterator[bytes | RowError]:
        references = self.source.references

        def read(scalar: Any) -> bytes | RowError:
            cell = scalar.as_py()
            try:
                if cell is None:
                    raise RowError("null", "no image")
                return references.read(cell, max_bytes=max_bytes)[1] if isinstance(cell, str) else bytes(cell)
            except RowError as error:
                return error

        def waits(scalar: Any) -> bool:
            return (
                isinstance(scalar, pa.StringScalar | pa.LargeStringScalar)
                and scalar.is_valid
                and references.is_remote(scalar.as_py())
            )

        return read_ahead(cells, read, waits=waits, size=lambda found: len(found) if isinstance(found, bytes) else 0)


def _pixels(image: bytes | RowError, decoder: Asking) -> tuple[Pixels | None, str | None]:
    try:
        if isinstance(image, RowError):
            raise image
        return decoder.decode(image).pixels, None
    except RowError as error:
        return None, str(error)


def _working(addresses: pa.ChunkedArray[Any], columns: Mapping[str, Any], read_s: float) -> pa.Table:
    return pa.table({ADDRESS: addresses, **columns, READ_SECONDS: _numbers([read_s] * len(addresses))})


def _numbers(values: Sequence[float]) -> pa.Array[Any]:
    return pa.array(values, pa.float32())
