"""Schema metadata: the embedding functions as LanceDB keeps them, and our own record of the model."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa

from lance_align.errors import ModelError, TableError
from lance_align.spec import ModelSpec
from lance_align.tables.layout import ERROR, EmbeddedColumn

FUNCTION = "align"  # the name `lance_align.embedding_function.AlignFunction` is registered under
FUNCTIONS_KEY = b"embedding_functions"  # LanceDB's own key
SPEC_KEY = b"lance_align:spec"
TABLE_KEY = b"lance_align:table"  # a random number, since the table was created
# In the metadata of a column's own field, so that each goes where its column goes:
ERROR_OF_KEY = b"lance_align:error_of"  # of an error column: the column whose missing values it explains
FINGERPRINT_KEY = b"lance_align:fingerprint"  # of a vector column that was attached: the model it was made for

Functions = list[dict[str, Any]]


def with_table_id(schema: pa.Schema) -> pa.Schema:
    """The schema of a table that is about to be created, with an id that no other has."""
    return schema.with_metadata({**(schema.metadata or {}), TABLE_KEY: uuid.uuid4().hex.encode()})


def read_table_id(schema: pa.Schema) -> bytes | None:
    """The id that a table was created with; None for a table of other programs, or of before there were any."""
    return (schema.metadata or {}).get(TABLE_KEY)


def function_metadata(columns: Sequence[EmbeddedColumn], spec: ModelSpec) -> dict[bytes | str, bytes | str]:
    """Schema metadata that lets LanceDB embed queries and new rows, and lets us know the model again.

    The first entry is what ``EmbeddingFunctionRegistry.get_table_metadata`` writes (a test compares them). The device
    is a LanceDB variable with a default, so that no machine's device is stored.
    """
    return _metadata([_function(column, spec) for column in columns], {column.vector: spec for column in columns})


def metadata_with(schema: pa.Schema, column: EmbeddedColumn, spec: ModelSpec) -> dict[bytes | str, bytes | str]:
    """The entries of `function_metadata` for a table that has other functions already: theirs, and one for `column`.

    Entries of ours for vector columns that are gone go too: LanceDB's ``add`` fails as long as there is one.

    Args:
        schema: the table's, with its metadata; nothing else of that metadata is in the result.
        column: what is embedded; an entry for the same vector column is replaced, others stay as they are.

    Raises:
        TableError: the metadata is damaged.
    """
    others = [
        entry
        for entry in read_functions(schema)
        if entry.get("vector_column") != column.vector
        and (entry.get("name") != FUNCTION or entry.get("vector_column") in schema.names)
    ]
    specs = {vector: there for vector, there in read_specs(schema).items() if vector in schema.names}
    return _metadata([*others, _function(column, spec)], specs | {column.vector: spec})


def _metadata(functions: Functions, specs: Mapping[str, ModelSpec]) -> dict[bytes | str, bytes | str]:
    raw = {vector: json.loads(spec.to_json()) for vector, spec in specs.items()}
    return {
        FUNCTIONS_KEY: json.dumps(functions, indent=2).encode(),
        SPEC_KEY: json.dumps(raw, sort_keys=True).encode(),
    }


def _function(column: EmbeddedColumn, spec: ModelSpec) -> dict[str, Any]:
    return {
        "name": FUNCTION,
        "model": function_arguments(spec, kind=column.kind),
        "source_column": column.source,
        "vector_column": column.vector,
    }


def function_arguments(spec: ModelSpec, *, kind: Literal["image", "text"]) -> dict[str, Any]:
    """The keyword arguments of ``AlignFunction.create`` that name one model and one kind of source column."""
    return {
        "name": spec.name,
        "revision": spec.revision,
        "dim": spec.dim,
        "fingerprint": spec.fingerprint,
        "source": kind,
        "device": "$var:align_device:auto",
    }


def read_specs(schema: pa.Schema) -> dict[str, ModelSpec]:
    """The model of each vector column, as our jobs recorded it; empty for a table that none of them knows.

    Raises:
        TableError: the metadata is damaged.
    """
    text = (schema.metadata or {}).get(SPEC_KEY)
    if text is None:
        return {}
    try:
        raw = json.loads(text)
        return {str(column): ModelSpec.from_json(json.dumps(spec)) for column, spec in raw.items()}
    except (ValueError, AttributeError, RecursionError, ModelError) as error:
        raise TableError(f"the table's record of its model is damaged ({error}); write into a new table") from error


def read_functions(schema: pa.Schema) -> Functions:
    """The embedding functions that a table names, anyone's, in their order; none are made, imported or run.

    Raises:
        TableError: the metadata is damaged.
    """
    text = (schema.metadata or {}).get(FUNCTIONS_KEY)
    if text is None:
        return []
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TableError(f"the table's list of embedding functions is not JSON ({error}); mend or remove it") from error
    if not isinstance(raw, list) or not all(isinstance(entry, dict) for entry in raw):
        raise TableError("the table's list of embedding functions is not a list of objects; mend or remove it")
    return raw


def embedded_column(schema: pa.Schema, vector: str) -> EmbeddedColumn | None:
    """What a vector column is made from, as our function's entry says; None where no such entry names the column.

    Raises:
        TableError: the metadata is damaged.
    """
    entry = next((entry for entry in read_functions(schema) if entry.get("vector_column") == vector), None)
    if entry is None or entry.get("name") != FUNCTION:
        return None
    model = entry.get("model")
    kind = model.get("source", "image") if isinstance(model, dict) else None
    source = entry.get("source_column")
    if kind not in ("image", "text") or not isinstance(source, str):
        raise TableError(f"the table's embedding function of {vector!r} is damaged: {json.dumps(entry)[:200]}")
    return EmbeddedColumn(source=source, vector=vector, kind=kind)


def function_objection(schema: pa.Schema, vector: str, spec: ModelSpec) -> str | None:
    """What is wrong with the entry that embeds searches and new rows of a vector column; None for a sound one.

    Args:
        spec: the model that made the column's vectors.

    Raises:
        TableError: the list of functions is damaged.
    """
    found = [entry for entry in read_functions(schema) if entry.get("vector_column") == vector]
    if len(found) != 1:
        return f"{len(found)} embedding functions, expected one"
    model = found[0].get("model")
    if found[0].get("name") != FUNCTION or not isinstance(model, dict):
        return f"the embedding function is {found[0].get('name')!r:.40}, expected {FUNCTION!r}"
    if model.get("source") not in ("image", "text"):
        return f"the embedding function takes {model.get('source')!r:.40}, expected 'image' or 'text'"
    if not isinstance(found[0].get("source_column"), str):
        return f"the embedding function's source column is {found[0].get('source_column')!r:.40}, expected a name"
    expected = function_arguments(spec, kind=model["source"])
    for key in ("name", "revision", "dim", "fingerprint"):
        if model.get(key) != expected[key]:
            return f"the embedding function has {key} {model.get(key)!r:.80}, the record {expected[key]!r:.80}"
    unknown = next((key for key in model if key not in expected and key != "max_retries"), None)
    return None if unknown is None else f"the embedding function has {unknown!r:.40}, which it does not take"


def error_column(schema: pa.Schema, vector: str) -> str | None:
    """The column that says why a row has no `vector`: its own for an attached column, else ``error``; None for none.

    The vectors of a table that the embed job made share one; that of an attached vector explains no other.
    """
    own = error_columns(schema).get(vector)
    if own is not None:
        return own
    taken = field_metadata(schema, ERROR).get(ERROR_OF_KEY) if ERROR in schema.names else b"no such column"
    return ERROR if taken is None else None


def error_columns(schema: pa.Schema) -> dict[str, str]:
    """The error column of each column that was attached or described; others are not in it."""
    found: dict[str, str] = {}
    for field in schema:
        vector = field_metadata(schema, field.name).get(ERROR_OF_KEY)
        if vector is not None:
            found.setdefault(vector.decode("utf-8", "replace"), field.name)
    return found


def attached_fingerprint(schema: pa.Schema, vector: str) -> str | None:
    """The fingerprint that `lance_align.attach` wrote beside a vector column it made; None for any other column."""
    if vector not in schema.names:
        return None
    value = field_metadata(schema, vector).get(FINGERPRINT_KEY)
    return None if value is None else value.decode("utf-8", "replace")


def field_metadata(schema: pa.Schema, name: str) -> Mapping[bytes, bytes]:
    """The metadata of a column's own field; empty where it has none."""
    metadata: Any = schema.field(schema.names.index(name)).metadata  # by index: two columns may share a name
    return metadata or {}
