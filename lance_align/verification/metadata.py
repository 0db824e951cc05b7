"""The metadata of a table against itself, its columns, and the models found here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import pyarrow as pa

from lance_align.encoders import is_allowed, resolve_spec
from lance_align.errors import ArgumentError, LanceAlignError, TableError
from lance_align.spec import ModelSpec
from lance_align.tables.metadata import (
    FUNCTION,
    Functions,
    attached_fingerprint,
    embedded_column,
    function_objection,
    read_functions,
    read_specs,
)
from lance_align.verification.findings import Collector


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VectorColumn:
    """A vector column whose metadata is sound.

    Attributes:
        name: the column of vectors.
        source: the column they were made from.
        kind: what that holds.
        spec: the model, as recorded.
        available: whether the same model was found on this machine.
    """

    name: str
    source: str
    kind: Literal["image", "text"]
    spec: ModelSpec
    available: bool


def check_metadata(schema: pa.Schema, collector: Collector) -> tuple[VectorColumn, ...]:
    """Check the record of the models, the embedding functions, and the columns both name (invariant I10).

    Other functions' entries are nobody's business and left alone.

    Returns:
        The vector columns that can be embedded again, those with findings left out.
    """
    try:
        specs = read_specs(schema)
    except TableError as error:
        collector.add("metadata", [str(error)])
        return ()
    if not specs:
        collector.add("metadata", ["the record of the models names no column"])
    available = _available(specs, collector)
    functions, damage = _functions(schema)
    if damage is not None:
        collector.add("metadata", [damage])
    columns = []
    for vector, spec in specs.items():
        if _has_other_precision(schema, vector, spec):
            collector.skip(f"vectors of {vector}: they are {schema.field(vector).type}, and a job writes float")
            continue
        wrong = _wrong_column(schema, functions, vector, spec)
        if wrong is None and damage is None:
            wrong = function_objection(schema, vector, spec) or _wrong_source(schema, vector)
        column = embedded_column(schema, vector) if wrong is None and damage is None else None
        if column is None:
            collector.add("metadata", [] if wrong is None else [f"{vector}: {wrong}"])
            continue
        columns.append(
            VectorColumn(
                name=vector,
                source=column.source,
                kind=column.kind,
                spec=spec,
                available=available[spec.fingerprint],
            )
        )
    _check_unrecorded(schema, functions, specs, collector)
    return tuple(columns)


def _functions(schema: pa.Schema) -> tuple[Functions, str | None]:
    """The embedding functions of LanceDB, or what is wrong with their list."""
    try:
        return read_functions(schema), None
    except TableError as error:
        return [], str(error)


def _check_unrecorded(
    schema: pa.Schema, functions: Functions, specs: Mapping[str, ModelSpec], collector: Collector
) -> None:
    """Functions of ours whose vectors nobody recorded a model of: LanceDB's own way to make a table."""
    vectors = [entry.get("vector_column") for entry in functions if entry.get("name") == FUNCTION]
    for vector in vectors:
        if vector in schema.names and vector not in specs:
            collector.skip(f"vectors of {vector}: the record of the models does not name them")
        elif vector not in specs and set(specs) <= set(vectors):  # where a recorded one lacks its own, that was told
            collector.add("metadata", [f"{vector!r:.80}: there is no such column, so table.add fails"])


def _has_other_precision(schema: pa.Schema, vector: str, spec: ModelSpec) -> bool:
    """Whether vectors were cast, to save memory for example: LanceDB searches these as well."""
    return vector in schema.names and schema.field(vector).type in (
        pa.list_(pa.float16(), spec.dim),
        pa.list_(pa.float64(), spec.dim),
    )


def _wrong_column(schema: pa.Schema, functions: Functions, vector: str, spec: ModelSpec) -> str | None:
    expected = pa.list_(pa.float32(), spec.dim)
    if vector not in schema.names:
        named = {vector, *(entry.get("vector_column") for entry in functions)}
        other = next((field.name for field in schema if field.type == expected and field.name not in named), None)
        if other is None:
            return "there is no such column, so searches of it and table.add fail"
        return (
            f"there is no such column, so searches of it and table.add fail; is it {other!r} now? "
            f"lance_align.attach(table, vector={other!r}, …) says so"
        )
    found = schema.field(vector).type
    if found != expected:
        return f"the column is {found}, expected {expected}"
    attached = attached_fingerprint(schema, vector)
    if attached not in (None, spec.fingerprint):
        return f"the column was attached to fingerprint {attached!r:.80}, the record says {spec.fingerprint!r:.80}"
    return None


def _wrong_source(schema: pa.Schema, vector: str) -> str | None:
    column = embedded_column(schema, vector)
    if column is None or column.source not in schema.names:
        return f"its source column {column.source if column else None!r:.80} is not there, so table.add fails"
    found = schema.field(column.source).type
    if column.kind == "image" and _is_picture(found):
        return None
    if _is_text(found):
        return None
    return f"its source column {column.source!r} is {found}, which cannot hold {column.kind}s"


def _is_picture(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _available(specs: Mapping[str, ModelSpec], collector: Collector) -> dict[str, bool]:
    """Whether each recorded model, by fingerprint, is the one that its name finds here."""
    available: dict[str, bool] = {}
    for vector, spec in specs.items():
        if spec.fingerprint not in available:
            available[spec.fingerprint] = _is_available(vector, spec, collector)
    return available


def _is_available(vector: str, spec: ModelSpec, collector: Collector) -> bool:
    if not is_allowed(spec.name, spec.revision):
        collector.skip(
            f"the model of {vector}: {spec.name!r} is not a known checkpoint; if you trust it, call "
            f"lance_align.allow_models({spec.name!r}) first"
        )
        return False
    try:
        found = resolve_spec(spec.name, revision=spec.revision)
    except (LanceAlignError, OSError) as error:
        collector.skip(f"the model of {vector}: {error}")
        return False
    if found.fingerprint != spec.fingerprint:
        collector.add(
            "model", [f"{vector}: {spec.name!r} with fingerprint {spec.fingerprint}; here {found.fingerprint}"]
        )
        return False
    return True


def recorded_vectors(schema: pa.Schema) -> tuple[str, ...]:
    """The vector columns that the table's record names and that hold float32 vectors, in the table's order.

    None where the record is damaged: then nothing tells our columns from others.
    """
    try:
        specs = read_specs(schema)
    except ArgumentError:
        return ()
    return tuple(
        field.name
        for field in schema
        if field.name in specs
        and isinstance(field.type, pa.FixedSizeListType)
        and field.type.value_type == pa.float32()
    )
