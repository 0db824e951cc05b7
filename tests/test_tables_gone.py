"""Rows leave on request: the right ones, whatever their ids are, and none that another writer has just brought."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

from lance_align.tables.commits import Committer
from lance_align.tables.fragments import write_fragments
from lance_align.tables.gone import list_gone, remove_gone
from lance_align.tables.location import table_location
from lance_align.tables.schema import Layout, table_schema
from lance_align.testing import FAKE_SPEC

SCHEMA = table_schema(pa.schema([pa.field("caption", pa.string())]), Layout(), FAKE_SPEC)
NASTY = ["') OR 1=1 --", "\0", "", "é" * 10_000, "\u202eabc", "100%_"]


def some(*ids: str, caption: str = "old") -> pa.Table:
    schema = pa.schema([SCHEMA.field(name) for name in ("id", "caption")])
    return pa.table({"id": list(ids), "caption": [caption] * len(ids)}, schema=schema)


def without(*kept: str) -> Any:
    """All ids are gone but these."""
    return lambda ids: np.array([name not in kept for name in ids.to_pylist()], dtype=bool)


def rows_of(uri: str) -> list[tuple[str, str]]:
    table = lance.dataset(uri).to_table(columns=["id", "caption"])
    return sorted(zip(table.column("id").to_pylist(), table.column("caption").to_pylist(), strict=True))


def ids_of(uri: str) -> list[str]:
    return [name for name, _ in rows_of(uri)]


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """A table of two fragments: hostile ids with `a` among them, and `b`, `c`."""
    uri = table_location(tmp_path, "photos").uri
    committer = Committer.open_or_create(uri, SCHEMA)
    committer.commit(write_fragments(uri, some(*NASTY, "a")), rows=7)
    committer.commit(write_fragments(uri, some("b", "c")), rows=2)
    return uri


def test_gone_rows_are_counted_and_the_first_listed(uri: str) -> None:
    version = lance.dataset(uri).version
    gone = list_gone(uri, without("a", "b"), version=version, limit=3)
    assert (gone.rows, gone.ids) == (7, tuple(NASTY[:3]))
    assert list_gone(uri, without(*ids_of(uri)), version=version, limit=3).rows == 0
    assert list_gone(uri, without(), version=1, limit=3).rows == 0


def test_exactly_the_gone_rows_leave_in_one_version(uri: str) -> None:
    version = lance.dataset(uri).version
    removed = remove_gone(uri, without("a", NASTY[0]), version=version)  # a part of one fragment, all of the other
    assert (removed.rows, removed.version) == (7, version + 1)
    assert ids_of(uri) == sorted(["a", NASTY[0]])
    again = remove_gone(uri, without("a", NASTY[0]), version=version)
    assert (again.rows, again.version) == (0, version + 1)
    assert remove_gone(uri, without(), version=version).rows == 2
    lance.dataset(uri).validate()
    assert ids_of(uri) == []


def test_what_others_brought_since_stays(uri: str) -> None:
    version = lance.dataset(uri).version
    other = lance.dataset(uri)
    other.delete("id = 'b'")
    other.insert(some("b", "new", caption="theirs"))
    other.merge_insert("id").when_matched_update_all().execute(some("c", caption="theirs"))
    assert remove_gone(uri, without("a"), version=version).rows == len(NASTY)
    assert rows_of(uri) == [("a", "old"), ("b", "theirs"), ("c", "theirs"), ("new", "theirs")]


def test_rows_that_a_compaction_moved_wait_for_the_next_run(uri: str) -> None:
    version = lance.dataset(uri).version
    lance.dataset(uri).optimize.compact_files()
    assert remove_gone(uri, without("a"), version=version).rows == 0
    assert len(ids_of(uri)) == 9
    assert remove_gone(uri, without("a"), version=lance.dataset(uri).version).rows == 8
    assert ids_of(uri) == ["a"]


def test_beside_busy_writers(uri: str) -> None:
    version = lance.dataset(uri).version
    ended = threading.Event()

    def others() -> None:
        for turn in range(1000):
            if ended.is_set():
                return
            other = lance.dataset(uri)
            other.insert(some(f"new-{turn}"))
            other.delete(f"id = 'new-{turn - 1}' OR id = '{NASTY[-1]}'")

    writer = threading.Thread(target=others)
    writer.start()
    try:
        removed = remove_gone(uri, without("a"), version=version)
    finally:
        ended.set()
        writer.join()
    assert removed.rows in (7, 8)  # one of them the other writer deletes too
    assert [name for name in ids_of(uri) if not name.startswith("new-")] == ["a"]
