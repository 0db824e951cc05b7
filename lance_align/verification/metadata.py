"""The metadata of a table against itself, its columns, and the models found here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import pyarrow as pa

from lance_align.encoders import is_allowed, resolve_spec
from lance_align.errors import ArgumentError, LanceAlignError, TableError
from lance_align.spec import ModelSpec
from lance_align.tables.metadata import (
    FUNCTION,
    Functions,
    attached_fingerprint,
    function_arguments,
    read_functions,
    read_specs,
)
from lance_align.verification.findings import Collector

_CHECKED_ARGUMENTS = ("name", "revision", "dim", "fingerprint")


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
    functions = _functions(schema, collector)
    available = _available(specs, collector)
    columns = []
    for vector, spec in specs.items():
        wrong = _wrong_column(schema, vector, spec)
        entry = None
        if wrong is None:
            entry, wrong = _find_entry(functions, vector, spec)
        if wrong is None and entry is not None:
            wrong = _wrong_source(schema, entry)
        if wrong is not None or entry is None:
            collector.add("metadata", [f"{vector}: {wrong}"])
            continue
        columns.append(
            VectorColumn(
                name=vector,
                source=entry["source_column"],
                kind=entry["model"]["source"],
                spec=spec,
                available=available[spec.fingerprint],
            )
        )
    return tuple(columns)


def _functions(schema: pa.Schema, collector: Collector) -> Functions:
    """The embedding functions of LanceDB; none where the list is damaged."""
    try:
        return read_functions(schema)
    except TableError as error:
        collector.add("metadata", [str(error)])
        return []


def _find_entry(functions: Functions, vector: str, spec: ModelSpec) -> tuple[dict[str, Any] | None, str | None]:
    """The entry that embeds into a column, or what is wrong with it."""
    found = [entry for entry in functions if entry.get("vector_column") == vector]
    if len(found) != 1:
        return None, f"{len(found)} embedding functions, expected one"
    entry = found[0]
    model = entry.get("model")
    if entry.get("name") != FUNCTION or not isinstance(model, dict):
        return None, f"the embedding function is {entry.get('name')!r:.40}, expected {FUNCTION!r}"
    if model.get("source") not in ("image", "text"):
        return None, f"the embedding function takes {model.get('source')!r:.40}, expected 'image' or 'text'"
    expected = function_arguments(spec, kind=model["source"])
    for key in _CHECKED_ARGUMENTS:
        if model.get(key) != expected[key]:
            return None, f"the embedding function has {key} {model.get(key)!r:.80}, the record {expected[key]!r:.80}"
    return entry, None


def _wrong_column(schema: pa.Schema, vector: str, spec: ModelSpec) -> str | None:
    if vector not in schema.names:
        return "there is no such column"
    expected = pa.list_(pa.float32(), spec.dim)
    found = schema.field(vector).type
    if found != expected:
        return f"the column is {found}, expected {expected}"
    attached = attached_fingerprint(schema, vector)
    if attached not in (None, spec.fingerprint):
        return f"the column was attached to fingerprint {attached!r:.80}, the record says {spec.fingerprint!r:.80}"
    return None


def _wrong_source(schema: pa.Schema, entry: Mapping[str, Any]) -> str | None:
    source, kind = entry.get("source_column"), entry["model"]["source"]
    if source not in schema.names:
        return f"its source column {source!r:.80} is not there"
    found = schema.field(str(source)).type
    if kind == "image" and _is_picture(found):
        return None
    return None if _is_text(found) else f"its source column {source!r} is {found}, which cannot hold {kind}s"


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
