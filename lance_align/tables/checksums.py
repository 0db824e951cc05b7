"""A checksum of each row's vectors: Lance does not checksum its pages, and a flipped bit would be read as it is.

A norm of 1 within 1e-3 lets most flips of a mantissa pass; CRC-32 finds every flip of up to 32 bits in a row, and any
other damage but one in 2^32 (Koopman 2002, "32-bit cyclic redundancy codes for Internet applications").
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa


def vector_checksums(columns: Sequence[pa.Array[Any] | pa.ChunkedArray[Any]]) -> pa.UInt32Array:
    """CRC-32 (as `zlib.crc32`) over the vectors of each row, which takes about a microsecond.

    Args:
        columns: the vector columns ``FixedSizeList<float32, dim>`` in the order of the table's layout, of one length.

    Returns:
        uint32, one a row, over the row's vectors as little-endian float32 one after the other; null vectors are
        skipped, and a row without any vector has null.
    """
    rows = len(columns[0]) if columns else 0
    sums = [0] * rows
    present = np.zeros(rows, dtype=bool)
    for column in columns:
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        valid = np.asarray(array.is_valid())
        vectors = array.drop_null().flatten().to_numpy(zero_copy_only=False).astype("<f4", copy=False)
        data = memoryview(np.ascontiguousarray(vectors)).cast("B")
        width = array.type.list_size * 4
        for at, row in enumerate(np.flatnonzero(valid)):
            sums[row] = zlib.crc32(data[at * width : (at + 1) * width], sums[row])
        present |= valid
    found: pa.UInt32Array = pa.array(sums, pa.uint32(), mask=~present)
    return found
