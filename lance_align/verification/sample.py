"""A sample of rows embedded again from what the table stores, and compared with its vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lance_align import visuals
from lance_align.encoders import load_encoder
from lance_align.encoders.base import Encoder, Vectors
from lance_align.errors import LanceAlignError, RowError
from lance_align.images import DecodeLimits
from lance_align.tables.checksums import vector_block
from lance_align.tables.schema import ID, THUMBNAIL_KEY
from lance_align.verification.findings import Collector
from lance_align.verification.metadata import VectorColumn
from lance_align.verification.reading import TAKE_ROWS, attempt, read_file, row_names

# The same model in another precision or on another device stays above: 0.99999 in float32, 0.999 in bfloat16, and a
# table may be of one and the machine that verifies it of another.
MIN_COSINE = 0.998


class SampleChecks:
    """Embeds the sources of some rows again.

    Attributes:
        compared: vectors that were compared.
        fitting: positions of rows of which a vector was compared and fits.
        misfits: what does not fit, in words, by position.
        broken: what cannot be embedded any more and why, by position.
    """

    def __init__(self, dataset: Any, collector: Collector, *, device: str, limits: DecodeLimits) -> None:
        self.compared = 0
        self.fitting: set[int] = set()
        self.misfits: dict[int, list[str]] = {}
        self.broken: dict[int, list[str]] = {}
        self._dataset = dataset
        self._collector = collector
        self._device = device
        self._limits = limits
        self._has_id = ID in dataset.schema.names

    def run(self, column: VectorColumn, positions: NDArray[np.int64]) -> None:
        """Compare one vector column in the rows at these positions in scan order; null vectors are left out."""
        if not column.available or not len(positions):
            return
        if _holds_thumbnails(self._dataset.schema, column):
            self._collector.skip(f"a sample of {column.name}: it was made from the originals of the thumbnails kept")
            return
        try:
            encoder = load_encoder(column.spec, device=self._device)
        except (LanceAlignError, OSError) as error:
            self._collector.skip(f"a sample of {column.name}: {error}")
            return
        for rows, part in self._take(column, positions):
            self._compare(rows, part, column, encoder)

    def _take(self, column: VectorColumn, positions: NDArray[np.int64]) -> Iterator[tuple[pa.Table, list[int]]]:
        wanted = [*([ID] if self._has_id else []), column.source, column.name]
        for start in range(0, len(positions), TAKE_ROWS):
            part = positions[start : start + TAKE_ROWS].tolist()
            rows, _ = attempt(self._dataset.take, part, columns=wanted)
            if rows is not None:
                yield rows, part
                continue
            for position in part:
                rows, error = attempt(self._dataset.take, [position], columns=wanted)
                if rows is None:
                    self._collector.add("unreadable", [f"{column.source} of row {position}: {error}"])
                else:
                    yield rows, [position]

    def _compare(self, rows: pa.Table, positions: Sequence[int], column: VectorColumn, encoder: Encoder) -> None:
        names = row_names(rows.column(ID) if self._has_id else None, positions)
        stored, valid = vector_block(rows.column(column.name))
        cells = rows.column(column.source).to_pylist()
        places = [place for place in np.flatnonzero(valid).tolist() if not self._is_elsewhere(cells[place], column)]
        if column.kind == "text":
            embedded = _embed_texts([cells[place] for place in places], encoder)
        else:
            embedded = [self._embed_image(cells[place], encoder) for place in places]
        for place, vector in zip(places, embedded, strict=True):
            if isinstance(vector, str):
                self.broken.setdefault(positions[place], []).append(f"{names[place]} ({vector})")
                continue
            self.compared += 1
            cosine = _cosine(vector, stored[place])
            if cosine > MIN_COSINE:
                self.fitting.add(positions[place])
            else:
                self.misfits.setdefault(positions[place], []).append(f"{names[place]} (cosine {cosine:.4f})")

    def _is_elsewhere(self, cell: Any, column: VectorColumn) -> bool:
        """Whether a picture would have to be fetched: data alone never makes this process open a connection."""
        elsewhere = column.kind == "image" and isinstance(cell, str) and "://" in cell
        if elsewhere:
            self._collector.skip(f"pictures of {column.name} that are not files of this machine: nothing is fetched")
        return elsewhere

    def _embed_image(self, cell: Any, encoder: Encoder) -> Vectors | str:
        try:
            data = read_file(cell, self._limits) if isinstance(cell, str) else cell
            if data is None:
                raise RowError("null", "no image")
            pixels = visuals.read_pixels(data, encoder.spec.image, limits=self._limits)
        except RowError as error:
            return str(error)
        vector: Vectors = encoder.encode_pixels(pixels[np.newaxis])[0]
        return vector


def _embed_texts(texts: Sequence[str | None], encoder: Encoder) -> list[Vectors | str]:
    embeddings = encoder.encode_texts(texts)
    return [
        vector if vector is not None else str(reason)
        for vector, reason in zip(embeddings, embeddings.reasons, strict=True)
    ]


def _holds_thumbnails(schema: pa.Schema, column: VectorColumn) -> bool:
    metadata: Any = schema.field(column.source).metadata
    return THUMBNAIL_KEY in (metadata or {})


def _cosine(left: Vectors, right: Vectors) -> float:
    """Cosine of two vectors ``(dim,)``; NaN where one is zero or not finite."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    with np.errstate(all="ignore"):
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
