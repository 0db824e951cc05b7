"""How well a table's captions find its images, and its images their captions.

Exact figures come from all vectors of the column, read in batches; those through the index from searches as a user
writes them. Rows with the same caption are all right answers to it, and equal scores count in favour: a data set that
has an image once for each of its captions is measured fairly.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lance_align.encoders.base import Vectors, caption_reason
from lance_align.errors import ArgumentError, TableError
from lance_align.functions import AlignFunction, table_function
from lance_align.hints import did_you_mean
from lance_align.indexing.building import search_settings
from lance_align.tables.failures import lance_failures
from lance_align.tables.handles import check_table, dataset_of
from lance_align.tables.indexes import vector_index
from lance_align.tables.layout import VECTOR
from lance_align.tables.names import quoted
from lance_align.told import Told

KS = (1, 5, 10)
BATCH_ROWS = 8192  # of 640 dimensions: 21 MB
TIE = 1e-6  # float32 sums of 640 products differ by as much
FOUND = 100  # rows asked of the index: a rank beyond is not known, and of no interest


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """One way to search, measured.

    Attributes:
        what: for people, such as ``words -> image, exact``.
        recall: the share of queries with a right answer among the first k, by k in `KS`.
        median_rank: of the first right answer, counted from 1; None where half of them were not found.
        chance: the recall of a random order, by k.
        queries: how many were asked.
        items: among how many.
    """

    what: str
    recall: dict[int, float]
    median_rank: float | None
    chance: dict[int, float]
    queries: int
    items: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation(Told):
    """What `evaluate` found.

    Attributes:
        table: its name.
        version: the version that was measured.
        vector: the vector column.
        text: the column of captions.
        model: the model's name.
        where: the condition on the rows; None for all.
        figures: one a way to search.

    >>> evaluation = lance_align.evaluate(table, text="caption")
    >>> [figure.what for figure in evaluation.figures]
    ['words -> image, exact', ...]
    """

    table: str
    version: int
    vector: str
    text: str
    model: str
    where: str | None
    figures: tuple[Retrieval, ...]

    def to_json(self) -> str:
        """Every field, as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    def to_text(self) -> str:
        """A table for people."""
        rows = f"rows where {self.where}" if self.where else "all rows"
        width = max(len(figure.what) for figure in self.figures)
        head = "".join(f"  recall@{k:<2}" for k in KS)
        lines = [
            f"{self.model} on {self.table} (version {self.version}): {self.text} and {self.vector} of {rows}",
            f"  {'':<{width}}{head}  median rank",
        ]
        for figure in self.figures:
            shares = "".join(f"  {figure.recall[k]:>9.3f}" for k in KS)
            rank = "-" if figure.median_rank is None else f"{figure.median_rank:g}"
            lines.append(
                f"  {figure.what:<{width}}{shares}  {rank:>11}  {figure.queries:,} queries, {figure.items:,} items"
            )
            lines.append(f"  {'  by chance':<{width}}" + "".join(f"  {figure.chance[k]:>9.4f}" for k in KS))
        return "\n".join(lines)


def evaluate(
    table: Any,
    *,
    text: str = "caption",
    vector: str = VECTOR,
    where: str | None = None,
    queries: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Measure recall@1, 5 and 10 and the median rank of captions that look for their images, and the other way.

    Words look for their image among all rows that have a vector: exactly, and through the index where there is one.
    Images look for their caption among the distinct captions that were drawn.

    Args:
        table: an open LanceDB table (of the synchronous API) with a column of captions and one of image vectors.
        text: the column of captions; rows whose caption is null or blank are no queries.
        vector: the vector column; a model of ours must have written it.
        where: an SQL condition on the rows: held-out ones, for instance; None for all.
        queries: captions to ask at most, drawn at random.
        seed: of that draw.

    Returns:
        The figures beside those of chance.

    Raises:
        ArgumentError: `queries` is below 1, or no row has both a caption and a vector.
        TableError: the columns are not there, or no model of ours wrote the vectors.
        ModelError: the model cannot be loaded.

    Example:
        >>> print(lance_align.evaluate(table, text="caption", where="is_flag = false").to_text())
        align-tiny on demo (version ...): caption and vector of rows where is_flag = false
        ...
    """
    if queries < 1:
        raise ArgumentError(f"queries={queries}; expected a number above 0")
    check_table(table)
    function = _function(table, text, vector)
    dataset = dataset_of(table)
    encoder = function.encoder()
    with lance_failures("evaluate", str(table.name)):
        captions, images = _drawn(dataset, text, vector, where, queries, seed)
        embedded = encoder.encode_texts(captions)
        good = [place for place, reason in enumerate(embedded.reasons) if reason is None]
        captions, images, words = [captions[place] for place in good], images[good], embedded.vectors[good]
        if not captions:
            raise ArgumentError(f"no row of {table.name!r} has both a {text!r} and a {vector!r}; see its error column")
        exact = _words_exactly(dataset, text, vector, where, captions, words)
        by_index = _words_by_index(table, text, vector, where, captions, words, exact)
        figures = (exact, *by_index, _images(captions, images, words))
    return Evaluation(
        table=str(table.name),
        version=int(dataset.version),
        vector=vector,
        text=text,
        model=encoder.spec.name,
        where=where,
        figures=figures,
    )


def _function(table: Any, text: str, vector: str) -> AlignFunction:
    schema: pa.Schema = table.schema
    for name in (text, vector):
        if name not in schema.names:
            raise TableError(
                f"table {table.name!r} has no column {name!r}; {did_you_mean(name, schema.names)}it has "
                f"{', '.join(schema.names)}"
            )
    kind: Any = schema.field(text).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise TableError(f"column {text!r} of table {table.name!r} holds {kind}; expected captions (string)")
    function = table_function(schema, vector)
    if function is None or function.source != "image":
        raise TableError(f"{vector!r} of table {table.name!r} holds no image vectors of a model of ours; name another")
    return function


def _batches(dataset: Any, text: str, vector: str, where: str | None) -> Iterator[tuple[list[str | None], Vectors]]:
    """Captions and vectors of the rows that have a vector."""
    condition = f"{quoted(vector)} IS NOT NULL" + (f" AND ({where})" if where else "")
    for batch in dataset.to_batches(columns=[text, vector], filter=condition, batch_size=BATCH_ROWS):
        flat = batch.column(vector).flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
        yield batch.column(text).to_pylist(), flat.reshape(len(batch), -1)


def _drawn(
    dataset: Any, text: str, vector: str, where: str | None, number: int, seed: int
) -> tuple[list[str], Vectors]:
    """Distinct captions drawn at random, each with the vector of its first row; no more than twice as many are held."""
    held: dict[str, tuple[bytes, NDArray[np.float32]]] = {}
    limit = b"\xff" * 9
    for captions, vectors in _batches(dataset, text, vector, where):
        for caption, row in zip(captions, vectors, strict=True):
            if caption is None or caption_reason(caption) is not None or caption in held:
                continue
            key = hashlib.blake2b(f"{seed} {caption}".encode(errors="replace"), digest_size=8).digest()
            if key < limit:  # the smallest keys are a fair draw, and the same again
                held[caption] = (key, row.copy())
            if len(held) >= 2 * number:
                held = _smallest(held, number)
                limit = max(key for key, _ in held.values())
    chosen = _smallest(held, number)
    rows = [row for _, row in chosen.values()]
    return list(chosen), np.stack(rows) if rows else np.empty((0, 1), np.float32)


def _smallest(
    held: dict[str, tuple[bytes, NDArray[np.float32]]], number: int
) -> dict[str, tuple[bytes, NDArray[np.float32]]]:
    return dict(sorted(held.items(), key=lambda item: item[1][0])[:number])


def _words_exactly(
    dataset: Any, text: str, vector: str, where: str | None, captions: Sequence[str], words: Vectors
) -> Retrieval:
    """Two passes over the vectors: the best score of each caption's own rows, then how many others beat it."""
    place = {caption: number for number, caption in enumerate(captions)}
    own = np.full(len(captions), -np.inf, np.float32)
    right = np.zeros(len(captions), np.int64)
    items = 0
    for texts, vectors in _batches(dataset, text, vector, where):
        items += len(texts)
        for row, caption in enumerate(texts):
            number = place.get(caption or "")
            if number is not None:
                own[number] = max(own[number], float(words[number] @ vectors[row]))
                right[number] += 1
    better = np.zeros(len(captions), np.int64)
    for _, vectors in _batches(dataset, text, vector, where):
        better += (words @ vectors.T > own[:, None] + TIE).sum(axis=1)
    return _retrieval("words -> image, exact", better + 1, items, right)


def _words_by_index(
    table: Any, text: str, vector: str, where: str | None, captions: Sequence[str], words: Vectors, exact: Retrieval
) -> Iterator[Retrieval]:
    """The same through the index; nothing where the column has none."""
    index = vector_index(table, vector)
    if index is None:
        return
    settings = search_settings(table, vector=vector)
    ranks = np.full(len(captions), np.inf)
    for number, (caption, query) in enumerate(zip(captions, words, strict=True)):
        search = settings.apply(table.search(query, vector_column_name=vector)).limit(FOUND).select([text, "_distance"])
        found = (search.where(where, prefilter=True) if where else search).to_arrow()
        hits = [row for row, caption_found in enumerate(found[text].to_pylist()) if caption_found == caption]
        if hits:
            distances = found["_distance"].to_numpy()
            ranks[number] = 1 + int((distances < distances[hits[0]] - TIE).sum())
    yield dataclasses.replace(exact, **_figures(ranks), what=f"words -> image, {index.type}{settings}")


def _images(captions: Sequence[str], images: Vectors, words: Vectors) -> Retrieval:
    scores = images @ words.T
    better = (scores > np.diagonal(scores)[:, None] + TIE).sum(axis=1)
    return _retrieval("image -> words, exact", better + 1, len(captions), np.ones(len(captions), np.int64))


def _retrieval(what: str, ranks: NDArray[Any], items: int, right: NDArray[np.int64]) -> Retrieval:
    """The figures of some ranks.

    Args:
        ranks: of the first right answer, from 1; infinite where it was not found.
        right: how many of the items are right, for each query.
    """
    chance = {k: float(np.minimum(1.0, k * right / items).mean()) for k in KS}
    return Retrieval(what=what, chance=chance, queries=len(ranks), items=items, **_figures(ranks))


def _figures(ranks: NDArray[Any]) -> dict[str, Any]:
    median = float(np.median(ranks))
    return {
        "recall": {k: float((ranks <= k).mean()) for k in KS},
        "median_rank": median if np.isfinite(median) else None,
    }
