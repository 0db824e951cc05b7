"""What every source offers: a schema, a list of splits made without reading data, and the rows of one split."""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal, Self

import pyarrow as pa

from lance_align.jobs.sources.location import Location, References
from lance_align.jobs.sources.partitions import partition_values
from lance_align.jobs.sources.schemas import conformed
from lance_align.jobs.sources.texts import with_valid_text

Looks = Literal["images", "videos"]

CHUNK_ROWS = 1024
CHUNK_BYTES = 32 * 2**20
_LEFT_OUT = b"lance_align.left_out"  # in a table's schema metadata


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A part of a source that one task reads, always the same rows in the same order.

    Attributes:
        path: the file; on the source's filesystem.
        group: the row group, record batch or fragment in the file, or None for all of it.
        start: the first row, counted from the start of the file or group.
        rows: how many rows, or None where only reading tells.
        files: for a folder, the files that are the rows.
        most: how many of these rows are read at most; None for all.
    """

    path: str
    group: int | None = None
    start: int = 0
    rows: int | None = None
    files: tuple[str, ...] = ()
    most: int | None = None

    def to_json(self) -> str:
        """One line; `from_json` gives an equal split back."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Split:
        """Read what `to_json` wrote."""
        raw = json.loads(text)
        return cls(**{**raw, "files": tuple(raw["files"])})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Source(ABC):
    """Rows to embed; small, and sent to workers, which read one split each.

    Attributes:
        location: what the user named.
        schema: the columns of every row, without schema metadata.
        splits: the parts, in the source's order.
        references: what image paths in the rows may point at.
        looks: what the model looks at, and the rows therefore are taken to hold.
        dropped: columns that the files have and `schema` leaves out, whatever they are.
        left_out: how many files and folders are no rows although they lie there, by kind: a suffix, or words.
    """

    location: Location
    schema: pa.Schema
    splits: tuple[Split, ...]
    references: References
    looks: Looks = "images"
    dropped: tuple[str, ...] = ()
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)

    # The columns that hold the picture, the text and the id, for formats that define them.
    image: str | None = None
    text: str | None = None
    id: str | None = None

    @abstractmethod
    def tables(self, split: Split, columns: Sequence[str]) -> Iterable[pa.Table]:
        """The rows of one split in tables of any size; deterministic.

        Args:
            columns: those that are needed; a format that can leaves the others unread. Those that the file of the
                split does not have are left out, and types may be the file's own: `read` makes them the source's.
        """

    def read(self, split: Split, *, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows of one split, in order, in tables of at most `CHUNK_ROWS` rows and about `CHUNK_BYTES` bytes.

        A split read twice gives the same tables: everything downstream counts on it. What `with_left_out` has noted
        stays with the first of a table's slices.

        Args:
            columns: None for all; some of them give the same rows in the same order, cut elsewhere.
        """
        schema = self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])
        file = self.location.at(split.path)
        values = self._partition(split.path)
        left = split.most
        for table in self.tables(split, schema.names):
            found = table.select([name for name in schema.names if name in table.column_names])
            left_out = left_out_of(table)
            if left_out and not table.num_rows:
                yield with_left_out(schema.empty_table(), left_out)
            for part in bounded(found if left is None else found.slice(0, left)):
                yield with_left_out(conformed(with_valid_text(part), schema, uri=file.uri, values=values), left_out)
                left_out = {}
            left = None if left is None else max(0, left - found.num_rows)
            if left == 0:
                return

    @property
    def partitions(self) -> frozenset[str]:
        """The columns that names of folders give."""
        return frozenset(name for path in {split.path for split in self.splits} for name in self._partition(path))

    def _partition(self, path: str) -> Mapping[str, str | None]:
        # A format that names rows by where they stand has no other columns in the names of folders.
        return {} if self.id is not None else partition_values(path.removeprefix(self.location.path))

    def places(self, rows: Sequence[tuple[int, int]]) -> list[tuple[str, int]]:
        """Where rows stand, for people.

        Args:
            rows: the number of the split and the number of the row in it, both counted from 0.

        Returns:
            For each the file's URI and the row in it, counted from 0. A file in parts of unknown length (Arrow's record
            batches) is named with the part, and the row counts from there.
        """
        starts = self._starts({number for number, _ in rows})
        return [self._place(self.splits[number], row, starts[number]) for number, row in rows]

    def _place(self, split: Split, row: int, start: int | None) -> tuple[str, int]:
        if split.files:
            return self.location.at(f"{split.path}/{split.files[row]}").uri, 0
        uri = self.location.at(split.path).uri
        return (uri, start + row) if start is not None else (f"{uri} (part {split.group})", row)

    def _starts(self, numbers: Collection[int]) -> dict[int, int | None]:
        """The row of its file that each of some splits begins with, None where nobody knows; files are not mixed."""
        starts: dict[int, int | None] = {}
        path, start = "", None
        for number, split in enumerate(self.splits):
            path, start = split.path, 0 if split.path != path else start
            if number in numbers:
                starts[number] = start
            start = None if start is None or split.rows is None else start + split.rows
        return starts

    def rows(self) -> int | None:
        """How many rows there are, or None where only reading tells."""
        counts = [split.rows if split.most is None else split.most for split in self.splits]
        return None if any(count is None for count in counts) else sum(count or 0 for count in counts)

    def first(self, rows: int) -> Self:
        """The same source with its first rows alone. Splits of unknown length are read till there are enough."""
        kept: list[Split] = []
        for split in self.splits:
            if not rows:
                break
            most = min(rows, split.rows if split.rows is not None else self._count(split, rows))
            kept.append(dataclasses.replace(split, most=most))
            rows -= most
        return dataclasses.replace(self, splits=tuple(kept))

    def _count(self, split: Split, most: int) -> int:
        count = 0
        for table in self.read(split, columns=self.schema.names[:1]):
            count += table.num_rows
            if count >= most:
                break
        return count


def with_left_out(table: pa.Table, counts: Mapping[str, int]) -> pa.Table:
    """The table with a note of what stands among its rows and is left out, by kind; seen when the rows are read."""
    told = {kind: count for kind, count in counts.items() if count}
    return table.replace_schema_metadata({_LEFT_OUT: json.dumps(told)} if told else None)


def left_out_of(table: pa.Table) -> dict[str, int]:
    """What `with_left_out` has noted."""
    counts: dict[str, int] = json.loads((table.schema.metadata or {}).get(_LEFT_OUT, b"{}"))
    return counts


def bounded(table: pa.Table) -> Iterator[pa.Table]:
    """Cut a table into slices of at most `CHUNK_ROWS` rows and about `CHUNK_BYTES` bytes; no rows give no slices."""
    if table.num_rows == 0:
        return
    row_bytes = max(1, table.nbytes // table.num_rows)
    step = max(1, min(CHUNK_ROWS, CHUNK_BYTES // row_bytes))
    for start, rows in ranges(table.num_rows, step):
        yield table.slice(start, rows)  # without columns, a table says of a slice whatever it is told


def ranges(total: int, step: int) -> Iterator[tuple[int, int]]:
    """(start, rows) of consecutive ranges of at most `step` rows that cover `total` rows."""
    for start in range(0, total, step):
        yield start, min(step, total - start)


def cut(batches: Iterable[pa.RecordBatch], start: int, rows: int | None) -> Iterator[pa.Table]:
    """The rows ``[start, start + rows)`` of a stream of batches, as tables."""
    stop = None if rows is None else start + rows
    position = 0
    for batch in batches:
        first, last = max(start - position, 0), batch.num_rows if stop is None else min(stop - position, batch.num_rows)
        if first < last:
            yield pa.Table.from_batches([batch.slice(first, last - first)])
        position += batch.num_rows
        if stop is not None and position >= stop:
            return
