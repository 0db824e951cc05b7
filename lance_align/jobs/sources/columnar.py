"""Parquet, and Arrow IPC (Feather version 2): one file or a folder of files with one schema."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

from lance_align.errors import SourceError
from lance_align.jobs.sources.base import CHUNK_ROWS, Source, Split, cut, ranges
from lance_align.jobs.sources.location import Location, References, first_line
from lance_align.jobs.sources.schemas import unified

# A row group of paths may hold a million rows; cut in ranges, its images are decoded by many tasks.
SPLIT_ROWS = 8192


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ParquetSource(Source):
    """One split a row group; long groups are cut in ranges, which read the group again."""

    def tables(self, split: Split, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows of the group's range; other columns are not read."""
        with _opened(self.location.at(split.path)) as file:
            parquet = pq.ParquetFile(file)
            names = parquet.schema_arrow.names
            batches = parquet.iter_batches(
                batch_size=CHUNK_ROWS,
                row_groups=[split.group or 0],
                columns=[column for column in columns if column in names],
                use_threads=False,
            )
            yield from cut(batches, split.start, split.rows)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ArrowSource(Source):
    """One split a record batch of an IPC file; a stream has no index and is one split."""

    def tables(self, split: Split, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows of the batch, or of the stream; other columns are not read from files."""
        with _opened(self.location.at(split.path)) as file:
            if split.group is None:
                for batch in ipc.open_stream(file):
                    yield pa.Table.from_batches([batch])
            else:
                names = ipc.open_file(file).schema.names  # of this file: the order may be another one in each
                included = [names.index(column) for column in columns if column in names]
                options = ipc.IpcReadOptions(included_fields=included)
                yield pa.Table.from_batches([ipc.open_file(file, options=options).get_batch(split.group)])


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
    for path in files:
        with _reading(location.at(path), "Parquet"), _opened(location.at(path)) as file:
            parquet = pq.ParquetFile(file)
            schemas.append((path, parquet.schema_arrow))
            for group in range(parquet.num_row_groups):
                total = parquet.metadata.row_group(group).num_rows
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
