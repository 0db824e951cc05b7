"""A model for a table that is there: its vector column, still empty, and the function that fills it for new rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from lance_align.encoders import allow_models, resolve_spec
from lance_align.errors import ArgumentError, LanceAlignError, TableError
from lance_align.hints import did_you_mean
from lance_align.spec import DEFAULT_MODEL, ModelSpec
from lance_align.tables.conflicts import attempts, is_conflict
from lance_align.tables.failures import LANCE_ERRORS, lance_failures
from lance_align.tables.handles import check_writable
from lance_align.tables.layout import CONTENT_HASH, ERROR, TEXT_VECTOR, VECTOR, VECTOR_CRC32, EmbeddedColumn
from lance_align.tables.metadata import (
    ERROR_OF_KEY,
    FINGERPRINT_KEY,
    attached_fingerprint,
    embedded_column,
    error_column,
    error_columns,
    function_objection,
    metadata_with,
    read_functions,
    read_specs,
)
from lance_align.tables.names import check_new_name, is_refused, quoted


def attach(
    table: Any,
    *,
    image: str | None = None,
    text: str | None = None,
    vector: str = VECTOR,
    model: str | ModelSpec | None = None,
    revision: str | None = None,
) -> int:
    """Give a LanceDB table, made by anyone, a vector column of a model; `lance_align.backfill` then fills it.

    Two columns are added, both null: `vector`, and one that will say why a row has no vector: ``error`` where the
    table has no such column, else ``{vector}_error``. The model and the embedding function are written into the
    table's metadata, so rows added from now on embed themselves and ``table.search("words")`` works. No row is
    rewritten: columns, indexes, versions and other embedding functions stay as they are.

    It takes two versions, the columns first. Stopped between them, or called again, it does what is missing;
    where nothing is, no version is made. A column that was renamed is declared again by its new name and its model;
    one that was dropped binds nobody, and the reasons and checksums that it left behind make place for new ones.

    Args:
        table: an open LanceDB table (of the synchronous API); it is moved to the new version.
        image: the column of pictures: encoded bytes, or text that is a path or a URI. A relative path starts at the
            database's folder in a backfill, and at the working directory of whoever calls ``table.add``.
        text: the column of texts; exactly one of the two is given.
        vector: the name of the vector column. A table may have several, of one model or of different ones;
            ``table.search`` then wants ``vector_column_name``.
        model: a known checkpoint, a hub id, a local directory, or a spec; it counts as allowed from now on. None for
            the model that is attached already, else kakaobrain/align-base.
        revision: the hub commit.

    Returns:
        The version of the table that has it all.

    Raises:
        ArgumentError: neither image nor text is given, or both.
        TableError: the source column is missing or of a type that cannot be embedded, the vector column is there and
            belongs to another model or source or holds vectors nobody knows the model of, the table stands at a
            version that was checked out, or it cannot be written.
        ModelError: the model cannot be found.

    >>> version = lance_align.attach(table, text="caption", vector="caption_vector", model="align-tiny")
    >>> "caption_vector" in table.schema.names
    True
    """
    column = _column(image=image, text=text, vector=vector)
    check_writable(table)
    named = resolve_spec(model, revision=revision) if isinstance(model, str) else model
    with lance_failures("attach a model to", str(table.name)):
        for is_last in attempts():
            table.checkout_latest()
            dataset = table.to_lance()
            try:
                _check_source(dataset.schema, column, name=str(table.name))
                spec = named or read_specs(dataset.schema).get(vector) or resolve_spec(DEFAULT_MODEL)
                _attach(dataset, column, spec, name=table.name)
                break
            except LANCE_ERRORS as error:
                if isinstance(error, LanceAlignError) or not is_conflict(error) or is_last:
                    raise
        table.checkout_latest()
    if named is not None:
        allow_models(named.name)  # who names a model trusts it
    return int(table.version)


def _attach(dataset: Any, column: EmbeddedColumn, spec: ModelSpec, *, name: str) -> None:
    """Make what is missing; each step is refused by Lance if somebody else changed columns or metadata meanwhile."""
    former = _former_name(dataset.schema, column.vector, spec)
    _check_vector(dataset, column, spec, name=name, former=former)
    stale = [] if column.vector in dataset.schema.names else _stale_columns(dataset.schema, column.vector)
    missing = _missing_columns(dataset.schema, column, spec, name=name, stale=stale, former=former)
    reason = None if former is None else error_columns(dataset.schema).get(former)
    if stale:
        dataset.drop_columns([field.name for field in stale])
    if missing:
        dataset.add_columns(pa.schema(missing))
    if reason is not None:
        dataset.update_field_metadata({reason: {_text(ERROR_OF_KEY): column.vector}})
    schema: pa.Schema = dataset.schema
    sound = read_specs(schema).get(column.vector) == spec and function_objection(schema, column.vector, spec) is None
    if not sound or embedded_column(schema, column.vector) != column:
        wanted = metadata_with(schema, column, spec)
        dataset.update_schema_metadata({_text(key): _text(value) for key, value in wanted.items()})


def _stale_columns(schema: pa.Schema, vector: str) -> list[pa.Field[Any]]:
    """What was written about vectors that are gone, and would be taken for said of those that come in their place."""
    own = error_columns(schema).get(vector)
    if own is not None:
        return [schema.field(own)]
    made_by_job = {ERROR, CONTENT_HASH, VECTOR_CRC32} <= set(schema.names) and vector in (VECTOR, TEXT_VECTOR)
    shared = any(name in schema.names and error_column(schema, name) == ERROR for name in (VECTOR, TEXT_VECTOR))
    if not made_by_job or shared or error_column(schema, vector) != ERROR:
        return []
    return [schema.field(ERROR), schema.field(VECTOR_CRC32)]


def _former_name(schema: pa.Schema, vector: str, spec: ModelSpec) -> str | None:
    """The name under which the table knows a column of vectors that was renamed; None where it knows the present one.

    A name that is gone and of the same model is taken for the former one: nothing else tells it from a stranger's.
    """
    recorded = read_specs(schema)
    if vector not in schema.names or vector in recorded:
        return None
    gone = (name for name, there in recorded.items() if name not in schema.names)
    return next((name for name in gone if recorded[name].fingerprint == spec.fingerprint), None)


def _column(*, image: str | None, text: str | None, vector: str) -> EmbeddedColumn:
    if (image is None) == (text is None):
        raise ArgumentError(f"image={image!r} and text={text!r}; expected exactly one of them, the column to embed")
    check_new_name(vector, argument="vector")
    if image is not None:
        return EmbeddedColumn(source=image, vector=vector, kind="image")
    return EmbeddedColumn(source=str(text), vector=vector, kind="text")


def _check_source(schema: pa.Schema, column: EmbeddedColumn, *, name: str) -> None:
    if column.source not in schema.names:
        seen = ", ".join(f"{field.name} ({field.type})" for field in schema)
        near = did_you_mean(column.source, schema.names)
        raise TableError(f"table {name!r} has no column {column.source!r}; {near}its columns are {seen}")
    if is_refused(column.source):  # Lance writes it, and then reads no such column under any spelling
        raise TableError(
            f"column {column.source!r} of table {name!r} cannot be read by Lance, for its name is empty or contains a "
            "backtick; write the table anew with another name"
        )
    kind = schema.field(column.source).type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    if not (is_text or (is_bytes and column.kind == "image")):
        expected = "strings" if column.kind == "text" else "encoded images as binary, or paths as strings"
        raise TableError(f"column {column.source!r} of table {name!r} is {kind}; expected {expected}")


def _check_vector(dataset: Any, column: EmbeddedColumn, spec: ModelSpec, *, name: str, former: str | None) -> None:
    """Refuse to write over, or beside, what another model, function or source has to do with the column."""
    schema: pa.Schema = dataset.schema
    vector = column.vector
    entries = read_functions(schema)
    if vector not in schema.names:
        return  # a column that is gone binds nobody
    place = f"column {vector!r} of table {name!r}"
    advice = "choose another name for the vector column"
    entry = next((entry for entry in entries if entry.get("vector_column") == vector), None)
    ours = _declared(schema, former or vector)
    if entry is not None and ours is None and vector not in read_specs(schema):
        raise TableError(f"{place} belongs to the embedding function {entry.get('name')!r}, not to ours; {advice}")
    source_differs = ours is not None and ours.source != column.source and ours.source in schema.names
    if ours is not None and (ours.kind != column.kind or source_differs):
        raise TableError(
            f"{place} is made from the {ours.kind} column {ours.source!r}, not from the {column.kind} column "
            f"{column.source!r}; {advice}"
        )
    known = _known_model(schema, vector, entry)
    if known is not None and known[1] != spec.fingerprint:
        raise TableError(
            f"{place} belongs to {known[0]} with fingerprint {known[1]}, not to {spec.name!r} with fingerprint "
            f"{spec.fingerprint}; {advice}"
        )
    field = schema.field(vector)
    if field.type != pa.list_(pa.float32(), spec.dim) or not field.nullable:
        raise TableError(
            f"{place} is {field.type}{'' if field.nullable else ' not null'}, but vectors of {spec.name!r} are "
            f"{pa.list_(pa.float32(), spec.dim)}, null where a row cannot be embedded; {advice}"
        )
    if known is None and former is None and dataset.count_rows(f"{quoted(vector)} IS NOT NULL"):
        raise TableError(
            f"{place} holds vectors, and the table does not say which model made them; {advice}, or "
            "the model that made them, where the column was renamed"
        )


def _declared(schema: pa.Schema, vector: str) -> EmbeddedColumn | None:
    """What our function's entry says of a column; None for no entry, or for one that is damaged beside a whole record.

    Raises:
        TableError: the entry is damaged, and nothing else tells whose column it is.
    """
    try:
        return embedded_column(schema, vector)
    except TableError:
        if vector not in read_specs(schema):
            raise
        return None


def _known_model(schema: pa.Schema, vector: str, entry: dict[str, Any] | None) -> tuple[str, str] | None:
    """(name, fingerprint) of the model that a vector column was made for, from whoever wrote it down."""
    recorded = read_specs(schema).get(vector)
    if recorded is not None:
        return repr(recorded.name), recorded.fingerprint
    fingerprint = attached_fingerprint(schema, vector)
    if fingerprint is not None:
        return "a model", fingerprint
    model = (entry or {}).get("model")
    if isinstance(model, dict) and model.get("fingerprint") is not None:
        return repr(model.get("name")), str(model["fingerprint"])
    return None


def _missing_columns(
    schema: pa.Schema,
    column: EmbeddedColumn,
    spec: ModelSpec,
    *,
    name: str,
    stale: Sequence[pa.Field[Any]],
    former: str | None,
) -> list[pa.Field[Any]]:
    vector = column.vector
    missing: list[pa.Field[Any]] = []
    if vector not in schema.names:
        marks: dict[bytes | str, bytes | str] = {FINGERPRINT_KEY: spec.fingerprint.encode()}
        missing.append(pa.field(vector, pa.list_(pa.float32(), spec.dim), metadata=marks))
    known = vector in read_specs(schema) or former is not None
    by_embed_job = known and vector in schema.names and error_column(schema, vector) == ERROR
    if stale or {vector, former} & set(error_columns(schema)) or (by_embed_job and ERROR in schema.names):
        return [*missing, *stale]
    error = ERROR if ERROR not in (*schema.names, vector) else f"{vector}_{ERROR}"
    if error in schema.names:
        raise TableError(f"table {name!r} has a column {error!r} already, the name that {vector!r} needs; rename one")
    missing.append(pa.field(error, pa.string(), metadata={ERROR_OF_KEY: vector.encode()}))
    return missing


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
