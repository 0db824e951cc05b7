"""Which index a vector column should have, if any: decided from the number of vectors and their length."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

from lance_align.errors import ArgumentError

IndexType = Literal["IVF_FLAT", "IVF_SQ", "IVF_PQ", "IVF_RQ", "IVF_HNSW_SQ", "IVF_HNSW_PQ"]
INDEX_TYPES: tuple[IndexType, ...] = ("IVF_FLAT", "IVF_SQ", "IVF_PQ", "IVF_RQ", "IVF_HNSW_SQ", "IVF_HNSW_PQ")

# Exact search takes 1.7 ns of processor time a byte (100,000 x 640 float32: 0.44 s, lancedb 0.40), so 30 ms.
EXACT_BYTES = 16 * 2**20
ROWS_PER_PARTITION = 4096
MIN_PARTITIONS, MAX_PARTITIONS = 16, 4096
# A table that has grown so much since its partitions were made gets new ones; until then rows join those there are.
MAX_GROWTH = 4.0
TRAINING_ROWS = 64
TRAINING_ROUNDS = 10


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IndexPlan:
    """An index to build.

    Its distance is L2: for vectors of norm 1 it orders rows as the cosine does, and it is what LanceDB takes where
    there is no index, so that ``_distance`` means the same before and after.

    Attributes:
        type: LanceDB's name of the kind of index.
        partitions: cells that the vectors are sorted into; a search looks into some of them (20 by LanceDB's default).
        sub_vectors: of IVF_PQ and IVF_HNSW_PQ: bytes a vector is kept as; None for the others.
    """

    type: IndexType
    partitions: int
    sub_vectors: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What this type wants beside the partitions, by Lance's names."""
        if self.type == "IVF_RQ":
            return {"num_bits": 1}  # lance-ray 0.5 wants it said
        return {} if self.sub_vectors is None else {"num_sub_vectors": self.sub_vectors}


def plan_index(rows: int, dim: int) -> IndexPlan | None:
    """The index for so many vectors of so many numbers; None where exact search is fast enough.

    Args:
        rows: of the table that have a vector.
        dim: length of a vector.
    """
    if rows * dim * 4 < EXACT_BYTES:
        return None
    return named_plan("IVF_SQ", rows, dim)


def named_plan(kind: str, rows: int, dim: int) -> IndexPlan:
    """The parameters for an index of a given type.

    Raises:
        ArgumentError: there is no such type.
    """
    if kind not in INDEX_TYPES:
        raise ArgumentError(f"index={kind!r}; expected auto or one of {', '.join(INDEX_TYPES)}")
    index_type = INDEX_TYPES[INDEX_TYPES.index(kind)]
    partitions = min(MAX_PARTITIONS, max(MIN_PARTITIONS, math.ceil(rows / ROWS_PER_PARTITION)))
    sub_vectors = _sub_vectors(dim) if index_type.endswith("PQ") else None
    return IndexPlan(type=index_type, partitions=min(partitions, max(1, rows // 16)), sub_vectors=sub_vectors)


def has_outgrown(rows: int, *, rows_when_built: int) -> bool:
    """Whether an index should be built anew instead of taking in more rows."""
    return rows > MAX_GROWTH * rows_when_built


def _sub_vectors(dim: int) -> int:
    """A byte for about eight numbers; it has to divide the dimension."""
    return next(number for number in range(max(1, dim // 8), 0, -1) if dim % number == 0)
