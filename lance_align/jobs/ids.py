"""Names for rows: the id column as text, or a 128-bit digest of the row where there is none (`tables.digests`)."""

from __future__ import annotations

import decimal
import hashlib
import re
from collections.abc import Callable, Sequence
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
    r"""An id column as strings; nulls stay null, and different values have different texts.

    The text depends on the value alone, not on its type's width, unit or scale: numbers have no zeros after the last
    digit behind the point, times none at the end of the second. UUIDs are written with hyphens, bytes of a fixed number
    in hexadecimal digits, other bytes as the text they are (a byte that is not UTF-8 as ``\xff``).

    Raises:
        SourceError: a type of `is_id_type` is expected.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not is_id_type(kind):
        raise SourceError(f"id column {name!r} is {column.type}; expected {ID_TYPES}")
    plain = pc.cast(column, kind) if pa.types.is_dictionary(column.type) else column
    for matches, texts in _ID_TEXTS:
        if matches(kind):
            return texts(plain)
    text: pa.ChunkedArray[Any] = pc.cast(plain, pa.string())
    return text


ID_TYPES = "text, whole numbers, decimals, UUIDs, bytes, dates or times"


def is_id_type(kind: Any) -> bool:
    """Whether values of an Arrow type can be ids: those with one text for each value."""
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    named = is_text_type(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind) or pa.types.is_date(kind)
    return named or any(matches(kind) for matches, _ in _ID_TEXTS)


def _uuid_texts(column: pa.ChunkedArray[Any]) -> pa.ChunkedArray[Any]:
    return _each(column, str)


def _bytes_texts(column: pa.ChunkedArray[Any]) -> pa.ChunkedArray[Any]:
    return _each(column, _bytes_text)


def _bytes_text(value: bytes) -> str:
    r"""Doubled backslashes keep ``a\xff`` (six characters) apart from ``a`` and the byte FF."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return value.replace(b"\\", b"\\\\").decode(errors="backslashreplace")
    return text.replace("\\", "\\\\") if "\\x" in text else text


def _decimal_texts(column: pa.ChunkedArray[Any]) -> pa.ChunkedArray[Any]:
    exact = decimal.Context(prec=100)  # no Arrow decimal has more digits
    return _each(column, lambda value: format(exact.normalize(value), "f"))


def _time_texts(column: pa.ChunkedArray[Any]) -> pa.ChunkedArray[Any]:
    texts = pc.cast(column, pa.string())
    texts = pc.replace_substring_regex(texts, r"(\.\d*?)0+([^\d.].*)?$", r"\1\2")
    return pc.replace_substring_regex(texts, r"\.([^\d].*)?$", r"\1")


def _each(column: pa.ChunkedArray[Any], text: Callable[[Any], str]) -> pa.ChunkedArray[Any]:
    values: list[Any] = column.to_pylist()
    return pa.chunked_array([pa.array([None if value is None else text(value) for value in values], pa.string())])


def _is_uuid(kind: Any) -> bool:
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.uuid"


# Kinds whose text is not Arrow's.
_ID_TEXTS: tuple[tuple[Callable[[Any], bool], Callable[[Any], pa.ChunkedArray[Any]]], ...] = (
    (_is_uuid, _uuid_texts),
    (pa.types.is_fixed_size_binary, lambda column: _each(column, bytes.hex)),
    (
        lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind),
        _bytes_texts,
    ),
    (pa.types.is_decimal, _decimal_texts),
    (lambda kind: pa.types.is_timestamp(kind) or pa.types.is_time(kind), _time_texts),
)


def is_text_type(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds text, dictionary-encoded or not."""
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def id_hashes(ids: Sequence[str]) -> Hashes:
    """``(n, 2) uint64``: BLAKE2b-128 of each id, which is what the ledger remembers of it."""
    joined = b"".join(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in ids)
    return np.frombuffer(joined, dtype="<u8").reshape(len(ids), 2)
