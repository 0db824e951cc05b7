"""What people might ask a table: texts drawn from it, so that its index is measured with texts and not with pictures.

Vectors of texts lie far from those of pictures, also of the pictures they describe. An index that finds what is near a
picture may miss what is near a text, so recall with pictures says little.
"""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
import pyarrow as pa

from lance_align.corpora.scenes import scenes
from lance_align.encoders.base import Vectors
from lance_align.errors import LanceAlignError
from lance_align.functions import AlignFunction, table_function
from lance_align.tables.failures import lance_failures
from lance_align.tables.layout import CONTENT_HASH, ERROR, ID, URI
from lance_align.tables.metadata import error_columns, read_functions

QUERIES = 200  # times 10 rows: the standard error of a recall of 0.97 is 0.004
SEED = 0
_NAMES = ("caption", "text", "description", "prompt", "title", "alt", "name", "sentence", "label")


@dataclasses.dataclass(frozen=True, slots=True)
class Queries:
    """Queries to measure with.

    Attributes:
        vectors: ``(n, dim) float32`` of norm 1.
        said: what they are, in words.
    """

    vectors: Vectors
    said: str


def sample_queries(table: Any, vector: str, *, number: int = QUERIES) -> Queries:
    """Texts of a column of the table, else of a small vocabulary, embedded by the table's own model.

    For a column of text vectors it is the first half of each text's words: nobody asks for a row by its whole text.
    Where the table names no model of ours, or it cannot be loaded here, vectors of the table itself are taken.

    Args:
        table: an open LanceDB table.
        vector: the vector column.
        number: at most so many; the same ones each time.

    Raises:
        TableError: the table cannot be read.
    """
    function = table_function(table.schema, vector)
    with lance_failures("read", str(table.name)):
        dataset = table.to_lance()
        if function is not None:
            texts, said = _texts(dataset, function, vector, number)
            try:
                embedded = function.encoder().encode_texts(texts)
            except LanceAlignError as error:
                said = f"vectors of the table itself, since its model cannot be loaded ({error})"
            else:
                good = [row for row, reason in enumerate(embedded.reasons) if reason is None]
                if good:
                    return Queries(embedded.vectors[good], f"{len(good)} {said}")
        else:
            said = "vectors of the table itself, since it names no model of ours"
        return Queries(_own_vectors(dataset, vector, number), said)


def vocabulary(number: int = QUERIES) -> list[str]:
    """Short English descriptions of things, the same each time; for tables without texts."""
    draw = random.Random(SEED)
    found = [draw.choice(scene.captions) for scene in scenes(seed=SEED, count=2 * number)]
    return list(dict.fromkeys(found))[:number]


def _texts(dataset: Any, function: AlignFunction, vector: str, number: int) -> tuple[list[str], str]:
    for column in _columns(dataset.schema, function, vector):
        cells = _sample(dataset, column, 4 * number)
        texts = list(dict.fromkeys(cell for cell in cells if isinstance(cell, str) and cell.strip()))[:number]
        if column not in _NAMES and sum(" " in text.strip() for text in texts) < len(texts) / 2:
            continue  # codes and paths are not what anybody asks
        if function.source == "text":
            texts = [_first_half(text) for text in texts]
        if texts:
            return texts, f"texts of the column {column!r}"
    return vocabulary(number), "texts of a built-in vocabulary"


def _columns(schema: pa.Schema, function: AlignFunction, vector: str) -> list[str]:
    """Columns of words, likely ones first; the source of a text vector before all others."""
    sources = {str(entry.get("vector_column")): str(entry.get("source_column")) for entry in read_functions(schema)}
    if function.source == "text":
        return [sources[vector]] if sources.get(vector) in schema.names else []
    taken = {ID, URI, ERROR, CONTENT_HASH, *error_columns(schema).values(), sources.get(vector)}
    names = [
        field.name
        for field in schema
        if (pa.types.is_string(field.type) or pa.types.is_large_string(field.type)) and field.name not in taken
    ]
    return sorted(names, key=lambda name: _NAMES.index(name) if name in _NAMES else len(_NAMES))


def _first_half(text: str) -> str:
    words = text.split()
    return " ".join(words[: (len(words) + 1) // 2])


def _own_vectors(dataset: Any, vector: str, number: int) -> Vectors:
    cells = [cell for cell in _sample(dataset, vector, 2 * number) if cell is not None][:number]
    if not cells:
        return np.empty((0, dataset.schema.field(vector).type.list_size), np.float32)
    vectors = np.array(cells, np.float32)
    unit: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


def _sample(dataset: Any, column: str, number: int) -> list[Any]:
    rows = dataset.count_rows()
    places = sorted(random.Random(SEED).sample(range(rows), min(rows, number)))
    cells: list[Any] = dataset.take(places, columns=[column]).column(0).to_pylist() if places else []
    random.Random(SEED).shuffle(cells)
    return cells
