"""Another Lance or LanceDB table."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Final

import lance
import pyarrow as pa

from lance_align.errors import SourceError
from lance_align.jobs.sources.base import CHUNK_BYTES, Source, Split, ranges
from lance_align.jobs.sources.columnar import SPLIT_ROWS
from lance_align.jobs.sources.location import Location, References, first_line
from lance_align.jobs.sources.schemas import unified

# Rows of a range are read as a whole, whatever the batches (pylance 14); how large they are, the first ones tell.
FIRST_ROWS = 16
BLOBS: Final = "all_binary"  # else a blob column gives the places of its values


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LanceSource(Source):
    """One version of a table, fixed when the job starts; one split a range of rows of a fragment.

    Attributes:
        version: the version that is read.
    """

    version: int

    def tables(self, split: Split, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows of the fragment's range, without deleted ones; other columns are not read."""
        with _reading(self.location):
            fragment: Any = lance.dataset(self.location.uri, version=self.version).get_fragment(split.group or 0)
        start, stop, rows = split.start, split.start + (split.rows or 0), FIRST_ROWS
        while start < stop:
            with _reading(self.location):
                table = fragment.to_table(
                    columns=list(columns),
                    offset=start,
                    limit=min(rows, stop - start),
                    blob_handling=BLOBS,
                )
            if not table.num_rows:
                raise SourceError(f"{self.location.uri}: fragment {split.group} ends {stop - start:,} rows early")
            yield table
            start += table.num_rows
            rows = max(1, min(8 * rows, CHUNK_BYTES * table.num_rows // max(1, table.nbytes)))


def open_lance(location: Location, *, allow_outside: bool, drop: Sequence[str] = ()) -> LanceSource:
    """A source of the latest version of a table.

    Args:
        drop: columns that are not looked at.

    Raises:
        SourceError: there is no table, or it cannot be read.
    """
    with _reading(location):
        dataset = lance.dataset(location.uri)
        schema: pa.Schema = dataset.scanner(blob_handling=BLOBS).projected_schema
        splits = [
            Split(path=location.path, group=fragment.fragment_id, start=start, rows=rows)
            for fragment in dataset.get_fragments()
            for start, rows in ranges(fragment.count_rows(), SPLIT_ROWS)
        ]
    return LanceSource(
        location=location,
        schema=unified(location, [(location.path, schema)], drop=drop),
        dropped=tuple(drop),
        splits=tuple(splits),
        references=References(location.parent(), allow_outside),
        version=dataset.version,
    )


@contextlib.contextmanager
def _reading(location: Location) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:  # pyarrow's are among them
        raise SourceError(f"{location.uri} cannot be read as a Lance table: {first_line(error)}") from error
