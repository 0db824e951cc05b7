"""Rows of a source to rows with pixels: already done ids dropped, images read, decoded and cropped, reasons kept.

One task reads one split; pixels leave it as uint8, in tables small enough to stream.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lance_align import images
from lance_align.errors import RowError
from lance_align.images import DecodeLimits, Pixels
from lance_align.jobs.columns import Columns
from lance_align.jobs.ids import Hashes, id_hashes, row_digests, text_ids
from lance_align.jobs.ledger import GRANTED, Answers
from lance_align.jobs.sources import Source, Split
from lance_align.spec import ImageSpec
from lance_align.tables.schema import CONTENT_HASH, ID, IMAGE, URI

# Columns between decode and encode; a source's column never has such a name, for Lance refuses periods.
PIXELS = "decoded.pixels"  # FixedSizeBinary(height * width * 3), null where there is no image
REASON = "decoded.reason"  # why there is none
SECONDS = "decoded.seconds"  # float32, spent on the row

TABLE_BYTES = 32 * 2**20  # a table leaves the task when it holds this much


class Claims(Protocol):
    """How a task asks the ledger: an actor behind a call, or a `Ledger` itself."""

    def claim(self, first_position: int, hashes: Hashes, read_s: float) -> Answers:
        """See `Ledger.claim`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Reads, claims and decodes one split.

    Attributes:
        source: the source, its splits left out.
        columns: the roles of its columns.
        image: the geometry of the model's input; None when no image is embedded.
        limits: what an image may be.
        thumbnail_px: the longest side of a kept thumbnail.
    """

    source: Source
    columns: Columns
    image: ImageSpec | None
    limits: DecodeLimits
    thumbnail_px: int

    def rows(self, split: Split, *, first_position: int, claims: Claims) -> Iterator[pa.Table]:
        """The rows of a split that are this job's to embed, as `working_table` lays them out."""
        position, started = first_position, time.perf_counter()
        for table in self.source.read(split):
            ids = self._ids(table)
            names: list[Any] = ids.to_pylist()
            answers = claims.claim(position, id_hashes(names), time.perf_counter() - started)
            position += table.num_rows
            mine = pa.array(answers == GRANTED)
            if pc.any(mine).as_py():
                yield from self._decoded(table.filter(mine), ids.filter(mine))
            started = time.perf_counter()

    def _ids(self, table: pa.Table) -> pa.ChunkedArray[Any]:
        """The id column as text; rows without an id are named by their digest."""
        if self.columns.id is None:
            return pa.chunked_array([pa.array(row_digests(table), pa.string())])
        ids = text_ids(table.column(self.columns.id), self.columns.id)
        missing = ids.is_null()
        if not ids.null_count:
            return ids
        digests = iter(row_digests(table.filter(missing)))
        named = [text if text is not None else next(digests) for text in ids.to_pylist()]
        return pa.chunked_array([pa.array(named, pa.string())])

    def _decoded(self, table: pa.Table, ids: pa.ChunkedArray[Any]) -> Iterator[pa.Table]:
        plain = table.select(list(self.columns.travelling)).add_column(0, ID, ids)
        plain = plain.append_column(CONTENT_HASH, pa.nulls(len(plain), pa.string()))
        if self.columns.image is None or self.image is None:
            yield plain.append_column(SECONDS, pa.nulls(len(plain), pa.float32()).fill_null(0.0))
            return
        cells = table.column(self.columns.image)
        start = 0
        held = _Held(self.image)
        for index, cell in enumerate(cells):
            held.add(*self._image(cell.as_py(), self.image))
            if held.size >= TABLE_BYTES or index + 1 == len(table):
                yield held.onto(plain.slice(start, len(held)), keep=self.columns.keep)
                start += len(held)
                held = _Held(self.image)

    def _image(self, cell: Any, spec: ImageSpec) -> tuple[Pixels | None, bytes | str | None, str | None, float]:
        """One cell: pixels or None, what is kept, why there are no pixels, seconds."""
        started = time.perf_counter()
        kept: bytes | str | None = None
        pixels, reason = None, None
        try:
            data, uri = self._bytes(cell)
            kept = uri if self.columns.keep == "uri" else data if self.columns.keep == "bytes" else None
            picture = images.decode(data, limits=self.limits)
            pixels = images.to_pixels(picture, spec)
            if self.columns.keep == "thumbnail":
                kept = images.encode_thumbnail(picture, max_side=self.thumbnail_px)
        except RowError as error:
            reason = str(error)
            if self.columns.keep == "uri" and kept is None and isinstance(cell, str):
                kept = cell
        return pixels, kept, reason, time.perf_counter() - started

    def _bytes(self, cell: Any) -> tuple[bytes, str | None]:
        """The encoded image, and where it lies if it was a path."""
        if isinstance(cell, dict):  # Hugging Face's image struct
            cell = cell["bytes"] if cell["bytes"] is not None else cell.get("path")
        if cell is None:
            raise RowError("null", "no image")
        if isinstance(cell, str):
            place, data = self.source.references.read(cell, max_bytes=self.limits.max_bytes)
            return data, place.uri
        return cell, None


class _Held:
    """Decoded rows on their way into one table."""

    def __init__(self, spec: ImageSpec) -> None:
        self._shape = (*spec.crop, 3)
        self._pixels: list[Pixels | None] = []
        self._kept: list[bytes | str | None] = []
        self._reasons: list[str | None] = []
        self._seconds: list[float] = []
        self.size = 0

    def __len__(self) -> int:
        return len(self._pixels)

    def add(self, pixels: Pixels | None, kept: bytes | str | None, reason: str | None, seconds: float) -> None:
        self._pixels.append(pixels)
        self._kept.append(kept)
        self._reasons.append(reason)
        self._seconds.append(seconds)
        self.size += int(np.prod(self._shape)) + len(kept or b"")

    def onto(self, plain: pa.Table, *, keep: str | None) -> pa.Table:
        """The travelling columns of the same rows, and the picture's columns after them."""
        picture = (
            (URI, pa.array(self._kept, pa.string()))
            if keep == "uri"
            else (IMAGE, pa.array(self._kept, pa.large_binary()))
        )
        columns = {
            picture[0]: picture[1],
            PIXELS: self._pixel_column(),
            REASON: pa.array(self._reasons, pa.string()),
            SECONDS: pa.array(self._seconds, pa.float32()),
        }
        for name, column in columns.items():
            plain = plain.append_column(name, column)
        return plain

    def _pixel_column(self) -> pa.Array[Any]:
        block = np.zeros((len(self), *self._shape), dtype=np.uint8)
        for row, pixels in zip(block, self._pixels, strict=True):
            if pixels is not None:
                row[:] = pixels
        validity = pa.array([pixels is not None for pixels in self._pixels]).buffers()[1]
        width = int(np.prod(self._shape))
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(self), [validity, pa.py_buffer(block.data)])


def pixel_block(column: pa.ChunkedArray[Any], spec: ImageSpec) -> Pixels:
    """The pixels of rows that have some.

    Args:
        column: `PIXELS` without nulls.

    Returns:
        uint8 ``(n, crop height, crop width, 3)``, a view where the column is one chunk.
    """
    height, width = spec.crop
    parts = []
    for chunk in column.chunks:
        size = height * width * 3
        buffer: Any = chunk.buffers()[1]
        data = np.frombuffer(buffer, dtype=np.uint8, count=len(chunk) * size, offset=chunk.offset * size)
        parts.append(data.reshape(len(chunk), height, width, 3))
    if not parts:
        return np.zeros((0, height, width, 3), dtype=np.uint8)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
