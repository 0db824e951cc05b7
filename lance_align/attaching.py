"""A model for a table that is there: its vector column, still empty, and the function that fills it for new rows."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from lance_align.encoders import allow_models, resolve_spec
from lance_align.errors import ArgumentError, LanceAlignError, TableError
from lance_align.spec import ModelSpec
from lance_align.tables.conflicts import attempts, is_conflict
from lance_align.tables.failures import LANCE_ERRORS, lance_failures
from lance_align.tables.layout import ERROR, VECTOR, EmbeddedColumn
from lance_align.tables.metadata import (
    ERROR_OF_KEY,
    FINGERPRINT_KEY,
    attached_fingerprint,
    embedded_column,
    error_column,
    error_columns,
    metadata_with,
    read_functions,
    read_specs,
)
from lance_align.tables.names import check_new_name, quoted

DEFAULT_MODEL = "align-tiny"


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
    where nothing is, no version is made.

    Args:
        table: an open LanceDB table (of the synchronous API); it is moved to the new version.
        image: the column of pictures: encoded bytes, or text that is a path or a URI. A relative path starts at the
            database's folder in a backfill, and at the working directory of whoever calls ``table.add``.
        text: the column of texts; exactly one of the two is given.
        vector: the name of the vector column. A table may have several, of one model or of different ones;
            ``table.search`` then wants ``vector_column_name``.
        model: a known checkpoint, a hub id, a local directory, or a spec; it counts as allowed from now on. None for
            the model that is attached already, else align-tiny.
        revision: the hub commit.

    Returns:
        The version of the table that has it all.

    Raises:
        ArgumentError: neither image nor text is given, or both.
        TableError: the source column is missing or of a type that cannot be embedded, the vector column is there and
            belongs to another model or source or holds vectors nobody knows the model of, or the table cannot be
            written.
        ModelError: the model cannot be found.
    """
    column = _column(image=image, text=text, vector=vector)
    named = resolve_spec(model, revision=revision) if isinstance(model, str) else model
    with lance_failures("attach a model to", str(table.name)):
        for is_last in attempts():
            table.checkout_latest()
            dataset = table.to_lance()
            try:
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
    _check_source(dataset.schema, column, name=name)
    _check_vector(dataset, column, spec, name=name)
    missing = _missing_columns(dataset.schema, column, spec, name=name)
    if missing:
        dataset.add_columns(pa.schema(missing))
    schema: pa.Schema = dataset.schema
    if embedded_column(schema, column.vector) != column or read_specs(schema).get(column.vector) != spec:
        wanted = metadata_with(schema, column, spec)
        dataset.update_schema_metadata({_text(key): _text(value) for key, value in wanted.items()})


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
        raise TableError(f"table {name!r} has no column {column.source!r}; its columns are {seen}")
    kind = schema.field(column.source).type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    if not (is_text or (is_bytes and column.kind == "image")):
        expected = "strings" if column.kind == "text" else "encoded images as binary, or paths as strings"
        raise TableError(f"column {column.source!r} of table {name!r} is {kind}; expected {expected}")


def _check_vector(dataset: Any, column: EmbeddedColumn, spec: ModelSpec, *, name: str) -> None:
    """Refuse to write over, or beside, what another model, function or source has to do with the column."""
    schema: pa.Schema = dataset.schema
    vector = column.vector
    place = f"column {vector!r} of table {name!r}"
    advice = "choose another name for the vector column"
    ours = embedded_column(schema, vector)
    entry = next((entry for entry in read_functions(schema) if entry.get("vector_column") == vector), None)
    if entry is not None and ours is None:
        raise TableError(f"{place} belongs to the embedding function {entry.get('name')!r}, not to ours; {advice}")
    if ours is not None and ours != column:
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
    if vector not in schema.names:
        return
    field = schema.field(vector)
    if field.type != pa.list_(pa.float32(), spec.dim) or not field.nullable:
        raise TableError(
            f"{place} is {field.type}{'' if field.nullable else ' not null'}, but vectors of {spec.name!r} are "
            f"{pa.list_(pa.float32(), spec.dim)}, null where a row cannot be embedded; {advice}"
        )
    if known is None and dataset.count_rows(f"{quoted(vector)} IS NOT NULL"):
        raise TableError(f"{place} holds vectors, and the table does not say which model made them; {advice}")


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


def _missing_columns(schema: pa.Schema, column: EmbeddedColumn, spec: ModelSpec, *, name: str) -> list[pa.Field[Any]]:
    vector = column.vector
    missing: list[pa.Field[Any]] = []
    if vector not in schema.names:
        marks: dict[bytes | str, bytes | str] = {FINGERPRINT_KEY: spec.fingerprint.encode()}
        missing.append(pa.field(vector, pa.list_(pa.float32(), spec.dim), metadata=marks))
    by_embed_job = vector in read_specs(schema) and vector in schema.names and error_column(schema, vector) == ERROR
    if vector in error_columns(schema) or (by_embed_job and ERROR in schema.names):
        return missing
    error = ERROR if ERROR not in (*schema.names, vector) else f"{vector}_{ERROR}"
    if error in schema.names:
        raise TableError(f"table {name!r} has a column {error!r} already, the name that {vector!r} needs; rename one")
    missing.append(pa.field(error, pa.string(), metadata={ERROR_OF_KEY: vector.encode()}))
    return missing


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
