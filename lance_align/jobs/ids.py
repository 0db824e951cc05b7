"""Names for rows: the id column as text, or a 128-bit digest of the row where there is none.

A row's digest is BLAKE2b-128 over its cells in a canonical form, columns in the order of their names. It depends on
values alone: not on chunks, batches, dictionaries, machines or the order of columns. Two rows share an id when every
cell is equal bit by bit; by accident, n rows share one with probability n² / 2^129 (10^-19 for 10^10 rows), and
BLAKE2b leaves no way to make such rows on purpose.

The canonical form of a cell: one byte, 0 for null and 1 for a value, then the value. Numbers, times and decimals are
their Arrow bytes, booleans one byte, texts and binaries their length (8 bytes) and content, lists their length, the
validity of their items as one byte each and the items, structs their fields in order, dictionaries the value they
stand for.
"""

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

DIGEST_BYTES = 16
# 16 bytes each: they keep these digests apart from any other use of BLAKE2b.
_PERSON = b"lance_align row1"
_CONTENT_PERSON = b"lance_align cnt1"

_HEX = re.compile(f"[0-9a-f]{{{2 * DIGEST_BYTES}}}")

Hashes = NDArray[np.uint64]  # (n, 2)
Flags = NDArray[np.bool_]  # (n,)
Payloads = Sequence[bytes | memoryview]


def row_digests(table: pa.Table) -> list[str]:
    """A digest of 32 hexadecimal digits for every row, over all columns.

    Raises:
        SourceError: a column of a type without a canonical form (a union).
    """
    seed = hashlib.blake2b(digest_size=DIGEST_BYTES, person=_PERSON)
    names = sorted(table.column_names)
    seed.update("\0".join(names).encode())
    digests = [seed.copy() for _ in range(table.num_rows)]
    for name in names:
        start = 0
        for chunk in table.column(name).chunks:
            for digest, cell in zip(digests[start : start + len(chunk)], _cells(chunk, name), strict=True):
                digest.update(cell)
            start += len(chunk)
    return [digest.hexdigest() for digest in digests]


def content_hash(digest: str, image: bytes | None) -> str:
    """What the table's `content_hash` holds of a row: 32 hexadecimal digits that change when its content does.

    Args:
        digest: the `row_digests` of the columns that travel.
        image: the encoded image, or None where the row has none that can be read.
    """
    content = hashlib.blake2b(bytes.fromhex(digest), digest_size=DIGEST_BYTES, person=_CONTENT_PERSON)
    content.update(b"\0" if image is None else b"\1")
    content.update(image or b"")
    return content.hexdigest()


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
    return pc.cast(plain, pa.string())


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


def _cells(array: pa.Array[Any], name: str) -> list[bytes]:
    valid = array.is_valid().to_pylist()
    payloads = _payloads(array, name)
    return [b"\1" + bytes(value) if is_valid else b"\0" for is_valid, value in zip(valid, payloads, strict=True)]


def _payloads(array: pa.Array[Any], name: str) -> Payloads:
    """The canonical bytes of every cell; those of null cells mean nothing."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _payloads(array.storage, name)
    if isinstance(array, pa.DictionaryArray):
        return _payloads(array.dictionary_decode(), name)
    if pa.types.is_run_end_encoded(kind):
        return _payloads(pc.call_function("run_end_decode", [array]), name)
    for matches, payloads in _KINDS:
        if matches(kind):
            return payloads(array, name)
    raise SourceError(f"column {name!r} is {kind}, which has no row digest; name an id column")


def _null_payloads(array: pa.Array[Any], _: str) -> Payloads:
    return [b""] * len(array)


def _boolean_payloads(array: pa.Array[Any], name: str) -> Payloads:
    return _fixed_payloads(pc.cast(array, pa.uint8()), name)


def _fixed_payloads(array: pa.Array[Any], _: str) -> Payloads:
    width = array.type.bit_width // 8
    if width == 0:
        return [b""] * len(array)
    data = array.buffers()[1]
    if data is None:
        return [b""] * len(array)
    view = memoryview(data)[array.offset * width : (array.offset + len(array)) * width]
    return [view[at : at + width] for at in range(0, len(view), width)]


def _variable_payloads(array: pa.Array[Any], _: str) -> Payloads:
    values = pc.cast(array, pa.large_binary()).to_pylist()
    return [len(value).to_bytes(8, "little") + value if value is not None else b"" for value in values]


def _list_payloads(array: pa.Array[Any], name: str) -> Payloads:
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_pylist()
    items = pc.list_flatten(array)  # of valid lists only, whatever lies behind null ones
    valid = np.asarray(items.is_valid()).astype(np.uint8)
    payloads = _payloads(items, name)
    out: list[bytes] = []
    start = 0
    for length in lengths:
        stop = start + length
        flags = valid[start:stop]
        content = b"".join(value for value, flag in zip(payloads[start:stop], flags, strict=True) if flag)
        out.append(length.to_bytes(8, "little") + flags.tobytes() + content)
        start = stop
    return out


def _struct_payloads(array: pa.StructArray, name: str) -> Payloads:
    if array.type.num_fields == 0:
        return [b""] * len(array)
    columns = [_cells(array.field(index), name) for index in range(array.type.num_fields)]
    return [b"".join(cells) for cells in zip(*columns, strict=True)]


def _map_payloads(array: pa.Array[Any], name: str) -> Payloads:
    pairs = pa.list_(pa.struct([("key", array.type.key_type), ("value", array.type.item_type)]))
    return _list_payloads(array.cast(pairs), name)


_KINDS: tuple[tuple[Callable[[Any], bool], Callable[[Any, str], Payloads]], ...] = (
    (pa.types.is_null, _null_payloads),
    (pa.types.is_boolean, _boolean_payloads),
    (is_text_type, _variable_payloads),
    (lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind), _variable_payloads),
    (pa.types.is_binary_view, _variable_payloads),
    (pa.types.is_map, _map_payloads),
    (lambda kind: pa.types.is_list(kind) or pa.types.is_large_list(kind), _list_payloads),
    (pa.types.is_fixed_size_list, _list_payloads),
    (pa.types.is_struct, _struct_payloads),
    (lambda kind: pa.types.is_primitive(kind) or pa.types.is_decimal(kind), _fixed_payloads),
    (pa.types.is_fixed_size_binary, _fixed_payloads),
)
