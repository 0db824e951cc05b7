"""The index of a vector column: found, built, and extended by the rows that it lacks."""

from __future__ import annotations

import dataclasses
from typing import Any

from lance_align.errors import LanceAlignError
from lance_align.tables.conflicts import attempts, may_retry
from lance_align.tables.failures import LANCE_ERRORS, lance_failures
from lance_align.tables.index_plan import TRAINING_ROUNDS, TRAINING_ROWS, IndexPlan

# LanceDB's list of indexes spells the types in its own way.
_TYPES = {
    "IvfFlat": "IVF_FLAT",
    "IvfSq": "IVF_SQ",
    "IvfPq": "IVF_PQ",
    "IvfRq": "IVF_RQ",
    "IvfHnswSq": "IVF_HNSW_SQ",
    "IvfHnswPq": "IVF_HNSW_PQ",
    "IvfHnswFlat": "IVF_HNSW_FLAT",
}
MAX_BUILDS = 3  # of one index, where other writers get in between: each takes minutes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VectorIndex:
    """An index that is there.

    Attributes:
        name: of the index.
        type: for example ``IVF_SQ``.
        rows: that it covers, null vectors included.
        missing: rows of the table that it does not cover; LanceDB compares these one by one, so they are found as well.
    """

    name: str
    type: str
    rows: int
    missing: int


def vector_index(table: Any, vector: str) -> VectorIndex | None:
    """The index of a vector column, whoever built it; None where it has none.

    Raises:
        TableError: the table cannot be read.
    """
    with lance_failures("read the indexes of", str(table.name)):
        for index in table.list_indices():
            if list(index.columns) == [vector] and str(index.index_type).startswith("Ivf"):
                return VectorIndex(
                    name=index.name,
                    type=_TYPES.get(index.index_type, index.index_type),
                    rows=int(index.num_indexed_rows or 0),
                    missing=int(index.num_unindexed_rows or 0),
                )
    return None


def create_index(table: Any, vector: str, plan: IndexPlan, *, name: str) -> None:
    """Build an index on this machine, in place of one of the same name; the table is moved to the new version.

    Raises:
        TableError: LanceDB cannot build it, or other writers got in between each time.
    """
    with lance_failures(f"build an index ({plan.type}) of {vector!r} in", str(table.name)):
        for attempt in range(1, MAX_BUILDS + 1):
            table.checkout_latest()
            try:
                table.to_lance().create_index(
                    vector,
                    plan.type,
                    name=name,
                    metric="L2",
                    replace=True,
                    num_partitions=plan.partitions,
                    sample_rate=TRAINING_ROWS,
                    max_iters=TRAINING_ROUNDS,
                    **plan.options,
                )
                break
            except LANCE_ERRORS as error:
                if not may_retry(error) or attempt == MAX_BUILDS:
                    raise
        table.checkout_latest()


def extend_index(table: Any, name: str) -> None:
    """Sort the rows that an index lacks into its partitions; those that are in it are not trained again.

    Nothing else is done of what LanceDB's ``optimize`` does: no compaction, and no version is removed.

    Raises:
        TableError: it failed, or other writers got in between each time.
    """
    with lance_failures(f"extend the index {name!r} of", str(table.name)):
        _repeat(table, lambda dataset: dataset.optimize.optimize_indices(index_names=[name]))


def update_metadata(table: Any, change: Any) -> None:
    """Write entries of the schema metadata; `change` gives them for a schema, and is asked again after a conflict.

    Raises:
        TableError: it failed, or other writers got in between each time.
    """
    with lance_failures("write the metadata of", str(table.name)):
        _repeat(table, lambda dataset: dataset.update_schema_metadata(change(dataset.schema)))


def _repeat(table: Any, act: Any) -> None:
    for is_last in attempts():
        table.checkout_latest()
        try:
            act(table.to_lance())
            break
        except LANCE_ERRORS as error:
            if isinstance(error, LanceAlignError) or not may_retry(error) or is_last:
                raise
    table.checkout_latest()
