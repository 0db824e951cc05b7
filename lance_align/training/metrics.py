"""How good a retrieval is: recall and precision among the k nearest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lance_align.errors import ArgumentError


def recall_at(scores: NDArray[np.float32], targets: NDArray[np.int64], ks: Sequence[int]) -> tuple[float, ...]:
    """Share of queries whose one right item is among the k best.

    Items that score as high as the right one count as better: a model that scores everything alike gets nothing.

    Args:
        scores: ``(queries, items)``, higher is nearer; NaN is never near.
        targets: ``(queries,)``, the place of each query's right item.
        ks: from 1.

    Returns:
        One share a k, 0 to 1.

    Raises:
        ArgumentError: no queries, or shapes that do not fit.
    """
    _check(scores, len(targets))
    scores = np.nan_to_num(scores, nan=-np.inf)
    own = scores[np.arange(len(targets)), targets][:, None]
    better = (scores >= own).sum(axis=1) - 1
    return tuple(float(np.mean(better < k)) for k in ks)


def precision_at(scores: NDArray[np.float32], relevant: NDArray[np.bool_], k: int) -> float:
    """Mean share of right items among the k best of each query.

    Args:
        scores: ``(queries, items)``, higher is nearer; NaN is never near.
        relevant: bool ``(queries, items)``.
        k: from 1 to the number of items.

    Raises:
        ArgumentError: no queries, or shapes that do not fit.
    """
    _check(scores, len(relevant))
    if relevant.shape != scores.shape or not 1 <= k <= scores.shape[1]:
        raise ArgumentError(f"relevant {relevant.shape}, scores {scores.shape}, k={k}; expected equal shapes, k items")
    best = np.argsort(-np.nan_to_num(scores, nan=-np.inf), axis=1, kind="stable")[:, :k]
    return float(np.take_along_axis(relevant, best, axis=1).mean())


def _check(scores: NDArray[np.float32], queries: int) -> None:
    if scores.ndim != 2 or not len(scores) or len(scores) != queries:
        raise ArgumentError(
            f"scores {scores.shape} for {queries} queries; expected (queries, items), one query or more"
        )
