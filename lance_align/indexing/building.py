"""An index for a vector column, with its recall measured, and the settings that a search of it needs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

from lance_align.encoders.base import Vectors
from lance_align.errors import ArgumentError, TableError
from lance_align.indexing.recall import nearest, recall
from lance_align.indexing.sample import sample_queries
from lance_align.tables.handles import check_table, check_writable
from lance_align.tables.index_plan import has_outgrown, named_plan, plan_index
from lance_align.tables.index_report import TARGET_RECALL, Action, IndexReport
from lance_align.tables.indexes import VectorIndex, create_index, extend_index, update_metadata, vector_index
from lance_align.tables.layout import VECTOR
from lance_align.tables.names import quoted
from lance_align.tables.search_settings import IndexRecord, SearchSettings, metadata_with_record, read_record

# Rows that joined since the recall was measured, as a share of those there were then: more, and it is measured again.
MAX_STALE = 0.1

Build: TypeAlias = Callable[..., None]  # as `create_index`


def build_index(
    table: Any,
    *,
    vector: str = VECTOR,
    index: str = "auto",
    target_recall: float = TARGET_RECALL,
    build: Build = create_index,
) -> IndexReport:
    """Build the index of a vector column, or extend the one it has, and measure what it finds.

    Recall is measured with texts (see `lance_align.indexing.sample`) against exact search, with LanceDB's defaults
    first; where these find less than `target_recall`, more partitions are looked into and more rows compared by their
    full vectors, until they do or nothing helps. What was found is kept in the table's metadata, where
    `search_settings` reads it.

    Exact search reads the whole column once. Building makes two versions of the table, extending one; no other file
    than those of the index is written.

    Args:
        table: an open LanceDB table (of the synchronous API); it is moved to the new version.
        vector: the column.
        index: ``auto``: nothing where exact search is fast enough, else what `plan_index` says. An index that is there
            is extended, and built anew only if it was built here and the table has grown fourfold since. Or a type to
            build in its place: IVF_FLAT, IVF_SQ, IVF_PQ, IVF_RQ, IVF_HNSW_SQ or IVF_HNSW_PQ.
        target_recall: above 0, at most 1.
        build: what builds it; by default this machine.

    Raises:
        ArgumentError: no such type, or a target that is not a share.
        TableError: no such vector column, no vectors for the index that was asked for, the table stands at a version
            that was checked out, or LanceDB cannot build it.

    >>> lance_align.build_index(table).action  # exact search is fast enough
    'none'
    """
    if not 0 < target_recall <= 1:
        raise ArgumentError(f"target_recall={target_recall}; expected a number above 0, at most 1")
    check_writable(table)
    table.checkout_latest()
    dim = _dim(table, vector)
    there = vector_index(table, vector)
    if index == "auto":
        record = _record_of(table, vector, there)
        rows = int(table.count_rows())
        if there is not None and (record is None or not has_outgrown(rows, rows_when_built=record.rows)):
            return _extended(table, vector, there, record, target_recall)
        if plan_index(rows, dim) is None:
            return IndexReport(vector=vector, action="none", rows=rows)
    rows = int(table.count_rows(f"{quoted(vector)} IS NOT NULL"))  # may read the column
    plan = plan_index(rows, dim) if index == "auto" else named_plan(index, rows, dim)
    if plan is None:
        return IndexReport(vector=vector, action="none", rows=rows)
    if rows == 0:
        raise TableError(f"column {vector!r} of table {table.name!r} has no vectors; an index is trained on some")
    started = time.perf_counter()
    name = there.name if there is not None else f"{vector}_idx"
    build(table, vector, plan, name=name)
    build_s = time.perf_counter() - started
    record = IndexRecord(
        name=name,
        type=plan.type,
        partitions=plan.partitions,
        rows=rows,
        measured_rows=rows,
        recall=None,
        queries="",
        settings=SearchSettings(),
    )
    return _measured(table, vector, record, target_recall, action="built", build_s=build_s)


def search_settings(table: Any, *, vector: str = VECTOR) -> SearchSettings:
    """What `build_index` found that searches of a column need; LanceDB's defaults where it found none.

    Settings of an index that was replaced by somebody else's do not count.

    Raises:
        TableError: the table cannot be read.

    >>> settings = lance_align.search_settings(table)
    >>> len(settings.apply(table.search("red heart")).limit(5).to_list())
    5
    """
    check_table(table)
    record = _record_of(table, vector, vector_index(table, vector))
    return SearchSettings() if record is None else record.settings


def _dim(table: Any, vector: str) -> int:
    schema: pa.Schema = table.schema
    if vector not in schema.names or not pa.types.is_fixed_size_list(schema.field(vector).type):
        raise TableError(f"table {table.name!r} has no vector column {vector!r}; it has {', '.join(schema.names)}")
    kind: Any = schema.field(vector).type
    return int(kind.list_size)


def _record_of(table: Any, vector: str, there: VectorIndex | None) -> IndexRecord | None:
    record = read_record(table.schema, vector)
    if record is None or there is None or (record.name, record.type) != (there.name, there.type):
        return None
    return record


def _extended(
    table: Any, vector: str, there: VectorIndex, record: IndexRecord | None, target_recall: float
) -> IndexReport:
    started = time.perf_counter()
    if there.missing:
        extend_index(table, there.name)
    build_s = time.perf_counter() - started if there.missing else 0.0
    action: Action = "extended" if there.missing else "kept"
    rows = there.rows + there.missing
    if record is not None and rows > (1 + MAX_STALE) * record.measured_rows:
        record = dataclasses.replace(record, measured_rows=rows)
        measured = _measured(table, vector, record, target_recall, action=action, build_s=build_s)
        return dataclasses.replace(measured, rows=rows, added=there.missing)
    report = IndexReport(vector=vector, action=action, type=there.type, rows=rows, added=there.missing, build_s=build_s)
    if record is None:
        return report
    return dataclasses.replace(
        report, partitions=record.partitions, recall=record.recall, queries=record.queries, settings=record.settings
    )


def _measured(
    table: Any, vector: str, record: IndexRecord, target_recall: float, *, action: Action, build_s: float
) -> IndexReport:
    """Find the settings, keep them in the table, and report."""
    started = time.perf_counter()
    queries = sample_queries(table, vector)
    settings, found = SearchSettings(), None
    if len(queries.vectors):
        truth = nearest(table.to_lance(), vector, queries.vectors)
        settings, found = choose_settings(
            table, vector, queries.vectors, truth, index_type=record.type, target_recall=target_recall
        )
    record = dataclasses.replace(record, recall=found, queries=queries.said, settings=settings)
    update_metadata(table, lambda schema: metadata_with_record(schema, vector, record))
    return IndexReport(
        vector=vector,
        action=action,
        type=record.type,
        partitions=record.partitions,
        rows=record.rows,
        recall=found,
        queries=queries.said,
        settings=settings,
        build_s=build_s,
        measure_s=time.perf_counter() - started,
    )


def choose_settings(
    table: Any,
    vector: str,
    queries: Vectors,
    truth: Sequence[frozenset[int]],
    *,
    index_type: str = "IVF_SQ",
    target_recall: float = TARGET_RECALL,
) -> tuple[SearchSettings, float]:
    """The first settings that reach a recall, else those that come nearest to it; and the recall they reach.

    Args:
        queries: ``(n, dim) float32``, n at least 1.
        truth: of these queries, see `lance_align.indexing.recall.nearest`.

    Raises:
        TableError: the search failed.
    """
    tried: dict[SearchSettings, float] = {}
    for candidate in _candidates(index_type):
        tried[candidate] = recall(table, vector, queries, truth, candidate)
        if tried[candidate] >= target_recall:
            break
    best = max(tried, key=lambda each: tried[each])
    return best, tried[best]


def _candidates(index_type: str) -> Iterator[SearchSettings]:
    """Settings to try, LanceDB's own first, then by what they cost."""
    yield SearchSettings()
    steps: list[tuple[int | None, int | None, int | None]]
    if "HNSW" in index_type:
        steps = [(None, 4, None), (None, 4, 100), (None, 4, 300), (40, 4, 300), (160, 8, 1000)]
    elif index_type == "IVF_FLAT":  # compares full vectors already
        steps = [(40, None, None), (80, None, None), (160, None, None), (320, None, None)]
    else:
        steps = [(None, 4, None), (40, None, None), (40, 4, None), (80, 4, None), (80, 10, None), (160, 10, None)]
        steps.append((320, 20, None))
    for nprobes, refine_factor, ef in steps:
        yield SearchSettings(nprobes=nprobes, refine_factor=refine_factor, ef=ef)
