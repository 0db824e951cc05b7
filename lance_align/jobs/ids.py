"""Names for rows: the id column as text, or a 128-bit digest of the row where there is none (`tables.digests`)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lance_align.errors import SourceError
from lance_align.tables.digests import DIGEST_BYTES
from lance_align.tables.digests import content_hash as content_hash
from lance_align.tables.digests import row_digests as row_digests

_HEX = re.compile(f"[0-9a-f]{{{2 * DIGEST_BYTES}}}")

Hashes = NDArray[np.uint64]  # (n, 2)
Flags = NDArray[np.bool_]  # (n,)


def hex_hashes(column: pa.ChunkedArray[Any] | pa.Array[Any]) -> tuple[Hashes, NDArray[np.bool_]]:
    """A column of 32 hexadecimal digits as ``(n, 2) uint64``, and which cells hold such digits; others are zero."""
    texts: list[Any] = column.to_pylist()
    valid = np.array([text is not None and _HEX.fullmatch(text) is not None for text in texts], dtype=bool)
    joined = "".join(text if ok else "0" * (2 * DIGEST_BYTES) for text, ok in zip(texts, valid, strict=True))
    return np.frombuffer(bytes.fromhex(joined), dtype="<u8").reshape(len(texts), 2), valid


def text_ids(column: pa.ChunkedArray[Any], name: str) -> pa.ChunkedArray[Any]:
    """An id column as strings; nulls stay null.

    Raises:
        SourceError: neither text nor whole numbers.
    """
    plain = pc.cast(column, column.type.value_type) if pa.types.is_dictionary(column.type) else column
    if not is_id_type(plain.type):
        raise SourceError(f"id column {name!r} is {column.type}; expected text or whole numbers")
    return pc.cast(plain, pa.string())


def is_id_type(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type can be ids."""
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    return is_text_type(kind) or pa.types.is_integer(kind)


def is_text_type(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds text, dictionary-encoded or not."""
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def id_hashes(ids: Sequence[str]) -> Hashes:
    """``(n, 2) uint64``: BLAKE2b-128 of each id, which is what the ledger remembers of it."""
    joined = b"".join(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in ids)
    return np.frombuffer(joined, dtype="<u8").reshape(len(ids), 2)
