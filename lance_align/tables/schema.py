"""The schema of a table: made for new tables, compared with those that are there."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection
from typing import Any

import pyarrow as pa
from lance.schema import LanceSchema

from lance_align.errors import TableError
from lance_align.spec import ModelSpec
from lance_align.tables.layout import (
    CONTENT_HASH,
    ERROR,
    ID,
    IMAGE,
    TAKEN_NAMES,
    TEXT_VECTOR,
    URI,
    VECTOR,
    VECTOR_CRC32,
    Embed,
    EmbeddedColumn,
    Layout,
    Store,
)
from lance_align.tables.metadata import (
    FUNCTION,
    FUNCTIONS_KEY,
    SPEC_KEY,
    embedded_column,
    function_arguments,
    function_metadata,
    function_objection,
    read_specs,
)
from lance_align.tables.names import is_refused

__all__ = [
    "CONTENT_HASH",
    "ERROR",
    "FUNCTION",
    "FUNCTIONS_KEY",
    "ID",
    "IMAGE",
    "PRIMARY_KEY",
    "SPEC_KEY",
    "TEXT_VECTOR",
    "THUMBNAIL_KEY",
    "URI",
    "VECTOR",
    "VECTOR_CRC32",
    "Embed",
    "EmbeddedColumn",
    "Layout",
    "Store",
    "check_fits",
    "function_arguments",
    "function_metadata",
    "read_specs",
    "table_schema",
]

THUMBNAIL_KEY = b"lance_align:thumbnail"  # in the metadata of a picture's field: its vector was made from the original
PRIMARY_KEY = b"lance-schema:unenforced-primary-key"  # Lance's field metadata; merge_insert then sees equal ids


def table_schema(user: pa.Schema, layout: Layout, spec: ModelSpec, *, primary_key: bool = False) -> pa.Schema:
    """The schema of a table: `id`, the user's columns unchanged, picture, vectors, `error`, hashes, and the metadata.

    Args:
        user: the columns that travel along (without those that become `id`, `image` or `uri`); their order, types,
            nullability and field metadata are kept. Schema metadata is dropped: it may name other functions to run.
        layout: the columns this package adds.
        spec: the model that writes every vector column.
        primary_key: declare `id` the (unenforced) primary key, with which merge_inserts of one id that run at the
            same time land once. Off by default: LanceDB 0.40 then refuses ``table.add`` and ``merge_insert`` of plain
            dicts, whose id it takes for nullable; `LanceModel` rows and Arrow tables with a non-null id still work.

    Returns:
        `id` string not null, `image` large_binary or `uri` string, each vector
        ``FixedSizeList<float32, dim>``, `error` string, `content_hash` string, `vector_crc32` uint32. All but `id`
        may be null: rows of ``table.add`` have neither an error nor hashes.

    Raises:
        TableError: a user's column has a name or a type that the table cannot hold, or the text column is missing.
    """
    _check_user_columns(user, layout)
    pictures: dict[Store, list[pa.Field[Any]]] = {
        "bytes": [pa.field(IMAGE, pa.large_binary(), metadata={THUMBNAIL_KEY: b"true"} if layout.thumbnails else None)],
        "uri": [pa.field(URI, pa.string())],
        "none": [],
    }
    vectors = [pa.field(column.vector, pa.list_(pa.float32(), spec.dim)) for column in layout.embedded]
    fields: list[pa.Field[Any]] = [
        pa.field(ID, pa.string(), nullable=False, metadata={PRIMARY_KEY: b"true"} if primary_key else None),
        *(_without_primary_key(field) for field in user),
        *pictures[layout.store],
        *vectors,
        pa.field(ERROR, pa.string()),
        pa.field(CONTENT_HASH, pa.string()),
        pa.field(VECTOR_CRC32, pa.uint32()),
    ]
    return pa.schema(fields, metadata=function_metadata(layout.embedded, spec))


def _check_user_columns(user: pa.Schema, layout: Layout) -> None:
    taken = [name for name in user.names if name in layout.own_columns or name in TAKEN_NAMES]
    if taken:
        raise TableError(
            f"the input has columns {taken}, names that the table needs for itself; leave them out with drop "
            f"(--drop {' --drop '.join(taken)}), or rename them in the input"
        )
    seen: set[str] = set()
    for name in user.names:
        if name in seen:
            raise TableError(f"the input has two columns {name!r}; rename one of them in the input")
        if is_refused(name):
            raise TableError(
                f"column name {name!r} is refused by Lance (expected: not empty, no period, no backtick); leave it out "
                f"with --drop {shlex.quote(name)}, or rename it in the input"
            )
        seen.add(name)
    if layout.text is not None and layout.embed != "image" and layout.text not in seen:
        raise TableError(f"there is no text column {layout.text!r}; the input has {', '.join(user.names) or 'none'}")
    for field in user:
        _check_type(field)


def _check_type(field: pa.Field[Any]) -> None:
    """Refuse, before anything is written, a type that Lance cannot hold or would change."""
    try:
        stored = LanceSchema.from_pyarrow(pa.schema([field])).to_pyarrow().field(0).type
    except (ValueError, OSError, pa.ArrowException):
        stored = None
    if stored is None or not _is_stored(field.type):
        raise TableError(
            f"column {field.name!r} has type {field.type}, which Lance cannot store; cast it in the input, or leave it "
            f"out with --drop {shlex.quote(field.name)}"
        )
    is_json = isinstance(field.type, pa.BaseExtensionType) and field.type.extension_name == "arrow.json"
    if stored != field.type and not is_json:  # JSON comes back as JSON, though kept as binary (measured, pylance 14)
        raise TableError(
            f"column {field.name!r} has type {field.type}, which Lance would change to {stored}; cast it in the input"
        )


def _is_stored(kind: Any) -> bool:
    """Whether what is written of a type that Lance takes can be read again.

    Structs without fields, and fixed-size lists of structs or texts, are taken; then the writer panics, or the whole
    table cannot be read any more (measured, pylance 14).
    """
    if isinstance(kind, pa.BaseExtensionType):
        return _is_stored(kind.storage_type)
    if pa.types.is_struct(kind) and not kind.num_fields:
        return False
    items = [kind.field(number).type for number in range(kind.num_fields)]
    return all(map(_is_stored, items)) and (not pa.types.is_fixed_size_list(kind) or _is_fixed_width(items[0]))


def _is_fixed_width(kind: Any) -> bool:
    is_number = pa.types.is_null(kind) or pa.types.is_primitive(kind) or pa.types.is_decimal(kind)
    return is_number or pa.types.is_fixed_size_binary(kind) or pa.types.is_fixed_size_list(kind)


def _without_primary_key(field: pa.Field[Any]) -> pa.Field[Any]:
    """A key the user's column was in another table would make a pair with our `id`."""
    kept: dict[bytes | str, bytes | str] = {
        key: value for key, value in (field.metadata or {}).items() if not key.startswith(PRIMARY_KEY)
    }
    return field.with_metadata(kept) if kept else field.remove_metadata()


def check_fits(existing: pa.Schema, wanted: pa.Schema, *, uri: str) -> None:
    """Check that rows of one schema may be appended to a table of another.

    The table may have more nullable columns (labels added later); the new rows hold null there.

    Raises:
        TableError: another model wrote a vector column (both are named with their fingerprints), or a column is
            missing, has another type, or is one that the new rows would have to fill.
    """
    recorded = read_specs(existing)
    for column, spec in read_specs(wanted).items():
        if column not in existing.names:
            continue  # a column that is gone binds nobody; `_check_columns` misses it
        if column not in recorded:
            raise TableError(
                f"{uri} does not say which model wrote its column {column!r}; write into a new table, or with the "
                "command that created this one"
            )
        if recorded[column].fingerprint != spec.fingerprint:
            raise TableError(
                f"{uri} holds vectors of {_describe(recorded[column])} in {column!r}, but this run uses "
                f"{_describe(spec)}; use the table's model, or write into a new table"
            )
    _check_columns(existing, wanted, uri=uri)
    for column in read_specs(wanted):
        _check_function(existing, wanted, column, uri=uri)


def _check_function(existing: pa.Schema, wanted: pa.Schema, vector: str, *, uri: str) -> None:
    """Refuse to go on with a column that cannot be searched, or that is made from another source."""
    made = embedded_column(wanted, vector)
    if made is None:  # a caller without functions asks for none
        return
    name = f"{made.kind}={json.dumps(made.source)}, vector={json.dumps(vector)}"
    wrong = function_objection(existing, vector, read_specs(existing)[vector])
    if wrong is not None:
        raise TableError(
            f"{uri} cannot be searched in {vector!r}: {wrong}; lance_align.attach(table, {name}) writes the function "
            "again"
        )
    there = embedded_column(existing, vector)
    if there != made and there is not None:
        raise TableError(
            f"{vector!r} of {uri} is made from the {there.kind} column {there.source!r}, not from the {made.kind} "
            f"column {made.source!r}; name that column, or write into a new table"
        )


def _check_columns(existing: pa.Schema, wanted: pa.Schema, *, uri: str) -> None:
    for field in wanted:
        if field.name not in existing.names:
            raise TableError(
                f"{uri} has no column {field.name!r} ({field.type}), it has {', '.join(existing.names)}; run with the "
                "columns the table was created with, or write into a new table"
            )
        found = existing.field(field.name)
        if (
            isinstance(found.type, pa.FixedSizeListType)
            and found.type != field.type
            and field.name in read_specs(wanted)
        ):
            raise TableError(
                f"{field.name!r} of {uri} holds vectors in {found.type}, but a job writes {field.type}; make it so "
                f'with table.alter_columns({{"path": {json.dumps(field.name)}, "data_type": …}}), or take a new table'
            )
        if found.type != field.type or (field.nullable and not found.nullable):
            raise TableError(
                f"column {field.name!r} of {uri} is {_column_type(found)}, but the new rows have "
                f"{_column_type(field)}; cast it in the input, or write into a new table"
            )
    check_null_fits(existing, wanted.names, uri=uri)


def check_null_fits(existing: pa.Schema, names: Collection[str], *, uri: str) -> None:
    """Check that rows with these columns may be appended: they hold null in all others.

    Lance asks this when rows are written, but not when they are committed: a table that got such a column in between
    could not be read any more (pylance 14).

    Raises:
        TableError: a column may not be null, as LanceDB's ``add_columns`` makes them of a literal.
    """
    for field in existing:
        if field.name not in names and not field.nullable:
            raise TableError(
                f"{uri} has a column {field.name!r} ({field.type}) that may not be null, and the new rows do not have "
                f'it; run table.alter_columns({{"path": {json.dumps(field.name)}, "nullable": True}}) once, or write '
                "into a new table"
            )


def _column_type(field: pa.Field[Any]) -> str:
    return f"{field.type}{'' if field.nullable else ' not null'}"


def _describe(spec: ModelSpec) -> str:
    revision = f" at {spec.revision}" if spec.revision else ""
    return f"{spec.name!r}{revision} (fingerprint {spec.fingerprint})"
