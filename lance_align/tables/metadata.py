"""Schema metadata: the embedding functions as LanceDB keeps them, and our own record of the model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

import pyarrow as pa

from lance_align.errors import ModelError, TableError
from lance_align.spec import ModelSpec
from lance_align.tables.layout import EmbeddedColumn

FUNCTION = "align"  # the name `lance_align.functions.AlignFunction` is registered under
FUNCTIONS_KEY = b"embedding_functions"  # LanceDB's own key
SPEC_KEY = b"lance_align:spec"


def function_metadata(columns: Sequence[EmbeddedColumn], spec: ModelSpec) -> dict[bytes | str, bytes | str]:
    """Schema metadata that lets LanceDB embed queries and new rows, and lets us know the model again.

    The first entry is what ``EmbeddingFunctionRegistry.get_table_metadata`` writes (a test compares them). The device
    is a LanceDB variable with a default, so that no machine's device is stored.
    """
    functions = [
        {
            "name": FUNCTION,
            "model": function_arguments(spec, kind=column.kind),
            "source_column": column.source,
            "vector_column": column.vector,
        }
        for column in columns
    ]
    specs = {column.vector: json.loads(spec.to_json()) for column in columns}
    return {
        FUNCTIONS_KEY: json.dumps(functions, indent=2).encode(),
        SPEC_KEY: json.dumps(specs, sort_keys=True).encode(),
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
    """The model of each vector column, as the job recorded it; empty for a table that none of our jobs created.

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
