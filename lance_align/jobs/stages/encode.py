"""Pixels and texts to vectors, and rows to fragments: what an actor of the pool does with one block.

A row's `error` says why a vector that was asked for is missing, as ``kind: detail``. With ``both``, a row that lacks
one of its two vectors has an error and keeps the other; the detail names the part: ``null: text: no text``.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lance_align import faults
from lance_align.encoders import load_encoder
from lance_align.encoders.base import Embeddings, Encoder, Vectors, caption_reason
from lance_align.errors import RowError
from lance_align.images import Pixels
from lance_align.jobs import watchdog
from lance_align.jobs.attempts import attempts
from lance_align.jobs.ids import id_hashes
from lance_align.jobs.receipts import Receipt, packed
from lance_align.jobs.shape import Shape
from lance_align.jobs.stages.batches import Batches
from lance_align.jobs.stages.decode import PIXELS, REASON, REPLACES, SECONDS, pixel_block
from lance_align.spec import ModelSpec
from lance_align.tables.checksums import vector_checksums
from lance_align.tables.fragments import write_fragments
from lance_align.tables.schema import ERROR, ID, VECTOR_CRC32, Layout

Reasons = list[str | None]

TOLD_ROWS = 256  # embedded on a CPU before progress is told: no less than the engine takes at once


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The table rows go to.

    Attributes:
        uri: its Lance dataset.
        schema: its schema.
        layout: which columns are embedded.
        storage_options: of its object store.
    """

    uri: str
    schema: pa.Schema
    layout: Layout
    storage_options: Mapping[str, str] | None = None


def worker_encoder(spec: ModelSpec, shape: Shape) -> Encoder:
    """The encoder of a pool actor; its towers are loaded with the first block, and take the threads from here.

    Raises:
        ArgumentError: also where a GPU is planned that torch cannot use: nothing falls back without a word.
    """
    encoder = load_encoder(spec, device=shape.worker_device, engine=shape.engine, precision=shape.precision)
    if "torch" in sys.modules:  # the fake does without
        sys.modules["torch"].set_num_threads(shape.threads)
    return encoder


class BlockWriter:
    """Loads a model once, then embeds and writes blocks; each call stands alone and may be repeated.

    Args:
        spec: the model; its weights are found and verified here, on the worker.
        target: the table.
        shape: where and on how many threads the model runs.
        tell: is told how many more rows are embedded.
    """

    def __init__(self, spec: ModelSpec, target: Target, shape: Shape, tell: Callable[[int], None]) -> None:
        self.encoder = worker_encoder(spec, shape)
        self.target = target
        self.tell = tell
        self.batches = Batches()

    def __call__(self, block: pa.Table) -> pa.Table:
        """Rows as `Reader.rows` gives them to a table of one column, ``receipt``; no rows give no receipt."""
        if block.num_rows == 0:
            return pa.table({"receipt": pa.array([], pa.string())})
        return pa.table({"receipt": [self.write(block).to_json()]})

    def write(self, block: pa.Table) -> Receipt:
        """Embed a block and write its fragments."""
        started = time.perf_counter()
        halved = self.batches.halved + self.encoder.halved
        rows, errors = embed_block(block, self.encoder, self.target, self.batches, tell=self.tell)
        encoded = time.perf_counter()
        watchdog.beat()
        fragments = attempts(lambda: self._write(rows))
        faults.reach("after_fragment", rows=rows.num_rows)
        return Receipt(
            fragments=tuple(fragments),
            halved=self.batches.halved + self.encoder.halved - halved,
            choices=dict(self.encoder.choices),
            rows=rows.num_rows,
            hashes=packed(id_hashes(list(map(str, block.column(ID).to_pylist())))),
            replacing=tuple(map(str, block.column(ID).filter(block.column(REPLACES)).to_pylist())),
            reasons=dict(Counter(error.split(":", 1)[0] for error in errors if error is not None)),
            decode_s=float(pc.sum(block.column(SECONDS)).as_py() or 0.0),
            encode_s=encoded - started,
            write_s=time.perf_counter() - encoded,
        )

    def _write(self, rows: pa.Table) -> list[str]:
        faults.reach("before_fragment", rows=rows.num_rows)
        return write_fragments(self.target.uri, rows, storage_options=self.target.storage_options)


def embed_block(
    block: pa.Table,
    encoder: Encoder,
    target: Target,
    batches: Batches | None = None,
    *,
    tell: Callable[[int], None] = lambda _: None,
) -> tuple[pa.Table, Reasons]:
    """The rows of the table for a block of decoded rows, and the error of each row or None.

    Args:
        batches: what is known of the batches that the model can take; None for nothing yet.
        tell: is told how many more rows are embedded.

    Raises:
        JobError: the model fails whatever the rows are; see `Batches.embed`.
    """
    batches = batches or Batches()
    parts: dict[str, tuple[Vectors, Reasons]] = {}
    for column in target.layout.embedded:
        if column.kind == "image":
            parts[column.vector] = embed_pixels(block, encoder, batches, tell=tell)
        else:
            parts[column.vector] = embed_texts(block.column(column.source), encoder, batches)
    kinds = [column.kind for column in target.layout.embedded]
    errors = _errors([reasons for _, reasons in parts.values()], kinds)
    columns: dict[str, Any] = {ERROR: pa.array(errors, pa.string())}
    for name, (vectors, reasons) in parts.items():
        columns[name] = vector_column(vectors, reasons)
    columns[VECTOR_CRC32] = vector_checksums([columns[column.vector] for column in target.layout.embedded])
    arrays = [columns[name] if name in columns else _aligned(block.column(name)) for name in target.schema.names]
    return pa.table(arrays, schema=pa.schema(target.schema, metadata=None)), errors


def _aligned(column: pa.ChunkedArray[Any]) -> pa.ChunkedArray[Any]:
    """A copy of columns with values of 16 bytes and more.

    Buffers out of Ray's object store are aligned to 8 bytes, and Lance panics on decimals that are (pylance 14).
    """
    return column.take(pa.array(range(len(column)), pa.int64())) if _is_wide(column.type) else column


def _is_wide(kind: pa.DataType) -> bool:
    inner = [kind.field(index).type for index in range(kind.num_fields)]
    return pa.types.is_decimal(kind) or pa.types.is_interval(kind) or any(map(_is_wide, inner))


def embed_pixels(
    block: pa.Table, encoder: Encoder, batches: Batches, *, tell: Callable[[int], None] = lambda _: None
) -> tuple[Vectors, Reasons]:
    """``(n, dim) float32`` and n reasons or None, from the columns `PIXELS` and `REASON`; zeros where there is one."""
    step = TOLD_ROWS if str(encoder.choices.get("device", "cpu")) == "cpu" else len(block)

    def model(pixels: Pixels) -> Embeddings:
        vectors = []
        for start in range(0, len(pixels), step):
            vectors.append(encoder.encode_pixels(pixels[start : start + step]))
            tell(len(vectors[-1]))
        return Embeddings(np.concatenate(vectors), (None,) * len(pixels))

    reasons: Reasons = block.column(REASON).to_pylist()
    pixels = pixel_block(block.column(PIXELS).drop_null(), encoder.spec.image)
    return _filled(reasons, *batches.embed(pixels, model, dim=encoder.spec.dim))


def embed_texts(column: pa.ChunkedArray[Any], encoder: Encoder, batches: Batches) -> tuple[Vectors, Reasons]:
    """As `embed_pixels`, from a column of strings."""
    texts: list[str | None] = column.to_pylist()
    reasons: Reasons = [caption_reason(text) for text in texts]
    good = [str(text) for text, reason in zip(texts, reasons, strict=True) if reason is None]
    return _filled(reasons, *batches.embed(good, encoder.encode_texts, dim=encoder.spec.dim))


def _filled(reasons: Reasons, vectors: Vectors, new_reasons: Reasons) -> tuple[Vectors, Reasons]:
    """Vectors and reasons of all rows, from those of the rows that had no reason yet."""
    embedded = np.flatnonzero([reason is None for reason in reasons])
    filled = np.zeros((len(reasons), vectors.shape[1]), dtype=np.float32)
    filled[embedded] = vectors
    for row, reason in zip(embedded, new_reasons, strict=True):
        reasons[row] = reason
    return filled, _with_bad_vectors(filled, reasons)


def _with_bad_vectors(vectors: Vectors, reasons: Reasons) -> Reasons:
    """Reasons, with one more for every row whose vector cannot be searched."""
    norms = np.linalg.norm(vectors, axis=1)
    usable: NDArray[np.bool_] = np.isfinite(norms) & (norms > 0)
    return [
        reason if reason is not None or ok else str(RowError("encode", "the model gave no finite vector"))
        for reason, ok in zip(reasons, usable, strict=True)
    ]


def _errors(parts: Sequence[Reasons], kinds: Sequence[str]) -> Reasons:
    if len(parts) == 1:
        return parts[0]
    errors: Reasons = []
    for row in zip(*parts, strict=True):
        named = [
            ": ".join((reason.split(": ", 1)[0], kind, reason.split(": ", 1)[-1]))
            for kind, reason in zip(kinds, row, strict=True)
            if reason is not None
        ]
        errors.append("; ".join(named) if named else None)
    return errors


def vector_column(vectors: Vectors, reasons: Reasons) -> pa.Array[Any]:
    """``(n, dim) float32`` as a column of a table, null where there is a reason."""
    missing = np.array([reason is not None for reason in reasons])
    vectors[missing] = 0.0
    values = pa.array(vectors.ravel(), pa.float32())
    column: pa.Array[Any] = pa.FixedSizeListArray.from_arrays(values, vectors.shape[1], mask=pa.array(missing))
    return column
