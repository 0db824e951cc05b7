"""CSV and JSON Lines: lists of image paths or captions, with whatever else stands in the line.

The driver reads each file through once, in blocks, for its types and its number of rows: such files hold names, not
pictures. Tasks then read ranges of rows, each of them parsing what stands before its range.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson

from lance_align.errors import SourceError
from lance_align.jobs.sources.base import Source, Split, cut, ranges
from lance_align.jobs.sources.location import Location, References, first_line
from lance_align.jobs.sources.schemas import unified

SPLIT_ROWS = 2048  # a task decodes this many images
# Of one file, however long: tasks parse it half as often as there are splits. (A million lines are parsed in 0.5 s.)
MAX_SPLITS = 64
BLOCK_BYTES = 16 * 2**20  # types are settled by the first block; a line longer than this is refused


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CsvSource(Source):
    """Comma-separated values with a header line, UTF-8, quoted line breaks allowed."""

    def tables(self, split: Split, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows of the range; other columns are not converted."""
        with self.location.filesystem.open_input_stream(split.path, compression="detect") as stream:
            types = {field.name: field.type for field in self.schema}
            yield from cut(_csv(stream, types, columns), split.start, split.rows)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class JsonlSource(Source):
    """One JSON object a line, UTF-8."""

    def tables(self, split: Split, columns: Sequence[str]) -> Iterator[pa.Table]:  # noqa: ARG002  a line is parsed whole
        """The rows of the range, with all columns."""
        with self.location.filesystem.open_input_stream(split.path, compression="detect") as stream:
            yield from cut(_jsonl(stream, self.schema), split.start, split.rows)


def open_csv(
    location: Location, files: list[str], *, allow_outside: bool, as_text: tuple[str, ...], drop: Sequence[str] = ()
) -> CsvSource:
    """A source of CSV files.

    Args:
        as_text: columns kept as text whatever they look like, so that the id ``007`` stays ``007``.
        drop: columns that are not looked at.

    Raises:
        SourceError: a file cannot be parsed, or the files' columns have no common type.
    """
    schemas: list[tuple[str, pa.Schema]] = []
    splits: list[Split] = []
    for path in files:
        try:
            with location.filesystem.open_input_stream(path, compression="detect") as stream:
                reader = _csv(stream, dict.fromkeys(as_text, pa.string()))
                schemas.append((path, _without_null_types(reader.schema)))
            splits += _count(CsvSource, location, path, schemas[-1][1])
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{location.at(path).uri} cannot be read as CSV: {first_line(error)}") from error
    return CsvSource(**_parts(location, files, schemas, splits, allow_outside, drop))


def open_jsonl(location: Location, files: list[str], *, allow_outside: bool, drop: Sequence[str] = ()) -> JsonlSource:
    """A source of JSON Lines files; see `open_csv`.

    Raises:
        SourceError: as `open_csv`; also a key that only appears after the first 16 MiB.
    """
    schemas: list[tuple[str, pa.Schema]] = []
    splits: list[Split] = []
    for path in files:
        try:
            with location.filesystem.open_input_stream(path, compression="detect") as stream:
                schemas.append((path, _without_null_types(_jsonl(stream, None).schema)))
            splits += _count(JsonlSource, location, path, schemas[-1][1])
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{location.at(path).uri} cannot be read as JSON Lines: {first_line(error)}") from error
    return JsonlSource(**_parts(location, files, schemas, splits, allow_outside, drop))


def _parts(
    location: Location,
    files: list[str],
    schemas: Sequence[tuple[str, pa.Schema]],
    splits: list[Split],
    allow_outside: bool,
    drop: Sequence[str],
) -> dict[str, Any]:
    root = location.parent() if files == [location.path] else location
    return {
        "location": location,
        "schema": unified(location, schemas, drop=drop),
        "dropped": tuple(drop),
        "splits": tuple(splits),
        "references": References(root, allow_outside),
    }


def _count(kind: type[CsvSource] | type[JsonlSource], location: Location, path: str, schema: pa.Schema) -> list[Split]:
    """Read a file through, so that a line that does not fit is found before anything is written."""
    whole = kind(location=location, schema=schema, splits=(), references=References(location))
    total = sum(table.num_rows for table in whole.tables(Split(path=path), schema.names))
    step = max(SPLIT_ROWS, -(-total // MAX_SPLITS))
    return [Split(path=path, start=start, rows=rows) for start, rows in ranges(total, step)]


def _csv(stream: Any, types: Mapping[str, pa.DataType], columns: Sequence[str] = ()) -> pacsv.CSVStreamingReader:
    return pacsv.open_csv(
        stream,
        read_options=pacsv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
        parse_options=pacsv.ParseOptions(newlines_in_values=True),
        convert_options=pacsv.ConvertOptions(
            column_types=dict(types),
            include_columns=list(columns),
            include_missing_columns=True,
            strings_can_be_null=True,
            null_values=[""],
        ),
    )


def _jsonl(stream: Any, schema: pa.Schema | None) -> Any:
    return pajson.open_json(
        stream,
        read_options=pajson.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
        parse_options=pajson.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior="infer" if schema is None else "error"
        ),
    )


def _without_null_types(schema: pa.Schema) -> pa.Schema:
    """Columns without a single value are text: Lance cannot hold the null type usefully."""
    fields = [pa.field(f.name, pa.string()) if pa.types.is_null(f.type) else f for f in schema]
    return pa.schema(fields)
