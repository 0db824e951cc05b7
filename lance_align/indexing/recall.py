"""How much of what exact search finds an index finds too, measured by asking it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lance_align.encoders.base import Vectors
from lance_align.tables.failures import lance_failures
from lance_align.tables.names import quoted
from lance_align.tables.search_settings import SearchSettings

K = 10  # recall@10
TIE = 1e-6  # cosines closer than this are equal: float32 sums of 640 products differ by as much
KEPT = 64  # candidates a query while the table is read: the ten nearest, and what ties with the last of them
BATCH_ROWS = 8192  # of 640 dimensions: 21 MB


def nearest(dataset: Any, vector: str, queries: Vectors, *, k: int = K) -> list[frozenset[int]]:
    """The row ids of the `k` rows nearest to each query and of all that tie with the last; the column is read once.

    Rows with a null vector are in none. What is kept is bounded: of more than `KEPT` that tie, some are left out.

    Args:
        dataset: the Lance dataset.
        vector: a column of vectors of norm 1.
        queries: ``(n, dim) float32`` of norm 1.

    Raises:
        TableError: the table cannot be read.
    """
    scores = np.full((len(queries), KEPT), -np.inf, np.float32)
    rows = np.full((len(queries), KEPT), -1, np.int64)
    with lance_failures("read vectors of", str(dataset.uri)):
        for batch in dataset.to_batches(
            columns=[vector], filter=f"{quoted(vector)} IS NOT NULL", with_row_id=True, batch_size=BATCH_ROWS
        ):
            found = queries @ _matrix(batch.column(vector)).T
            ids = np.broadcast_to(batch.column("_rowid").to_numpy().astype(np.int64), found.shape)
            scores, rows = _best(np.hstack([scores, found]), np.hstack([rows, ids]))
    return [_at_least(row, score, k) for row, score in zip(rows, scores, strict=True)]


def recall(
    table: Any,
    vector: str,
    queries: Vectors,
    truth: Sequence[frozenset[int]],
    settings: SearchSettings,
    *,
    k: int = K,
) -> float:
    """The mean share of the `k` nearest rows that ``table.search(...).limit(k)`` finds, 0 to 1.

    A row counts where it is one of the truth's; where fewer than `k` rows have a vector, all of them are expected.

    Args:
        table: an open LanceDB table, at the version that the truth is of.
        truth: as `nearest` gives it, for the same queries.

    Raises:
        TableError: the search failed.
    """
    shares = []
    with lance_failures("search", str(table.name)):
        for query, wanted in zip(queries, truth, strict=True):
            search = table.search(query, vector_column_name=vector).limit(k).with_row_id(True)
            found = settings.apply(search.select(["_rowid", "_distance"])).to_arrow()["_rowid"].to_pylist()
            shares.append(len(wanted & set(found)) / max(1, min(k, len(wanted))))
    return float(np.mean(shares))


def _matrix(column: Any) -> NDArray[np.float32]:
    flat = column.flatten().to_numpy(zero_copy_only=False)
    found: NDArray[np.float32] = flat.astype(np.float32, copy=False).reshape(len(column), -1)
    return found


def _best(scores: NDArray[np.float32], rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    places = np.argpartition(-scores, KEPT - 1, axis=1)[:, :KEPT]
    return np.take_along_axis(scores, places, 1), np.take_along_axis(rows, places, 1)


def _at_least(rows: NDArray[np.int64], scores: NDArray[np.float32], k: int) -> frozenset[int]:
    present = np.sort(scores[rows >= 0])[::-1]
    if not len(present):
        return frozenset()
    limit = present[min(k, len(present)) - 1] - TIE
    return frozenset(rows[(rows >= 0) & (scores >= limit)].tolist())
