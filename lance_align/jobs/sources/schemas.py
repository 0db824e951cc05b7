"""One schema for all files of a source: types that differ harmlessly become one that holds every value of both.

Nothing is rounded or cut: where no type holds the values of two files, or a value does not fit when it is read, the
error names the file and the column. Storage variants (views, run ends) are read as what they mean.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lance_align.errors import SourceError
from lance_align.hints import did_you_mean
from lance_align.jobs.sources.location import Location, first_line
from lance_align.jobs.sources.partitions import partition_fields

_UTC = frozenset({"UTC", "Etc/UTC", "Z", "+00:00", "-00:00", "GMT", "Etc/GMT", "Zulu"})
_UNITS = ("s", "ms", "us", "ns")
_INT_DIGITS = {8: 3, 16: 5, 32: 10, 64: 20}  # of the longest number, signed or not
_DECIMAL128_DIGITS, _DECIMAL256_DIGITS = 38, 76


@dataclasses.dataclass(slots=True)
class _Column:
    field: pa.Field[Any]
    path: str  # of the file that settled its type
    files: int  # how many have it


def unified(location: Location, files: Iterable[tuple[str, pa.Schema]], *, drop: Sequence[str] = ()) -> pa.Schema:
    """The schema that all files are read with: columns in the order they appear, those of folder names at the end.

    Args:
        location: the source.
        files: path and schema of each, in the source's order.
        drop: columns that are not looked at, whatever they are.

    Raises:
        SourceError: two files have types that no type holds without loss, a file has two columns of one name, or no
            file has a column of `drop`.
    """
    columns: dict[str, _Column] = {}
    paths: list[str] = []
    dropped: set[str] = set()
    for path, schema in files:
        paths.append(path)
        dropped.update(name for name in schema.names if name in drop)
        kept = [field for field in schema if field.name not in drop]
        _check_names(location.at(path).uri, kept)
        for field in kept:
            _add(columns, field, path, location)
    for column in columns.values():
        if column.files < len(paths):
            column.field = column.field.with_nullable(True)
    fields = [column.field for column in columns.values()]
    for field in partition_fields(path.removeprefix(location.path) for path in paths):
        if field.name in drop:
            dropped.add(field.name)
        elif field.name not in columns:
            fields.append(field)
    unknown = [name for name in drop if name not in dropped]
    if unknown and paths:
        seen = ", ".join(f"{field.name} ({field.type})" for field in fields)
        near = did_you_mean(unknown[0], [field.name for field in fields])
        raise SourceError(f"{location.uri} has no column {unknown[0]!r} to drop; {near}its columns are {seen}")
    return pa.schema(fields)


def conformed(table: pa.Table, schema: pa.Schema, *, uri: str, values: Mapping[str, str | None]) -> pa.Table:
    """Rows of one file as rows of the source.

    Args:
        table: some columns of `schema`, in any order, with the file's own types.
        uri: the file.
        values: what its folders' names say, for cells that would be null otherwise.

    Raises:
        SourceError: a value does not fit the column's type.
    """
    columns = []
    for field in schema:
        try:
            if field.name in table.column_names:
                column = as_type(table.column(field.name), field.type)
            else:
                column = _constant(None, table.num_rows, field.type)
            if column.null_count and values.get(field.name) is not None:
                column = pc.coalesce(column, _constant(values[field.name], table.num_rows, field.type))
        except (pa.ArrowException, ValueError) as error:
            raise SourceError(
                f"{uri}: column {field.name!r} holds a value that {field.type} does not hold without loss "
                f"({first_line(error)}); write the files with one type, or leave it out with --drop "
                f"{shlex.quote(field.name)}"
            ) from error
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema) if columns else table.select([])


def _constant(text: str | None, rows: int, kind: Any) -> pa.ChunkedArray[Any]:
    array: Any = pa.nulls(rows) if text is None else pa.repeat(pa.scalar(text), rows)
    return pa.chunked_array([array.cast(kind)], kind)


def _check_names(uri: str, fields: Sequence[pa.Field[Any]]) -> None:
    seen: set[str] = set()
    for field in fields:
        if field.name in seen:
            raise SourceError(
                f"{uri} has two columns {field.name!r}; rename one of them, or leave both out with --drop "
                f"{shlex.quote(field.name)}"
            )
        seen.add(field.name)


def _add(columns: dict[str, _Column], field: pa.Field[Any], path: str, location: Location) -> None:
    found = plain_type(field.type)
    known = columns.get(field.name)
    if known is None:
        columns[field.name] = _Column(field.with_type(found), path, 1)
        return
    both = common_type(known.field.type, found)
    if both is None:
        raise SourceError(
            f"{location.at(path).uri} has column {field.name!r} as {field.type}, {location.at(known.path).uri} as "
            f"{known.field.type}; expected one type in all files: cast it in one of them, or leave it out with "
            f"--drop {shlex.quote(field.name)}"
        )
    if both != known.field.type:
        known.path = path
    known.field = known.field.with_type(both).with_nullable(known.field.nullable or field.nullable)
    known.files += 1


def plain_type(kind: Any) -> Any:
    """The type that a storage variant means: string for string views, list for list views, values for run ends."""
    if pa.types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, plain_type(kind.value_type), kind.ordered)
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_list(kind) or pa.types.is_list_view(kind):
        return pa.list_(_plain_field(kind.value_field))
    if pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind):
        return pa.large_list(_plain_field(kind.value_field))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain_field(kind.value_field), kind.list_size)
    if pa.types.is_struct(kind):
        return pa.struct([_plain_field(field) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_plain_field(kind.key_field), _plain_field(kind.item_field), kind.keys_sorted)
    return kind


def _plain_field(field: pa.Field[Any]) -> pa.Field[Any]:
    return field.with_type(plain_type(field.type))


def common_type(one: Any, other: Any) -> Any | None:
    """A type that holds every value of two plain types, or None where there is none.

    A 64-bit integer and a float become a double, in which some integers do not fit: reading those is an error.
    """
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    for matches, joined in _JOINS:
        if matches(one) and matches(other):
            return joined(one, other)
    if pa.types.is_dictionary(one) or pa.types.is_dictionary(other):
        return common_type(_decoded_type(one), _decoded_type(other))
    return None


def _decoded_type(kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _text(*_: Any) -> Any:
    return pa.large_string()  # two that differ


def _bytes(one: Any, other: Any) -> Any:
    return pa.large_binary() if pa.types.is_large_binary(one) or pa.types.is_large_binary(other) else pa.binary()


def _number(one: Any, other: Any) -> Any | None:
    if pa.types.is_decimal(one) or pa.types.is_decimal(other):
        return _decimal(one, other)
    joined = np.promote_types(one.to_pandas_dtype(), other.to_pandas_dtype())
    if pa.types.is_integer(one) and pa.types.is_integer(other) and joined.kind == "f":  # uint64 and a signed one
        return pa.decimal128(_INT_DIGITS[64], 0)
    return pa.from_numpy_dtype(joined)


def _decimal(one: Any, other: Any) -> Any | None:
    if pa.types.is_floating(one) or pa.types.is_floating(other):
        return None
    whole, scale = (max(pair) for pair in zip(_digits(one), _digits(other), strict=True))
    if whole + scale > _DECIMAL256_DIGITS:
        return None
    wide = whole + scale > _DECIMAL128_DIGITS or pa.types.is_decimal256(one) or pa.types.is_decimal256(other)
    return pa.decimal256(whole + scale, scale) if wide else pa.decimal128(whole + scale, scale)


def _digits(kind: Any) -> tuple[int, int]:
    """How many before and after the point."""
    if pa.types.is_integer(kind):
        return _INT_DIGITS[kind.bit_width], 0
    return kind.precision - kind.scale, kind.scale


def _timestamp(one: Any, other: Any) -> Any | None:
    zones = {"UTC" if zone in _UTC else zone for zone in (one.tz, other.tz)}
    return pa.timestamp(_finer(one, other), zones.pop()) if len(zones) == 1 else None


def _time(one: Any, other: Any) -> Any:
    unit = _finer(one, other)
    return pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)


def _finer(one: Any, other: Any) -> Any:
    return max(one.unit, other.unit, key=_UNITS.index)


def _list(one: Any, other: Any) -> Any | None:
    fields = (one.value_field, other.value_field)
    items = common_type(fields[0].type, fields[1].type)
    if items is None:
        return None
    item = fields[0].with_type(items).with_nullable(any(field.nullable for field in fields))
    if all(map(pa.types.is_fixed_size_list, (one, other))) and one.list_size == other.list_size:
        return pa.list_(item, one.list_size)
    return pa.large_list(item) if any(map(pa.types.is_large_list, (one, other))) else pa.list_(item)


def _struct(one: Any, other: Any) -> Any | None:
    fields: dict[str, pa.Field[Any]] = {}
    if len(set(one.names)) < len(one.names) or len(set(other.names)) < len(other.names):
        return None
    for field in [*one, *other]:
        known = fields.get(field.name)
        kind = field.type if known is None else common_type(known.type, field.type)
        if kind is None:
            return None
        everywhere = field.name in one.names and field.name in other.names
        nullable = field.nullable or not everywhere or (known is not None and known.nullable)
        fields[field.name] = (known or field).with_type(kind).with_nullable(nullable)
    return pa.struct(list(fields.values()))


def _map(one: Any, other: Any) -> Any | None:
    key, item = common_type(one.key_type, other.key_type), common_type(one.item_type, other.item_type)
    return None if key is None or item is None else pa.map_(key, item)


def _is_listing(kind: Any) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _is_number(kind: Any) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


_JOINS: tuple[tuple[Callable[[Any], bool], Callable[[Any, Any], Any | None]], ...] = (
    (_is_number, _number),
    (lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind), _text),
    (
        lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind),
        _bytes,
    ),
    (pa.types.is_date, lambda *_: pa.date64()),
    (pa.types.is_time, _time),
    (pa.types.is_timestamp, _timestamp),
    (pa.types.is_duration, lambda one, other: pa.duration(_finer(one, other))),
    (_is_listing, _list),
    (pa.types.is_struct, _struct),
    (pa.types.is_map, _map),
)


def as_type(column: pa.ChunkedArray[Any], kind: Any) -> pa.ChunkedArray[Any]:
    """The same values with another type, one that `common_type` gave.

    Raises:
        ArrowInvalid: a value does not fit.
    """
    if column.type == kind:
        return column
    return pa.chunked_array([_as_type(chunk, kind) for chunk in column.chunks], kind)


def _as_type(array: Any, kind: Any) -> Any:
    """Level by level: pyarrow 26 casts list views wrongly, and run ends and dictionaries of views not at all."""
    found = array.type
    if found == kind:
        return array
    if pa.types.is_run_end_encoded(found):
        places = np.searchsorted(
            np.asarray(array.run_ends), np.arange(array.offset, array.offset + len(array)), side="right"
        )
        return _as_type(_as_type(array.values, plain_type(found)).take(pa.array(places)), kind)
    if pa.types.is_dictionary(found):
        values = _as_type(array.dictionary, _decoded_type(kind))
        if pa.types.is_dictionary(kind):
            return pa.DictionaryArray.from_arrays(array.indices, values, ordered=kind.ordered)
        return values.take(array.indices)
    if _is_listing(kind) and not pa.types.is_null(found):
        return _as_list(array, kind)
    if pa.types.is_struct(kind) and pa.types.is_struct(found):
        parts = [
            _as_type(array.field(field.name), field.type)
            if field.name in found.names
            else pa.nulls(len(array)).cast(field.type)
            for field in kind
        ]
        return pa.StructArray.from_arrays(parts, fields=list(kind), mask=array.is_null()) if parts else array.cast(kind)
    if pa.types.is_map(kind) and pa.types.is_map(found):
        entries = pa.list_(pa.struct([kind.key_field, kind.item_field]))
        found_entries = pa.list_(pa.struct([found.key_field, found.item_field]))
        lists = _as_list(array.cast(found_entries), entries)
        keys, items = (lists.values.field(number) for number in range(2))
        maps: Any = pa.MapArray
        return maps.from_arrays(lists.offsets, keys, items, type=kind, mask=array.is_null())
    return array.cast(kind)


def _as_list(array: Any, kind: Any) -> Any:
    nulls = array.is_null()
    if pa.types.is_fixed_size_list(kind):
        values = array.values[array.offset * kind.list_size : (array.offset + len(array)) * kind.list_size]
        fixed: Any = pa.FixedSizeListArray
        return fixed.from_arrays(_as_type(values, kind.value_type), type=kind, mask=nulls)
    items = _as_type(pc.list_flatten(array), kind.value_type)  # of valid lists only, in their order
    lengths = np.asarray(pc.fill_null(pc.list_value_length(array), 0)).astype(np.int64)
    is_large = pa.types.is_large_list(kind)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64 if is_large else np.int32)
    arrays: Any = pa.LargeListArray if is_large else pa.ListArray
    return arrays.from_arrays(pa.array(offsets), items, type=kind, mask=nulls)
