"""Digests of rows by their content: what `content_hash` holds, and the ids of rows that have none.

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

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lance_align.errors import SourceError

DIGEST_BYTES = 16
# 16 bytes each: they keep these digests apart from any other use of BLAKE2b.
_PERSON = b"lance_align row1"
_CONTENT_PERSON = b"lance_align cnt1"

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
    (lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind), _variable_payloads),
    (pa.types.is_string_view, _variable_payloads),
    (lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind), _variable_payloads),
    (pa.types.is_binary_view, _variable_payloads),
    (pa.types.is_map, _map_payloads),
    (lambda kind: pa.types.is_list(kind) or pa.types.is_large_list(kind), _list_payloads),
    (pa.types.is_fixed_size_list, _list_payloads),
    (pa.types.is_struct, _struct_payloads),
    (lambda kind: pa.types.is_primitive(kind) or pa.types.is_decimal(kind), _fixed_payloads),
    (pa.types.is_fixed_size_binary, _fixed_payloads),
)
