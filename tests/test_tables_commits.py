"""Rows land once, whoever else writes; what cannot land says why and leaves the table as it was."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import lance
import lancedb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lance_align.errors import JobError, TableError
from lance_align.tables.commits import Committer, Landed
from lance_align.tables.done import RowCounts, count_rows, read_done_ids
from lance_align.tables.fragments import write_fragments
from lance_align.tables.location import table_location
from lance_align.tables.metadata import TABLE_KEY
from lance_align.tables.schema import Layout, table_schema
from lance_align.testing import FAKE_SPEC

SCHEMA = table_schema(pa.schema([pa.field("caption", pa.string())]), Layout(), FAKE_SPEC)


def some(*ids: str, caption: str | None = None, error: str | None = None) -> pa.Table:
    """Rows without vectors; what is tested here does not look at them."""
    return pa.table({"id": list(ids), "caption": [caption] * len(ids), "error": [error] * len(ids)}).cast(
        pa.schema([SCHEMA.field(name) for name in ("id", "caption", "error")])
    )


def ids_of(uri: str) -> list[str]:
    return [name for batch in read_done_ids(uri) for name in batch.to_pylist()]


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return table_location(tmp_path, "photos").uri


def test_a_new_table_is_empty_and_complete(uri: str) -> None:
    committer = Committer.open_or_create(uri, SCHEMA)
    assert committer.created
    assert committer.version == 1
    metadata = dict(committer.schema.metadata)
    assert len(metadata.pop(TABLE_KEY)) == 32
    assert committer.schema.with_metadata(metadata).equals(SCHEMA, check_metadata=True)
    assert ids_of(uri) == []
    assert count_rows(uri) == RowCounts(embedded=0, failed=0)
    assert lance.dataset(uri).data_storage_version == "2.2"
    assert not Committer.open_or_create(uri, SCHEMA).created


def test_rows_are_invisible_until_they_are_committed(uri: str) -> None:
    committer = Committer.open_or_create(uri, SCHEMA)
    fragments = write_fragments(uri, some("a", "b")) + write_fragments(uri, some("c", error="null: no image"))
    assert ids_of(uri) == []
    assert committer.commit(fragments, rows=3) == Landed(version=2, rows=3)
    assert sorted(ids_of(uri)) == ["a", "b", "c"]
    assert count_rows(uri) == RowCounts(embedded=2, failed=1)
    assert count_rows(uri, version=1).total == 0


def test_no_rows_make_no_version(uri: str) -> None:
    committer = Committer.open_or_create(uri, SCHEMA)
    assert write_fragments(uri, some()) == []
    assert committer.commit([], rows=0) == Landed(version=1, rows=0)


def test_fragments_committed_again_do_not_land_again(uri: str) -> None:
    committer = Committer.open_or_create(uri, SCHEMA)
    first, second = write_fragments(uri, some("a")), write_fragments(uri, some("b"))
    committer.commit(first, rows=1)
    committer.commit(first, rows=1)
    committer.commit(first + second + second, rows=3)
    Committer.open_or_create(uri, SCHEMA).commit(first + second, rows=2)
    assert ids_of(uri) == ["a", "b"]
    assert committer.version == 3


def test_a_lost_row_stops_the_commit(uri: str) -> None:
    committer = Committer.open_or_create(uri, SCHEMA)
    with pytest.raises(JobError, match="hold 2 rows, but 3 were written"):
        committer.commit(write_fragments(uri, some("a", "b")), rows=3)
    assert ids_of(uri) == []


@pytest.mark.parametrize("race", range(10))
def test_of_many_creators_one_wins_and_all_can_write(uri: str, race: int) -> None:
    start = threading.Barrier(8)

    def create(name: str) -> bool:
        start.wait()
        committer = Committer.open_or_create(uri, SCHEMA)
        committer.commit(write_fragments(uri, some(name)), rows=1)
        return committer.created

    with ThreadPoolExecutor(8) as threads:
        created = list(threads.map(create, "abcdefgh"))
    assert created.count(True) == 1, f"race {race}"
    assert sorted(ids_of(uri)) == list("abcdefgh")


def test_two_writers_and_maintenance_between_them(tmp_path: Path, uri: str) -> None:
    one, two = Committer.open_or_create(uri, SCHEMA), Committer.open_or_create(uri, SCHEMA)
    table = lancedb.connect(tmp_path).open_table("photos")
    for turn in range(3):
        one.commit(write_fragments(uri, some(f"one-{turn}")), rows=1)
        two.commit(write_fragments(uri, some(f"two-{turn}")), rows=1)
        table.checkout_latest()
        table.optimize(cleanup_older_than=timedelta(milliseconds=1))
    assert sorted(ids_of(uri)) == [f"{name}-{turn}" for name in ("one", "two") for turn in range(3)]


def test_columns_added_meanwhile_are_null_in_new_rows(uri: str) -> None:
    committer = Committer.open_or_create(uri, SCHEMA)
    fragments = write_fragments(uri, some("a"))
    lance.dataset(uri).add_columns(pa.field("label", pa.string()))
    committer.commit(fragments, rows=1)
    assert lance.dataset(uri).to_table(columns=["id", "label"]).to_pylist() == [{"id": "a", "label": None}]
    assert Committer.open_or_create(uri, SCHEMA).commit(write_fragments(uri, some("b")), rows=1).version == 4


def overwrite(uri: str) -> None:
    lance.write_dataset(SCHEMA.empty_table(), uri, mode="overwrite")


def roll_back(uri: str) -> None:
    lance.dataset(uri, version=1).restore()


def drop_a_column(uri: str) -> None:
    lance.dataset(uri).drop_columns(["caption"])


@pytest.mark.parametrize(
    ("change", "said"),
    [(overwrite, "overwritten or rolled back"), (roll_back, "overwritten or rolled back"), (drop_a_column, "dropped")],
)
def test_a_table_replaced_meanwhile_is_left_alone(uri: str, change: Callable[[str], None], said: str) -> None:
    committer = Committer.open_or_create(uri, SCHEMA)
    committer.commit(write_fragments(uri, some("a")), rows=1)
    fragments = write_fragments(uri, some("b"))
    change(uri)
    before = lance.dataset(uri).version
    with pytest.raises(TableError, match=f"{said}.*run"):
        committer.commit(fragments, rows=1)
    assert lance.dataset(uri).version == before


@pytest.mark.parametrize("versions", [1, 2, 3])
def test_a_table_made_anew_meanwhile_is_left_alone(uri: str, versions: int) -> None:
    committer = Committer.open_or_create(uri, SCHEMA)
    committer.commit(write_fragments(uri, some("a")), rows=1)
    shutil.rmtree(uri)
    for number in range(versions):
        Committer.open_or_create(uri, SCHEMA).commit(write_fragments(uri, some(str(number))), rows=1)
    fragments = write_fragments(uri, some("b"))
    with pytest.raises(TableError, match="replaced by another writer; run the same command again"):
        committer.commit(fragments, rows=1)
    assert ids_of(uri) == [str(number) for number in range(versions)]


def test_a_table_removed_meanwhile(uri: str) -> None:
    committer = Committer.open_or_create(uri, SCHEMA)
    fragments = write_fragments(uri, some("a"))
    shutil.rmtree(uri)
    with pytest.raises(TableError, match="could not commit to"):
        committer.commit(fragments, rows=1)
    with pytest.raises(TableError, match=r"could not write rows to .*the table is not there"):
        write_fragments(uri, some("b"))
    assert not Path(uri, "data").exists()


@pytest.mark.parametrize("read", [lambda uri: list(read_done_ids(uri)), count_rows])
def test_reading_a_table_that_is_not_there(uri: str, read: Callable[[str], object]) -> None:
    with pytest.raises(TableError, match="the table is not there: check the database and the name"):
        read(uri)


def test_another_model_or_other_columns_leave_the_table_as_it_was(uri: str) -> None:
    Committer.open_or_create(uri, SCHEMA)
    other = table_schema(pa.schema([]), Layout(), dataclasses.replace(FAKE_SPEC, fingerprint="other"))
    with pytest.raises(TableError, match="fingerprint other"):
        Committer.open_or_create(uri, other)
    with pytest.raises(TableError, match="no column 'label'"):
        Committer.open_or_create(uri, table_schema(pa.schema([pa.field("label", pa.string())]), Layout(), FAKE_SPEC))
    assert lance.dataset(uri).version == 1


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (some("a").append_column("extra", pa.array([1])), "extra"),
        (some("a").set_column(1, "caption", pa.array([1])), "caption"),
        (some("a").set_column(0, "id", pa.array([None], pa.string())), "id"),
    ],
)
def test_rows_that_do_not_fit_are_refused(uri: str, rows: pa.Table, said: str) -> None:
    Committer.open_or_create(uri, SCHEMA)
    with pytest.raises(TableError, match=f"{said}.*the rows do not fit the table's columns"):
        write_fragments(uri, rows)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(TableError, match="a file stands where a directory is needed"):
        Committer.open_or_create(table_location(tmp_path / "file", "photos").uri, SCHEMA)
    with pytest.raises(TableError, match="no permission to write there"):  # /sys refuses even the superuser
        Committer.open_or_create("/sys/photos.lance", SCHEMA)
    with pytest.raises(TableError, match="path is too long: choose a shorter table name"):
        Committer.open_or_create(table_location(tmp_path, "x" * 300).uri, SCHEMA)


LIMITED = """
import resource, sys
import pyarrow as pa
from lance_align.errors import TableError
from lance_align.tables.commits import Committer, Landed
from lance_align.tables.fragments import write_fragments

uri = sys.argv[1]
schema = pa.schema([pa.field("id", pa.string(), nullable=False)])
committer = Committer.open_or_create(uri, schema)
committer.commit(write_fragments(uri, pa.table({"id": ["a"]}, schema=schema)), rows=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
ids = [f"{number:0999x}" for number in range(9000)]
try:
    write_fragments(uri, pa.table({"id": ids}, schema=schema))
except TableError as error:
    print(error)
"""


def test_no_room_leaves_the_table_at_its_last_commit(uri: str) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, uri], capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    assert "could not write rows to" in line
    assert "allows no larger file" in line
    assert ids_of(uri) == ["a"]


text = st.text() | st.sampled_from(["'; DROP TABLE photos; --", "../../etc/passwd", "a\0b", "‮abc", "x" * 100_000])


@given(ids=st.lists(text, unique=True, min_size=1, max_size=5), caption=st.none() | text)
@settings(max_examples=15, deadline=None)
def test_any_text_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str], caption: str | None
) -> None:
    uri = table_location(tmp_path_factory.mktemp("db"), "photos").uri
    Committer.open_or_create(uri, SCHEMA).commit(write_fragments(uri, some(*ids, caption=caption)), rows=len(ids))
    assert ids_of(uri) == ids
    assert lance.dataset(uri).to_table(columns=["caption"]).column(0).to_pylist() == [caption] * len(ids)


def test_ids_are_streamed_in_batches(uri: str) -> None:
    ids = [str(number) for number in range(1000)]
    Committer.open_or_create(uri, SCHEMA).commit(write_fragments(uri, some(*ids)), rows=1000)
    batches = list(read_done_ids(uri, batch_rows=100))
    assert max(map(len, batches)) <= 100
    assert [name for batch in batches for name in batch.to_pylist()] == ids
    assert all(isinstance(batch, pa.StringArray) for batch in batches)
