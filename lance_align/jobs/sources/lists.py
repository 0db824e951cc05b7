"""What CSV and JSON Lines share: lists of image paths or captions, with whatever else stands in the line.

The driver reads each file through once, line by line, for its types, its number of rows and its proper end: such files
hold names, not pictures. Tasks then read ranges of rows, each of them passing over what stands before its range.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa

from lance_align.errors import SourceError
from lance_align.jobs.sources.base import Split, ranges
from lance_align.jobs.sources.location import Location, References, first_line
from lance_align.jobs.sources.schemas import unified

Row = TypeVar("Row")

SPLIT_ROWS = 2048  # a task decodes this many images
# Of one file, however long: tasks pass over it half as often as there are splits. (A million lines take 1 s.)
MAX_SPLITS = 64
MAX_CHARS = 16 * 2**20  # of a line, and of a cell; what is longer is refused before it is held
BLOCK_ROWS = 1024
BLOCK_CHARS = 8 * 2**20

_ENCODINGS = (  # by the mark at the start; that of UTF-32 LE begins as that of UTF-16 LE does
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@contextlib.contextmanager
def opened_lines(location: Location, what: str, *, newline: str) -> Iterator[Iterator[str]]:
    """The lines of a file, with their ends, decompressed and decoded; UTF-8 unless a byte-order mark says otherwise.

    Bytes that are not UTF-8 are lone surrogates (``surrogateescape``); `lance_align.jobs.sources.texts` mends them.

    Args:
        what: the format, for messages.
        newline: as for `io.TextIOWrapper`.

    Raises:
        SourceError: the file cannot be read to its end, or a line is longer than `MAX_CHARS`.
    """
    try:
        with (
            location.filesystem.open_input_stream(location.path, compression=_compression(location.path)) as stream,
            io.BufferedReader(stream, 2**20) as buffered,  # type: ignore[type-var]  # a NativeFile has all it needs
        ):
            head = buffered.peek(4)[:4]
            if not head and location.path.lower().endswith(".gz") and location.info().size == 0:
                raise SourceError(f"{location.uri} cannot be read as {what}: no gzip file is empty; write it again")
            encoding = next((name for mark, name in _ENCODINGS if head.startswith(mark)), "utf-8")
            errors = "surrogateescape" if encoding.startswith("utf-8") else "surrogatepass"
            yield _lines(io.TextIOWrapper(buffered, encoding, errors, newline=newline), location)
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise SourceError(f"{location.uri} cannot be read as {what}: {first_line(error)}") from error


def _compression(path: str) -> str:
    return "gzip" if path.lower().endswith(".gz") else "detect"  # which minds the letter case


def _lines(text: io.TextIOWrapper, location: Location) -> Iterator[str]:
    for number, line in enumerate(iter(lambda: text.readline(MAX_CHARS + 1), ""), start=1):
        if len(line) > MAX_CHARS:
            raise SourceError(f"{location.uri} line {number} has over {MAX_CHARS:,} characters; expected shorter lines")
        yield line


def allow_long_cells() -> None:
    """Let `csv` read cells of `MAX_CHARS`; its limit is one for the process, and is never lowered here."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CHARS))


def splits_of(path: str, rows: int) -> list[Split]:
    """Ranges of a file's rows, one a task; blocks begin at the same rows whether one range is read or several."""
    step = max(SPLIT_ROWS, -(-rows // (MAX_SPLITS * BLOCK_ROWS)) * BLOCK_ROWS)
    return [Split(path=path, start=start, rows=count) for start, count in ranges(rows, step)]


def parts_of(
    location: Location,
    names: Mapping[str, Sequence[str]],
    types: Mapping[str, pa.Field[Any]],
    splits: Sequence[Split],
    *,
    drop: Sequence[str],
    allow_outside: bool,
) -> dict[str, Any]:
    """What both sources are made of, with one schema for all files, and columns for folders' names.

    Args:
        names: the columns of each file.
        types: all columns.
    """
    schemas = [(path, pa.schema([types[name] for name in names[path]])) for path in names]
    return {
        "location": location,
        "schema": unified(location, schemas, drop=drop),
        "dropped": tuple(drop),
        "splits": tuple(splits),
        "references": References(location.parent() if list(names) == [location.path] else location, allow_outside),
    }


def blocks(rows: Iterable[tuple[int, Row]]) -> Iterator[list[Row]]:
    """Rows in lists of at most `BLOCK_ROWS` rows and about `BLOCK_CHARS` characters.

    Args:
        rows: each with its number of characters.
    """
    held: list[Row] = []
    size = 0
    for chars, row in rows:
        held.append(row)
        size += chars
        if len(held) == BLOCK_ROWS or size >= BLOCK_CHARS:
            yield held
            held, size = [], 0
    if held:
        yield held


def taken(rows: Iterator[Row], split: Split, location: Location) -> Iterator[Row]:
    """As many rows as a split has.

    Args:
        rows: those of the file from the split's first one on.

    Raises:
        SourceError: there are fewer.
    """
    given = 0
    for row in itertools.islice(rows, split.rows):
        given += 1
        yield row
    if split.rows is not None and given < split.rows:
        raise SourceError(
            f"{location.uri} became shorter while it was read: it ends before row {split.start + split.rows}; run again"
        )
