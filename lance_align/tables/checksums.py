"""A checksum of each row's vectors: Lance does not checksum its pages, and a flipped bit would be read as it is.

A norm of 1 within 1e-3 lets most flips of a mantissa pass; CRC-32 finds every flip of up to 32 bits in a row, and any
other damage but one in 2^32 (Koopman 2002, "32-bit cyclic redundancy codes for Internet applications").
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lance_align.errors import ArgumentError

VectorColumn: TypeAlias = "pa.Array[Any] | pa.ChunkedArray[Any]"


def vector_checksums(columns: Sequence[VectorColumn]) -> pa.UInt32Array:
    """The CRC-32 of each row's vectors, as the column `vector_crc32` holds it; about a microsecond a row.

    Args:
        columns: the vector columns of the same n rows, ``FixedSizeList<float32, dim>``, in the order of the table's
            layout: `vector`, then `text_vector`.

    Returns:
        n numbers: ``zlib.crc32`` over the bytes of the row's vectors (float32, little-endian) one after the other.
        A null vector adds nothing; a row without any vector has null. No rows give no numbers.

    Raises:
        ArgumentError: no columns, columns of different lengths, or one that does not hold float32 vectors.
    """
    if not columns or len({len(column) for column in columns}) > 1:
        lengths = ", ".join(str(len(column)) for column in columns) or "none"
        raise ArgumentError(f"vector columns of {lengths} rows; expected one or more columns of equal length")
    sums: list[int] = [0] * len(columns[0])
    present = np.zeros(len(sums), dtype=bool)
    for column in columns:
        vectors, valid = vector_block(column)
        width = 4 * vectors.shape[1]
        data = vectors.astype("<f4", copy=False).reshape(-1).view(np.uint8).data
        rows = (data[start : start + width] for start in range(0, len(data), width))
        sums = [zlib.crc32(row, old) if ok else old for row, old, ok in zip(rows, sums, valid.tolist(), strict=True)]
        present |= valid
    return pa.array(sums, pa.uint32(), mask=~present)


def vector_block(column: VectorColumn) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A vector column as numpy.

    Returns:
        ``(n, dim) float32``, C-contiguous, and ``(n,) bool``: whether the row has a vector. What stands in the place
        of a null vector means nothing; a null inside a vector is NaN.

    Raises:
        ArgumentError: the column does not hold float32 vectors of one length.
    """
    kind = column.type
    if not isinstance(kind, pa.FixedSizeListType) or kind.value_type != pa.float32() or kind.list_size < 1:
        raise ArgumentError(f"a column of {kind} does not hold vectors; expected FixedSizeList<float32>")
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    dim = kind.list_size
    blocks = [np.zeros((0, dim), dtype=np.float32)]
    for chunk in chunks:
        # .flatten() would leave out the places of null vectors, .values ignores where a slice begins
        values: Any = chunk.values.slice(chunk.offset * dim, len(chunk) * dim)  # type: ignore[attr-defined]
        blocks.append(values.to_numpy(zero_copy_only=False).reshape(len(chunk), dim))
    valid = [np.asarray(chunk.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_) for chunk in chunks]
    block = blocks[1] if len(blocks) == 2 else np.concatenate(blocks)
    return np.ascontiguousarray(block, dtype=np.float32), np.concatenate([np.zeros(0, dtype=np.bool_), *valid])
