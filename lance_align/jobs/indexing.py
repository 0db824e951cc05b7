"""The indexes of a table after a job: its rows are in, whatever happens here."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

from lance_align.errors import LanceAlignError, MissingExtraError
from lance_align.jobs.checks import check_choices
from lance_align.jobs.failures import GO_ON, ray_errors
from lance_align.jobs.report import JobReport
from lance_align.tables.creation import open_table
from lance_align.tables.failures import LANCE_ERRORS, lance_failures
from lance_align.tables.handles import lancedb_table
from lance_align.tables.index_plan import TRAINING_ROWS, IndexPlan, plan_index
from lance_align.tables.index_report import IndexReport
from lance_align.tables.indexes import create_index
from lance_align.tables.location import TableLocation

# What a job does about indexes. auto: extends those that are there, and builds one where exact search is slow;
# distributed: the same, built by tasks on all nodes; none: nothing.
Indexing = Literal["auto", "distributed", "none"]
LANCE_RAY = "lance_ray"


def check_indexing(index: str) -> None:
    """Refuse what cannot be done before anything else is.

    Raises:
        ArgumentError: not one of `Indexing`.
        MissingExtraError: ``distributed``, and lance-ray is not installed.
    """
    check_choices(words=Indexing, index=index)
    if index == "distributed" and not _has_lance_ray():
        raise MissingExtraError(LANCE_RAY, "distributed")


def with_indexes(
    report: JobReport,
    location: TableLocation,
    vectors: Sequence[str],
    index: Indexing,
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> JobReport:
    """The report of a job, and what was done about the indexes of its vector columns after it; nothing is raised."""
    if index == "none":
        return report
    spread = index == "distributed" or (_nodes() > 1 and _has_lance_ray())
    for vector in vectors:
        needless = _needless(location, vector)
        if needless is not None:
            report = dataclasses.replace(report, indexes=(*report.indexes, needless))
            continue
        tell(f"indexing {vector}")
        from lance_align.indexing.building import build_index  # LanceDB takes seconds to import

        build = functools.partial(build_index, vector=vector, build=distributed_index if spread else create_index)
        report = _with_index(report, location, vector, build)
    return report


def _needless(location: TableLocation, vector: str) -> IndexReport | None:
    """What `build_index` says of a column that has no index and needs none; None of others, and of what fails."""
    try:
        dataset: Any = open_table(location.uri, storage_options=location.storage_options)
        if any(vector in index.field_names for index in dataset.describe_indices()):
            return None
        rows = int(dataset.count_rows())
        if plan_index(rows, dataset.schema.field(vector).type.list_size) is not None:
            return None
    except (LanceAlignError, AttributeError, KeyError, *LANCE_ERRORS):
        return None
    return IndexReport(vector=vector, action="none", rows=rows)


def with_text_index(report: JobReport, location: TableLocation, column: str) -> JobReport:
    """As `with_indexes`, of the full-text index of a column."""
    from lance_align.indexing.texts import build_text_index

    return _with_index(report, location, column, functools.partial(build_text_index, column=column))


def _with_index(
    report: JobReport, location: TableLocation, column: str, build: Callable[[Any], IndexReport]
) -> JobReport:
    version = report.table_version
    errors: tuple[type[BaseException], ...] = (LanceAlignError, MemoryError, ImportError, *LANCE_ERRORS)
    try:
        table = lancedb_table(location)
        found = build(table)
        version = max(version, int(table.version))
    except (*errors, *ray_errors("RayError")) as error:
        line = " ".join(str(error).split())[:300] or type(error).__name__
        found = IndexReport(vector=column, action="failed", error=line)
    return dataclasses.replace(report, indexes=(*report.indexes, found), table_version=version)


def index_objection(report: JobReport) -> str | None:
    """Why a run whose rows are all in counts as failed nonetheless, in one line; None if it does not."""
    failed = [each for each in report.indexes if each.action == "failed"]
    if not failed:
        return None
    names = ", ".join(repr(each.vector) for each in failed)
    return f"every row is in the table, but the index of {names} could not be built: {failed[0].error}; {GO_ON}"


def distributed_index(table: Any, vector: str, plan: IndexPlan, *, name: str) -> None:
    """As `create_index`, but tasks on all nodes of the cluster each index some of the fragments.

    Raises:
        TableError: it could not be built.
        MissingExtraError: lance-ray is not installed.
    """
    if not _has_lance_ray():
        raise MissingExtraError(LANCE_RAY, "distributed")
    from lance_ray import create_index as create

    table.checkout_latest()
    dataset = table.to_lance()
    with lance_failures(f"build an index ({plan.type}) of {vector!r} in", str(dataset.uri)):
        create(
            str(dataset.uri),
            vector,
            plan.type,
            name=name,
            replace=True,
            num_workers=max(1, min(_nodes(), len(dataset.get_fragments()))),
            storage_options=dataset.latest_storage_options(),
            metric="l2",
            num_partitions=plan.partitions,
            sample_rate=TRAINING_ROWS,
            **plan.options,
        )
    table.checkout_latest()


def _has_lance_ray() -> bool:
    return importlib.util.find_spec(LANCE_RAY) is not None


def _nodes() -> int:
    """Living nodes of the cluster."""
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return 1
    return sum(bool(node["Alive"]) for node in ray.nodes())
