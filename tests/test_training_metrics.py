"""Recall and precision among the k nearest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lance_align.errors import ArgumentError
from lance_align.training.metrics import precision_at, recall_at

SCORES = np.array([[0.9, 0.5, 0.1], [0.2, 0.8, 0.7], [0.3, 0.2, 0.1]], dtype=np.float32)


def test_recall_counts_queries_whose_item_is_near_enough() -> None:
    assert recall_at(SCORES, np.array([0, 2, 2]), (1, 2, 3)) == pytest.approx((1 / 3, 2 / 3, 1.0))


def test_a_model_that_scores_everything_alike_gets_nothing() -> None:
    flat = np.zeros((4, 20), dtype=np.float32)
    assert recall_at(flat, np.arange(4), (1, 10)) == (0.0, 0.0)


def test_nan_is_never_near() -> None:
    scores = np.array([[np.nan, 0.1, 0.2]], dtype=np.float32)
    assert recall_at(scores, np.array([0]), (2,)) == (0.0,)
    assert precision_at(scores, np.array([[True, False, False]]), 2) == 0.0


def test_precision_is_the_share_of_right_items() -> None:
    relevant = np.array([[True, False, True], [False, True, True], [False, False, True]])
    assert precision_at(SCORES, relevant, 2) == pytest.approx((0.5 + 1.0 + 0.0) / 3)
    assert precision_at(SCORES, relevant, 3) == pytest.approx(5 / 9)


@given(seed=st.integers(0, 2**32 - 1), queries=st.integers(1, 8), items=st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_recall_is_what_sorting_says_and_grows_with_k(seed: int, queries: int, items: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.permutation(queries * items).reshape(queries, items).astype(np.float32)
    targets = rng.integers(items, size=queries)
    ks = tuple(range(1, items + 1))
    order = np.argsort(-scores, axis=1)
    expected = [np.mean([targets[q] in order[q, :k] for q in range(queries)]) for k in ks]
    got = recall_at(scores, targets, ks)
    assert got == pytest.approx(expected)
    assert got[-1] == 1.0


@pytest.mark.parametrize("scores", [np.zeros((0, 3), np.float32), np.zeros(3, np.float32)])
def test_nothing_to_ask_is_an_error(scores: np.ndarray) -> None:
    with pytest.raises(ArgumentError, match="expected"):
        recall_at(scores, np.zeros(0, np.int64), (1,))


@pytest.mark.parametrize("k", [0, 4])
def test_precision_needs_k_items(k: int) -> None:
    with pytest.raises(ArgumentError, match=f"k={k}"):
        precision_at(SCORES, np.ones((3, 3), bool), k)
