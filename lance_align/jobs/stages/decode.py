"""Rows of a source to rows with pixels: rows that are done dropped, images read, decoded and cropped, reasons kept.

One task reads one split; pixels leave it as uint8, in tables small enough to stream.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from lance_align.errors import RowError, SourceError
from lance_align.images import DEFAULT_LIMITS, Pixels
from lance_align.jobs import watchdog
from lance_align.jobs.columns import Columns
from lance_align.jobs.ids import Flags, Hashes, content_hash, hex_hashes, id_hashes, row_digests, text_ids
from lance_align.jobs.ledger.ledger import AGAIN, CHANGED, DUPLICATE, GRANTED, LOOK, Answers, Noted
from lance_align.jobs.sources import Source, Split
from lance_align.jobs.sources.base import CHUNK_ROWS, left_out_of
from lance_align.jobs.sources.inline import is_inline
from lance_align.jobs.stages.ahead import read_ahead
from lance_align.jobs.stages.reading import read_split
from lance_align.sandbox import Decoder
from lance_align.spec import ImageSpec
from lance_align.tables.schema import CONTENT_HASH, ID, IMAGE, URI

# Columns between decode and encode; a source's column never has such a name, for Lance refuses periods.
PIXELS = "decoded.pixels"  # FixedSizeBinary of ImageSpec.shape, null where there is no image
REASON = "decoded.reason"  # why there is none
REPLACES = "decoded.replaces"  # bool: a row of this id is in the table and leaves it as this one comes
SECONDS = "decoded.seconds"  # float32, spent on the row

TABLE_BYTES = 32 * 2**20  # of the tables that leave a task
PHOTOGRAPH_BYTES = 30_000  # JPEGs of so many are photographs, nearly all; one of 640 x 480 has some more
TELL_EVERY_S = 0.5  # how many rows are decoded
KEPT_BYTES = 2**20  # of an image file that the table keeps: photographs of a camera phone have some more, others less


class Claims(Protocol):
    """How a task asks the ledger: an actor behind a call, or a `Ledger` itself."""

    def claim(self, first_position: int, hashes: Hashes, named: Flags, read_s: float) -> Answers:
        """See `Ledger.claim`."""

    def compare(self, hashes: Hashes, contents: Hashes, readable: Flags) -> Answers:
        """See `Ledger.compare`."""

    def note(self, what: Noted, ids: Mapping[int, str]) -> None:
        """See `Ledger.note`."""

    def advance(self, **counts: int) -> None:
        """See `Ledger.advance`."""

    def leave_out(self, first_position: int, counts: Mapping[str, int]) -> None:
        """See `Ledger.leave_out`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """An image as it was found.

    Attributes:
        data: the file's content, or None.
        uri: where it lies, if the row has a path.
        error: why there is no content.
        outside: whether it lies outside the source's folder.
    """

    data: bytes | None = None
    uri: str | None = None
    error: RowError | None = None
    outside: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Reads, claims and decodes one split.

    Attributes:
        source: the source, its splits left out.
        columns: the roles of its columns.
        decoder: what an image may be and what becomes of it; None when no image is embedded.
    """

    source: Source
    columns: Columns
    decoder: Decoder | None

    @property
    def table_rows(self) -> int:
        """Rows that leave a task together: as many as `TABLE_BYTES` hold, whatever the images of these rows are."""
        if self.decoder is None:
            return CHUNK_ROWS
        kept = {"bytes": KEPT_BYTES, "thumbnail": (self.decoder.thumbnail_px or 0) ** 2}.get(self.columns.keep or "", 0)
        return max(1, min(CHUNK_ROWS, TABLE_BYTES // (self.decoder.pixel_bytes + kept)))

    def rows(self, split: Split, *, first_position: int, claims: Claims) -> Iterator[pa.Table]:
        """The rows of a split that are this job's to embed: `id`, what travels, the picture, and the columns above."""
        position, started = first_position, time.perf_counter()
        for table in self._readable(split, first_position, claims):
            watchdog.beat()
            left_out = left_out_of(table)
            if left_out:
                claims.leave_out(position, left_out)
                table = table.replace_schema_metadata(None)
            if not table.num_rows:
                continue
            ids, named = self.ids(table)
            names: list[Any] = ids.to_pylist()
            hashes = id_hashes(names)
            answers = claims.claim(position, hashes, named, time.perf_counter() - started).copy()
            looked_at = answers == LOOK
            if looked_at.any():
                contents, readable = self._contents(table.filter(pa.array(looked_at)))
                answers[looked_at] = claims.compare(hashes[looked_at], contents, readable)
            _note(claims, position, names, answers)
            position += table.num_rows
            mine = (answers == GRANTED) | (answers == AGAIN)
            if mine.any():
                given = table.filter(pa.array(mine)), ids.filter(pa.array(mine)), answers[mine]
                yield from self._decoded(*given, claims=claims)
            started = time.perf_counter()

    def _readable(self, split: Split, position: int, claims: Claims) -> Iterator[pa.Table]:
        """The tables of a split, till its end or till it cannot be read; that is noted, and the other splits go on."""
        try:
            yield from read_split(self.source, split)
        except SourceError as error:
            claims.note("unread", {position: str(error)})

    def ids(self, table: pa.Table) -> tuple[pa.ChunkedArray[Any], Flags]:
        """The ids of a source's rows as text, and which of them the rows bring; the others are digests."""
        if self.columns.id is None:
            digests = pa.chunked_array([pa.array(row_digests(table), pa.string())])
            return digests, np.zeros(table.num_rows, dtype=bool)
        ids = text_ids(table.column(self.columns.id), self.columns.id)
        named = np.asarray(ids.is_valid().to_numpy(), dtype=np.bool_)
        if named.all():
            return ids, named
        digest = iter(row_digests(table.filter(ids.is_null())))
        every = [text if text is not None else next(digest) for text in ids.to_pylist()]
        return pa.chunked_array([pa.array(every, pa.string())]), named

    def _contents(self, table: pa.Table) -> tuple[Hashes, Flags]:
        """Content hashes of source rows, and which images could be read; nothing is decoded."""
        digests = row_digests(table.select(list(self.columns.travelling)))
        hashes: list[str] = []
        readable = np.ones(table.num_rows, dtype=np.bool_)
        for number, (digest, encoded) in enumerate(zip(digests, self._found(table), strict=True)):
            hashes.append(content_hash(digest, encoded.data))
            readable[number] = encoded.error is None or encoded.error.kind == "null"
        return hex_hashes(pa.array(hashes, pa.string()))[0], readable

    def _decoded(
        self, table: pa.Table, ids: pa.ChunkedArray[Any], answers: Answers, *, claims: Claims
    ) -> Iterator[pa.Table]:
        plain = table.select(list(self.columns.travelling))
        digests = row_digests(plain)
        plain = plain.add_column(0, ID, ids).append_column(REPLACES, pa.array(answers == AGAIN))
        if self.columns.image is None or self.decoder is None:
            hashes = pa.array([content_hash(digest, None) for digest in digests], pa.string())
            seconds = pa.nulls(len(plain), pa.float32()).fill_null(0.0)
            claims.advance(decoded=len(plain))
            yield plain.append_column(CONTENT_HASH, hashes).append_column(SECONDS, seconds)
            return
        start, told, photographs, told_at = 0, 0, 0, time.perf_counter()
        held = _Held(self.decoder.image)
        found = self._found(table)
        for index, digest in enumerate(digests):
            started = time.perf_counter()
            encoded = next(found)
            pixels, kept, reason = self._image(encoded, self.decoder)
            photographs += is_photograph(encoded.data or b"")
            held.add(pixels, kept, reason, content_hash(digest, encoded.data), time.perf_counter() - started)
            if time.perf_counter() - told_at >= TELL_EVERY_S or index + 1 == len(table):
                claims.advance(decoded=index + 1 - told, photographs=photographs)
                told, photographs, told_at = index + 1, 0, time.perf_counter()
            if held.size >= TABLE_BYTES or index + 1 == len(table):
                yield held.onto(plain.slice(start, len(held)), keep=self.columns.keep)
                start += len(held)
                held = _Held(self.decoder.image)

    def _image(self, encoded: Encoded, decoder: Decoder) -> tuple[Pixels | None, bytes | str | None, str | None]:
        """One image: pixels or None, what is kept, why there are no pixels."""
        kept: bytes | str | None = {"uri": encoded.uri, "bytes": encoded.data}.get(self.columns.keep or "")
        if encoded.data is None:
            return None, kept, str(encoded.error)
        try:
            decoded = decoder.decode(encoded.data)
        except RowError as error:
            if not encoded.outside:
                return None, kept, str(error)
            # It may be any file that --allow-outside reaches: nothing of it is kept, nor what it begins with.
            reason = RowError(error.kind, "a file outside the input's folder, of which nothing is kept")
            return None, None if self.columns.keep == "bytes" else kept, str(reason)
        return decoded.pixels, decoded.thumbnail if self.columns.keep == "thumbnail" else kept, None

    def _found(self, table: pa.Table) -> Iterator[Encoded]:
        """The image of each row, in their order."""
        nothing: Any = pa.nulls(table.num_rows)
        cells = nothing if self.columns.image is None else table.column(self.columns.image)
        found = read_ahead(
            cells,
            lambda cell: self._encoded(cell.as_py()),
            waits=self._waits,
            size=lambda encoded: len(encoded.data or b""),
        )
        for encoded in found:
            watchdog.beat()  # in this thread: there is one clock
            yield encoded

    def _waits(self, cell: Any) -> bool:
        """Whether a cell's image is behind a network."""
        if self.columns.image_kind == "struct" and cell.is_valid and "path" in cell.type.names:
            return not cell["bytes"].is_valid and self._is_remote(cell["path"].as_py())
        return self.columns.image_kind == "path" and self._is_remote(cell.as_py())

    def _is_remote(self, reference: str | None) -> bool:
        return reference is not None and self.source.references.is_remote(reference)

    def _encoded(self, cell: Any) -> Encoded:
        try:
            data, uri = self._bytes(cell)
        except RowError as error:
            return Encoded(uri=cell if isinstance(cell, str) and not is_inline(cell) else None, error=error)
        reference = cell.get("path") if isinstance(cell, dict) and cell["bytes"] is None else cell
        outside = isinstance(reference, str) and self.source.references.is_outside(reference)
        return Encoded(data=data, uri=uri, outside=outside)

    def _bytes(self, cell: Any) -> tuple[bytes, str | None]:
        """The encoded image, and where it lies if it was a path."""
        if isinstance(cell, dict):  # Hugging Face's image struct
            cell = cell["bytes"] if cell["bytes"] is not None else cell.get("path")
        if cell is None:
            raise RowError("null", "no image")
        if isinstance(cell, str):
            limits = self.decoder.limits if self.decoder is not None else DEFAULT_LIMITS
            uri, data = self.source.references.read(cell, max_bytes=limits.max_bytes)
            return data, uri
        if not isinstance(cell, bytes):
            raise RowError("type", f"{type(cell).__name__} is neither bytes nor a path")
        return cell, None


def is_photograph(data: bytes) -> bool:
    """Whether an encoded image is a JPEG of a camera's size."""
    return len(data) >= PHOTOGRAPH_BYTES and data[:2] == b"\xff\xd8"


class _Held:
    """Decoded rows on their way into one table."""

    def __init__(self, spec: ImageSpec) -> None:
        self._spec = spec
        self._pixels: list[Pixels | None] = []
        self._kept: list[bytes | str | None] = []
        self._reasons: list[str | None] = []
        self._contents: list[str] = []
        self._seconds: list[float] = []
        self.size = 0

    def __len__(self) -> int:
        return len(self._pixels)

    def add(
        self, pixels: Pixels | None, kept: bytes | str | None, reason: str | None, content: str, seconds: float
    ) -> None:
        self._pixels.append(pixels)
        self._kept.append(kept)
        self._reasons.append(reason)
        self._contents.append(content)
        self._seconds.append(seconds)
        self.size += 3 * self._spec.pixels + len(kept or b"")

    def onto(self, plain: pa.Table, *, keep: str | None) -> pa.Table:
        """The travelling columns of the same rows, and the picture's columns after them."""
        picture = (
            (URI, pa.array(self._kept, pa.string()))
            if keep == "uri"
            else (IMAGE, pa.array(self._kept, pa.large_binary()))
        )
        columns = {
            picture[0]: picture[1],
            PIXELS: pixel_column(self._pixels, self._spec),
            REASON: pa.array(self._reasons, pa.string()),
            CONTENT_HASH: pa.array(self._contents, pa.string()),
            SECONDS: pa.array(self._seconds, pa.float32()),
        }
        for name, column in columns.items():
            plain = plain.append_column(name, column)
        return plain


def _note(claims: Claims, first_position: int, names: Sequence[str], answers: Answers) -> None:
    """Tell the ledger the names of rows that the report lists; it sees hashes only."""
    notes: tuple[tuple[Noted, int], ...] = (("duplicate", DUPLICATE), ("changed", CHANGED))
    for what, answer in notes:
        rows = np.flatnonzero(answers == answer).tolist()
        if rows:
            claims.note(what, {first_position + row: names[row] for row in rows})


def pixel_block(column: pa.ChunkedArray[Any], spec: ImageSpec) -> Pixels:
    """The pixels of rows that have some.

    Args:
        column: `PIXELS` without nulls.

    Returns:
        uint8 ``(n, *spec.shape)``, a view where the column is one chunk.
    """
    size = 3 * spec.pixels
    parts = []
    for chunk in column.chunks:
        buffer: Any = chunk.buffers()[1]
        data = np.frombuffer(buffer, dtype=np.uint8, count=len(chunk) * size, offset=chunk.offset * size)
        parts.append(data.reshape(len(chunk), *spec.shape))
    if not parts:
        return np.zeros((0, *spec.shape), dtype=np.uint8)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def pixel_column(pixels: Sequence[Pixels | None], spec: ImageSpec) -> pa.Array[Any]:
    """The inverse of `pixel_block`: images as a column `PIXELS`, null where there is none."""
    block = np.zeros((len(pixels), *spec.shape), dtype=np.uint8)
    for row, image in zip(block, pixels, strict=True):
        if image is not None:
            row[:] = image
    validity = pa.array([image is not None for image in pixels]).buffers()[1]
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(3 * spec.pixels), len(pixels), [validity, pa.py_buffer(block.data)]
    )
