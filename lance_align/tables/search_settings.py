"""How an index is to be searched, kept in the table's schema metadata beside the model."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pyarrow as pa

SETTINGS_KEY = b"lance_align:search"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """What to write behind ``table.search(...)`` for an index to find what exact search finds.

    Attributes:
        nprobes: partitions to look into; None for LanceDB's default.
        refine_factor: how many times as many rows as asked for are compared by their full vectors; None for none.
        ef: of an HNSW index: candidates kept while it is searched; None for LanceDB's default.

    >>> str(lance_align.SearchSettings(nprobes=40, refine_factor=4))
    '.nprobes(40).refine_factor(4)'
    """

    nprobes: int | None = None
    refine_factor: int | None = None
    ef: int | None = None

    def apply(self, search: Any) -> Any:
        """The query that ``table.search(...)`` returned, with these settings.

        >>> settings = lance_align.search_settings(table)
        >>> settings.apply(table.search("a red car")).limit(10).to_list()[0]["vector"]
        [...]
        """
        for name, value in dataclasses.asdict(self).items():
            if value is not None:
                search = getattr(search, name)(value)
        return search

    def __str__(self) -> str:
        """As a user writes it: ``.nprobes(40).refine_factor(4)``; empty for LanceDB's defaults."""
        return "".join(f".{name}({value})" for name, value in dataclasses.asdict(self).items() if value is not None)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IndexRecord:
    """What is known of an index that was built here; it holds for an index of this name, type and partitions only.

    Attributes:
        name: of the index.
        type: of the index, as LanceDB says it.
        partitions: as it was built.
        rows: vectors it was built from.
        measured_rows: vectors there were when the recall was measured.
        recall: recall@10 against exact search with these settings, 0 to 1; None where it was not measured.
        queries: what it was measured with, in words.
        settings: how to search.
    """

    name: str
    type: str
    partitions: int
    rows: int
    measured_rows: int
    recall: float | None
    queries: str
    settings: SearchSettings


def read_record(schema: pa.Schema, vector: str) -> IndexRecord | None:
    """The record of a vector column's index; None where there is none, or none that can be understood.

    A damaged record costs no more than its settings: searching works without, and the next build writes another.
    """
    raw = _read_all(schema).get(vector)
    try:
        record = IndexRecord(**{**raw, "settings": SearchSettings(**raw["settings"])}) if raw is not None else None
    except (TypeError, KeyError):
        return None
    return record if record is not None and _is_sound(record) else None


def metadata_with_record(schema: pa.Schema, vector: str, record: IndexRecord | None) -> dict[str, str]:
    """The entry of a table's schema metadata that holds all its records, with one of them replaced or left out."""
    others = {name: raw for name, raw in _read_all(schema).items() if name != vector}
    if record is not None:
        others[vector] = dataclasses.asdict(record)
    return {SETTINGS_KEY.decode(): json.dumps(others, sort_keys=True)}


def _read_all(schema: pa.Schema) -> dict[str, Any]:
    try:
        raw = json.loads((schema.metadata or {}).get(SETTINGS_KEY, b"{}"))
    except (ValueError, RecursionError):
        return {}
    return raw if isinstance(raw, dict) else {}


def _is_sound(record: IndexRecord) -> bool:
    numbers = (record.partitions, record.rows, record.measured_rows)
    given = [value for value in dataclasses.asdict(record.settings).values() if value is not None]
    return (
        all(isinstance(text, str) for text in (record.name, record.type, record.queries))
        and all(type(value) is int and value >= 0 for value in numbers)
        and all(type(value) is int and 0 < value <= 1_000_000 for value in given)
        and (record.recall is None or isinstance(record.recall, (int, float)))
    )
