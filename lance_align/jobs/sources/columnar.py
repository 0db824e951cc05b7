"""Parquet, and Arrow IPC (Feather version 2): one file or a folder of files with one schema."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

from lance_align.errors import SourceError
from lance_align.jobs.ledger.ledger import MAX_SPLITS
from lance_align.jobs.sources.base import CHUNK_BYTES, CHUNK_ROWS, Source, Split, cut, ranges
from lance_align.jobs.sources.location import Location, References, first_line
from lance_align.jobs.sources.pages import pages
from lance_align.jobs.sources.schemas import unified

# A row group of paths may hold a million rows; cut in ranges, its images are decoded by many tasks.
SPLIT_ROWS = 8192
MAX_ROWS_PER_BYTE = 2**16  # a file; the smallest of equal rows that pyarrow 26 writes has 2,800
DICTIONARY_CHUNKS = 4  # `CHUNK_BYTES` that a batch may take if all its rows name the longest value of a dictionary


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ParquetSource(Source):
    """One split a row group; long groups are cut in ranges, which read the group again."""

    def tables(self, split: Split, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows of the group's range; other columns are not read."""
        location = self.location.at(split.path)
        with _reading(location, "Parquet"), _opened(location) as file:
            parquet = pq.ParquetFile(file)
            group = parquet.metadata.row_group(split.group or 0)
            batches = parquet.iter_batches(
                batch_size=_batch_rows(file, group, columns, is_local=location.is_local),
                row_groups=[split.group or 0],
                columns=[column for column in columns if column in parquet.schema_arrow.names],
                use_threads=False,
            )
            rows = 0
            for table in cut(batches, split.start, split.rows):
                rows += table.num_rows
                yield table
            if split.rows is not None and rows != split.rows:
                raise pa.ArrowInvalid(f"row group {split.group} ends {split.rows - rows:,} rows early")


def _batch_rows(file: pa.NativeFile, group: Any, columns: Sequence[str], *, is_local: bool) -> int:
    """How many rows of a row group take about `CHUNK_BYTES`; the pages are looked at where that costs no requests."""
    total, dictionary = 1, 1
    for chunk in map(group.column, range(group.num_columns)):
        if not any(f"{chunk.path_in_schema}.".startswith(f"{name}.") for name in columns):
            continue
        start = chunk.data_page_offset
        if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
            dictionary = max(dictionary, start - chunk.dictionary_page_offset)
            start = chunk.dictionary_page_offset
        size = 0
        for page in pages(file, start, start + chunk.total_compressed_size) if is_local else ():
            size += page.bytes
            dictionary = max(dictionary, page.bytes if page.is_dictionary else 0)
        total += max(size, chunk.total_uncompressed_size)
    # Rows may all name the longest value of a dictionary, which counts once in the sizes.
    rows = int(CHUNK_BYTES * group.num_rows // total)
    return max(1, min(CHUNK_ROWS, rows, DICTIONARY_CHUNKS * CHUNK_BYTES // dictionary))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ArrowSource(Source):
    """One split a record batch of an IPC file; a stream has no index and is one split."""

    def tables(self, split: Split, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows of the batch, or of the stream; other columns are not read from files."""
        location = self.location.at(split.path)
        with _reading(location, "Arrow IPC"), _opened(location) as file:
            if split.group is None:
                yield from _stream(file)
            else:
                names = ipc.open_file(file).schema.names  # of this file: the order may be another one in each
                included = [names.index(column) for column in columns if column in names]
                options = ipc.IpcReadOptions(included_fields=included)
                yield pa.Table.from_batches([ipc.open_file(file, options=options).get_batch(split.group)])


def _stream(file: pa.NativeFile) -> Iterator[pa.Table]:
    """The batches of an IPC stream; its end mark, for which pyarrow does not ask, tells that it is whole."""
    reader, start = ipc.open_stream(file), file.tell()
    for batch in reader:
        start = file.tell()
        yield pa.Table.from_batches([batch])
    if file.tell() == start:
        raise pa.ArrowInvalid("it ends without its end mark, so it may have been cut; write it again")
    if file.tell() < file.size():
        raise pa.ArrowInvalid(f"bytes follow its end mark at {file.tell()}: are two streams joined? Write it again")


def open_parquet(
    location: Location, files: list[str], *, allow_outside: bool, drop: Sequence[str] = ()
) -> ParquetSource:
    """A source of Parquet files; only their footers are read here.

    Args:
        drop: columns that are not looked at.

    Raises:
        SourceError: a file is not Parquet, or the files' columns have no common type.
    """
    schemas: list[tuple[str, pa.Schema]] = []
    splits: list[Split] = []
    parts = 0
    for path in files:
        with _reading(location.at(path), "Parquet"), _opened(location.at(path)) as file:
            parquet = pq.ParquetFile(file)
            schemas.append((path, parquet.schema_arrow))
            totals = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
            parts += _checked_parts(totals, file.size())
            if parts > MAX_SPLITS:
                raise SourceError(
                    f"{location.uri} has more than {MAX_SPLITS:,} parts of {SPLIT_ROWS:,} rows; divide it"
                )
            for group, total in enumerate(totals):
                splits += [
                    Split(path=path, group=group, start=start, rows=rows) for start, rows in ranges(total, SPLIT_ROWS)
                ]
    return ParquetSource(
        location=location,
        schema=unified(location, schemas, drop=drop),
        dropped=tuple(drop),
        splits=tuple(splits),
        references=References(_folder_of(location, files), allow_outside),
    )


def _checked_parts(totals: Sequence[int], size: int) -> int:
    """How many splits row groups of so many rows become; a footer can claim any number.

    Raises:
        ArrowInvalid: a file of that size holds no such number of rows.
    """
    if min(totals, default=0) < 0 or sum(totals) > size * MAX_ROWS_PER_BYTE:
        raise pa.ArrowInvalid(f"its footer claims {sum(totals):,} rows in {size:,} bytes")
    return sum(-(-total // SPLIT_ROWS) for total in totals)


def open_arrow(location: Location, files: list[str], *, allow_outside: bool, drop: Sequence[str] = ()) -> ArrowSource:
    """A source of Arrow IPC files or streams; only schemas and indexes are read here.

    Args:
        drop: columns that are not looked at.

    Raises:
        SourceError: a file is not Arrow IPC, or the files' columns have no common type.
    """
    schemas: list[tuple[str, pa.Schema]] = []
    splits: list[Split] = []
    for path in files:
        with _reading(location.at(path), "Arrow IPC"), _opened(location.at(path)) as file:
            groups: Iterable[int | None]
            if is_ipc_file(file.read(6)):
                file.seek(0)
                reader = ipc.open_file(file)
                found, groups = reader.schema, range(reader.num_record_batches)
            else:
                file.seek(0)
                found, groups = ipc.open_stream(file).schema, (None,)
            schemas.append((path, found))
            splits += [Split(path=path, group=group) for group in groups]
    return ArrowSource(
        location=location,
        schema=unified(location, schemas, drop=drop),
        dropped=tuple(drop),
        splits=tuple(splits),
        references=References(_folder_of(location, files), allow_outside),
    )


def is_ipc_file(head: bytes) -> bool:
    """Whether a file begins as an Arrow IPC file does."""
    return head.startswith(b"ARROW1")


@contextlib.contextmanager
def _opened(location: Location) -> Iterator[pa.NativeFile]:
    if location.is_local:
        with pa.memory_map(location.path) as mapped:  # a footer or one batch, without reading the rest
            yield mapped
    else:
        with location.filesystem.open_input_file(location.path) as file:
            yield file


@contextlib.contextmanager
def _reading(location: Location, what: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{location.uri} cannot be read as {what}: {first_line(error)}") from error


def _folder_of(location: Location, files: list[str]) -> Location:
    return location.parent() if files == [location.path] else location
