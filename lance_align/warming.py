"""What a server does before its first query: load the model and the index that queries will use."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from lance_align.errors import TableError
from lance_align.functions import table_function
from lance_align.indexing.building import search_settings
from lance_align.tables.failures import lance_failures
from lance_align.tables.handles import dataset_of
from lance_align.tables.indexes import vector_index
from lance_align.tables.layout import VECTOR
from lance_align.tables.search_settings import SearchSettings
from lance_align.told import Told


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp(Told):
    """What was loaded, and how long it took.

    Attributes:
        model: the name of the model.
        index: the name of the index; None where the column has none.
        settings: see `lance_align.search_settings`.
        text_s: seconds to load the text tower and embed a text.
        image_s: seconds to load the image tower and embed a picture; None where it was not asked for.
        index_s: seconds to read the index and search once.

    >>> print(lance_align.warm_up(table).to_text())
    warm: align-tiny, text tower in ... s, exact search in ... s
    """

    model: str
    index: str | None
    settings: SearchSettings
    text_s: float
    image_s: float | None
    index_s: float

    def to_text(self) -> str:
        """One line for a person."""
        image = "" if self.image_s is None else f", image tower in {self.image_s:.1f} s"
        index = f"index {self.index}" if self.index else "exact search"
        settings = f'; search with table.search("…"){self.settings}' if str(self.settings) else ""
        return (
            f"warm: {self.model}, text tower in {self.text_s:.1f} s{image}, {index} in {self.index_s:.1f} s{settings}"
        )


def warm_up(table: Any, *, vector: str = VECTOR, images: bool = False) -> WarmUp:
    """Load what searches of a table need, so that the first query is as fast as the next.

    The model stays in this process, the index in the cache of this table handle's connection: search with the same
    handle. Calling it again costs a search.

    Args:
        table: an open LanceDB table (of the synchronous API).
        vector: the column that will be searched.
        images: load the image tower too, for queries that are pictures.

    Raises:
        TableError: the table names no model of ours for the column, or cannot be read.
        ModelError: the model cannot be loaded.

    >>> lance_align.warm_up(table, images=True).model
    'align-tiny'
    """
    dataset_of(table)  # says what is wrong with tables of another kind
    function = table_function(table.schema, vector)
    if function is None:
        raise TableError(f"table {table.name!r} does not say which model wrote {vector!r}; see lance_align.attach")
    started = time.perf_counter()
    (query,) = function.compute_query_embeddings("warm up")
    text_s = time.perf_counter() - started
    image_s = None
    if images:
        started = time.perf_counter()
        encoder = function.encoder()
        encoder.encode_pixels(np.zeros((1, *encoder.spec.image.shape), np.uint8))
        image_s = time.perf_counter() - started
    started = time.perf_counter()
    index = vector_index(table, vector)
    settings = search_settings(table, vector=vector)
    with lance_failures("search", str(table.name)):
        if index is not None:
            table.prewarm_index(index.name)
        settings.apply(table.search(query, vector_column_name=vector)).limit(10).to_arrow()
    return WarmUp(
        model=function.name,
        index=None if index is None else index.name,
        settings=settings,
        text_s=text_s,
        image_s=image_s,
        index_s=time.perf_counter() - started,
    )
