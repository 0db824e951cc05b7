"""Reranking of search results by a model that looks at a text and a picture together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.rerankers import Reranker

from lance_align.encoders.devices import Precision
from lance_align.encoders.pairs import PairModel, load_pair_model
from lance_align.errors import ArgumentError, RowError
from lance_align.paths import expanded
from lance_align.tables.schema import IMAGE
from lance_align.visuals import read_pixels

SCORE = "_relevance_score"  # LanceDB's name
BATCH_ROWS = 64  # decoded at once


class MatchReranker(Reranker):
    """Orders candidates by how well a model finds that the words of the query fit their picture.

    For ``table.search("…").limit(100).rerank(reranker=…)`` on vector, full-text and hybrid queries; the words are the
    query's, or `query_string` of ``rerank`` where the query is a picture. The score of BLIP is the probability of a
    match, that of X-CLIP the logit of the text conditioned on the video. It stands in ``_relevance_score`` (float32),
    highest first; a candidate whose picture is missing or cannot be read has null there, and stands at the end, where
    such candidates keep their order.

    Args:
        model: a BLIP (``BlipForImageTextRetrieval``) or X-CLIP checkpoint: a known name, a hub id, or a directory.
        revision: of a hub model.
        column: of the pictures: encoded bytes, which the search must bring along; or paths, with `root`.
        root: the folder that the column's paths start from, and that none of them may lead out of.
        allow_paths: read whatever local file the column names.
        device: as in `lance_align.load_encoder`.
        precision: as in `lance_align.load_encoder`.
        return_score: ``relevance``, or ``all`` to keep LanceDB's own scores beside it.

    Raises:
        ArgumentError: `return_score` is neither.
        ModelError: the model cannot be read, or does not score pairs. Weights are loaded at the first use.

    >>> reranker = lance_align.MatchReranker("Salesforce/blip-itm-base-coco")
    >>> len(table.search("red heart").limit(10).rerank(reranker).to_list())
    10
    """

    def __init__(
        self,
        model: str | Path = "Salesforce/blip-itm-base-coco",
        *,
        revision: str | None = None,
        column: str = IMAGE,
        root: str | Path | None = None,
        allow_paths: bool = False,
        device: str = "auto",
        precision: Precision = "auto",
        return_score: Literal["relevance", "all"] = "relevance",
    ) -> None:
        if return_score not in ("relevance", "all"):
            raise ArgumentError(f"return_score is {return_score!r}; expected 'relevance' or 'all'")
        super().__init__(return_score)
        self._column, self._allow_paths = column, allow_paths
        self._root = None if root is None else expanded(os.fspath(root), ArgumentError).resolve()
        self._model: PairModel = load_pair_model(
            model, part="matcher", revision=revision, device=device, precision=precision
        )

    def __str__(self) -> str:
        """LanceDB prints it in query plans."""
        return f"{type(self).__name__}({self._model.spec.name!r})"

    def rerank_vector(self, query: str, vector_results: pa.Table) -> pa.Table:
        """See `lancedb.rerankers.Reranker`."""
        return self._reranked(query, vector_results)

    def rerank_fts(self, query: str, fts_results: pa.Table) -> pa.Table:
        """See `lancedb.rerankers.Reranker`."""
        return self._reranked(query, fts_results)

    def rerank_hybrid(self, query: str, vector_results: pa.Table, fts_results: pa.Table) -> pa.Table:
        """See `lancedb.rerankers.Reranker`; a row that both searches found is scored once."""
        both: pa.Table
        if self.score == "all":
            both = self._merge_and_keep_scores(vector_results, fts_results)
        else:
            both = self.merge_results(vector_results, fts_results)
        return self._reranked(query, both)

    def _reranked(self, query: object, results: pa.Table) -> pa.Table:
        if not isinstance(query, str):
            raise ArgumentError(
                f"the query to rerank with is a {type(query).__name__}; expected words: "
                '.rerank(reranker=…, query_string="…")'
            )
        if self._column not in results.column_names:
            raise ArgumentError(
                f"the results have no column {self._column!r} to look at, they have {', '.join(results.column_names)}; "
                "name it (column=…), and leave it in .select(…)"
            )
        cells = results.column(self._column)
        scores = pa.array(np.concatenate([np.empty(0, np.float32), *self._scores(query, cells)]), from_pandas=True)
        if self.score == "relevance":
            results = results.drop_columns([name for name in ("_distance", "_score") if name in results.column_names])
        order = pc.sort_indices(scores, sort_keys=[("", "descending")])  # stable, nulls at the end
        return results.append_column(SCORE, scores.cast(pa.float32())).take(order)

    def _scores(self, query: str, cells: pa.ChunkedArray[Any]) -> list[Any]:
        """``(rows,) float32`` of each batch; NaN where there is no picture."""
        found = []
        for start in range(0, len(cells), BATCH_ROWS):
            values = cells.slice(start, BATCH_ROWS).to_pylist()
            scores = np.full(len(values), np.nan, np.float32)
            rows, pixels = self._pixels(values)
            if rows:
                scores[rows] = self._model.scores(query, np.stack(pixels))
            found.append(scores)
        return found

    def _pixels(self, values: Sequence[Any]) -> tuple[list[int], list[Any]]:
        rows, pixels = [], []
        for row, value in enumerate(values):
            try:
                if isinstance(value, str):
                    value = self._file(value)
                if value is not None:
                    pixels.append(read_pixels(value, self._model.spec.image))
                    rows.append(row)
            except RowError:
                continue  # no score, as the class says
        return rows, pixels

    def _file(self, path: str) -> Path:
        """The file that a cell names.

        Raises:
            ArgumentError: nobody said that paths may be read.
            RowError: it lies outside `root`, or is no path.
        """
        if self._root is None and not self._allow_paths:
            raise ArgumentError(
                f"column {self._column!r} holds paths ({path!r:.60}); root=FOLDER reads those below a folder, "
                "allow_paths=True reads whatever they name"
            )
        try:
            found = ((self._root or Path()) / path).resolve()
        except (OSError, ValueError, RuntimeError) as error:  # a NUL, links in a circle
            raise RowError("missing", f"{path!r}: {error}") from None
        if not self._allow_paths and self._root is not None and not found.is_relative_to(self._root):
            raise RowError("missing", f"{path} lies outside {self._root}")
        return found
