"""Zero-shot labels as columns of a table, from the vectors it holds: no picture is read again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from lance_align.encoders import load_encoder
from lance_align.encoders.base import Encoder, Score, Vectors, as_list
from lance_align.encoders.zero_shot import DEFAULT_TEMPLATE, check_labels, label_vectors, probabilities
from lance_align.errors import ArgumentError, ModelError, TableError
from lance_align.functions import table_function
from lance_align.spec import ModelSpec
from lance_align.tables.failures import lance_failures
from lance_align.tables.handles import check_writable
from lance_align.tables.names import check_new_name
from lance_align.tables.schema import VECTOR

BATCH_ROWS = 4096  # with 1,000 labels the float64 logits of a batch are 33 MB


def add_labels(
    table: Any,
    labels: Sequence[str],
    *,
    column: str = "label",
    template: str = DEFAULT_TEMPLATE,
    vector_column: str = VECTOR,
    model: str | ModelSpec | None = None,
    device: str = "auto",
) -> int:
    """Add the most probable label of each row, and its probability, as two columns of a LanceDB table.

    One version is made, with both columns or without a change. Vectors are read and columns written in batches.
    Rows added later have nulls there; drop the columns and label again.

    Args:
        table: an open LanceDB table (of the synchronous API); it is moved to the new version.
        labels: what the pictures may show; at least two, since one alone always has probability 1.
        column: the name of the new column, string; ``{column}_probability``, float32, stands beside it.
        template: the sentence a label is put into; ``{}`` stands for the label.
        vector_column: image vectors; rows with a null vector get null in both columns.
        model: only for tables that do not say which model wrote the vectors.
        device: as in `lance_align.load_encoder`; used with `model`.

    Returns:
        The version of the table that has the columns.

    Raises:
        ArgumentError: no labels, a template without ``{}``, or no name that a column can have.
        TableError: there is no such vector column, one of the new columns is there already, the table stands at a
            version that was checked out, or it cannot be written.
        ModelError: the model cannot be used, or is not the one that wrote the vectors.

    >>> version = lance_align.add_labels(table, ["an animal", "food", "a vehicle"], column="kind")
    >>> table.count_rows("kind IS NOT NULL")
    60
    """
    labels = as_list(labels, "labels")
    if len(labels) < 2:
        raise ArgumentError(f"labels are {labels!r:.80}; expected at least two: one alone always has probability 1")
    check_labels(labels, template)
    check_new_name(column, argument="column")
    check_writable(table)
    columns: list[pa.Field[Any]] = [pa.field(column, pa.string()), pa.field(f"{column}_probability", pa.float32())]
    schema = pa.schema(columns)
    _check_columns(table, schema, vector_column)
    encoder = _encoder_of(table, vector_column, model=model, device=device)
    sentences = label_vectors(labels, encoder=encoder, template=template)

    @lance.batch_udf(output_schema=schema)
    def label(batch: pa.RecordBatch) -> pa.RecordBatch:
        return _label_batch(batch.column(0), labels, sentences, score=encoder.score, schema=schema)

    with lance_failures("add labels to", table.name):
        table.checkout_latest()
        dataset = table.to_lance()
        dataset.add_columns(label, read_columns=[vector_column], batch_size=BATCH_ROWS)
        table.checkout_latest()
    return int(table.version)


def _check_columns(table: Any, new: pa.Schema, vector_column: str) -> None:
    schema: pa.Schema = table.schema
    for name in new.names:
        if name in schema.names:
            raise TableError(
                f"table {table.name!r} has a column {name!r} already; choose another column name, or "
                f"table.drop_columns({new.names}) first"
            )
    if vector_column not in schema.names or not pa.types.is_fixed_size_list(schema.field(vector_column).type):
        raise TableError(
            f"table {table.name!r} has no vector column {vector_column!r}; it has {', '.join(schema.names)}"
        )


def _encoder_of(table: Any, vector_column: str, *, model: str | ModelSpec | None, device: str) -> Encoder:
    """The encoder that wrote a vector column, as the table's metadata says, or else the one the caller names."""
    function = table_function(table.schema, vector_column)
    if model is None:
        if function is None:
            raise TableError(f"table {table.name!r} does not say which model wrote {vector_column!r}; name it: model=…")
        return function.encoder()
    encoder = load_encoder(model, device=device)
    if function is not None and function.fingerprint not in (None, encoder.spec.fingerprint):
        raise ModelError(
            f"{vector_column!r} was written by {function.name!r} (fingerprint {function.fingerprint}), but model is "
            f"{encoder.spec.name!r} (fingerprint {encoder.spec.fingerprint}); leave model out"
        )
    return encoder


def _label_batch(
    column: Any, labels: Sequence[str], sentences: Vectors, *, score: Score, schema: pa.Schema
) -> pa.RecordBatch:
    """Label and probability of each vector of a FixedSizeList column; null for null."""
    present = column.is_valid().to_numpy(zero_copy_only=False)
    vectors = column.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, sentences.shape[1])
    shares = probabilities(vectors.astype(np.float32), sentences, score=score)
    best = np.zeros(len(column), dtype=np.int64)
    highest = np.zeros(len(column), dtype=np.float32)
    best[present], highest[present] = shares.argmax(axis=1), shares.max(axis=1)
    places: pa.Int64Array = pa.array(best, pa.int64(), mask=~present)
    names = pa.array(list(labels), pa.string()).take(places)
    return pa.record_batch([names, pa.array(highest, mask=~present)], schema=schema)
