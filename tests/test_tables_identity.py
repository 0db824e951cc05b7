"""A table that another writer rolls back or replaces between two commits is noticed, also where its history is gone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest

from lance_align.errors import TableError
from lance_align.tables.commits import Committer
from lance_align.tables.filling import ADDRESS, Filler
from lance_align.tables.fragments import write_fragments
from lance_align.tables.layout import Layout
from lance_align.tables.location import table_location
from lance_align.tables.schema import table_schema
from lance_align.testing import FAKE_SPEC

SCHEMA = table_schema(pa.schema([pa.field("caption", pa.string())]), Layout(embed="text", text="caption"), FAKE_SPEC)
PLAIN = pa.schema(SCHEMA, metadata=None)
BATCH = 20  # rows of a commit batch


def rows(start: int, stop: int) -> pa.Table:
    names = [f"r{number}" for number in range(start, stop)]
    empty = {name: pa.nulls(len(names), PLAIN.field(name).type) for name in PLAIN.names[2:]}
    return pa.table({"id": names, "caption": names, **empty}, schema=PLAIN)


def commit(committer: Committer, start: int, stop: int) -> int:
    """Two data files a batch, as two workers write them."""
    middle = (start + stop) // 2
    uri = committer.uri
    fragments = write_fragments(uri, rows(start, middle)) + write_fragments(uri, rows(middle, stop))
    return committer.commit(fragments, rows=stop - start).rows


def add(uri: str, start: int, number: int = 3) -> None:
    """What another program adds, a version a row."""
    for at in range(start, start + number):
        lance.write_dataset(rows(at, at + 1), uri, mode="append")


def clean(uri: str) -> None:
    """No version but the latest is left."""
    lance.dataset(uri).cleanup_old_versions(older_than=timedelta(0), delete_unverified=False)


def compact(uri: str) -> None:
    lance.dataset(uri).optimize.compact_files()


def count(uri: str) -> int:
    return int(lance.dataset(uri).count_rows())


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return table_location(tmp_path, "photos").uri


def restore_the_first(uri: str) -> None:
    """Before all rows of the run."""
    lance.dataset(uri, version=1).restore()


def restore(uri: str) -> None:
    """Between two batches of the run."""
    lance.dataset(uri, version=2).restore()


def overwrite(uri: str) -> None:
    lance.write_dataset(SCHEMA.empty_table(), uri, mode="overwrite")


def overwrite_with_its_own_schema(uri: str) -> None:
    lance.write_dataset(lance.dataset(uri).schema.empty_table(), uri, mode="overwrite")


def create_anew(uri: str) -> None:
    shutil.rmtree(uri)
    Committer.open_or_create(uri, SCHEMA)


Replace = Callable[[str], None]
REPLACED = pytest.mark.parametrize(
    "replace", [restore_the_first, restore, overwrite, overwrite_with_its_own_schema, create_anew]
)


@REPLACED
@pytest.mark.parametrize("cleaned", [False, True])
def test_a_table_replaced_between_two_batches(uri: str, replace: Replace, cleaned: bool) -> None:
    committer = Committer.open_or_create(uri, SCHEMA)
    commit(committer, 0, BATCH)
    commit(committer, BATCH, 2 * BATCH)
    replace(uri)
    add(uri, 1000)
    if cleaned:
        clean(uri)
    before = count(uri)
    with pytest.raises(TableError, match="run the same command again"):
        commit(committer, 2 * BATCH, 3 * BATCH)
    assert count(uri) == before  # nothing was added to what nobody asked for
    again = Committer.open_or_create(uri, SCHEMA)
    assert commit(again, 2 * BATCH, 3 * BATCH) == BATCH


@REPLACED
def test_a_table_replaced_before_the_first_batch(uri: str, replace: Replace) -> None:
    """The run has read which ids are there: rows that it leaves out for them would be lost."""
    first = Committer.open_or_create(uri, SCHEMA)
    commit(first, 0, BATCH // 2)
    commit(first, BATCH // 2, BATCH)
    committer = Committer.open_or_create(uri, SCHEMA)
    replace(uri)
    add(uri, 1000)
    clean(uri)
    with pytest.raises(TableError, match="run the same command again"):
        commit(committer, BATCH, 2 * BATCH)


def delete_some(uri: str) -> None:
    lance.dataset(uri).delete("id IN ('r0', 'r1', 'r25')")


def delete_a_file(uri: str) -> None:
    """All rows of one data file of the last batch: its fragment is gone."""
    lance.dataset(uri).delete(f"id IN ({', '.join(repr(f'r{at}') for at in range(30, 40))})")


def rewrite(uri: str) -> None:
    """Every row moves, as with another program's update."""
    lance.dataset(uri).update({"caption": "'changed'"})


def index(uri: str) -> None:
    lance.dataset(uri).create_scalar_index("id", "BTREE", replace=True)


HARMLESS = [
    (compact,),
    (delete_some,),
    (delete_some, compact),
    (delete_a_file,),
    (delete_a_file, compact),
    (rewrite,),
    (index, compact),
    (rewrite, compact, delete_some, compact),
]


@pytest.mark.parametrize("acts", HARMLESS, ids=lambda acts: "+".join(act.__name__ for act in acts))
def test_maintenance_and_deletes_of_others_are_harmless(uri: str, acts: tuple[Any, ...]) -> None:
    committer = Committer.open_or_create(uri, SCHEMA)
    commit(committer, 0, BATCH)
    commit(committer, BATCH, 2 * BATCH)
    for turn in range(2):  # what was found once is found again
        for act in acts:
            act(uri)
            add(uri, 1000 + 100 * turn)
            clean(uri)
        before = count(uri)
        assert commit(committer, (2 + turn) * BATCH, (3 + turn) * BATCH) == BATCH
        assert count(uri) == before + BATCH


def test_a_batch_that_others_wrote_wholly_leaves_a_trace_too(uri: str) -> None:
    committer = Committer.open_or_create(uri, SCHEMA)
    commit(committer, 0, BATCH)
    add(uri, BATCH, 4)
    assert commit(committer, BATCH, BATCH + 4) == 0  # theirs stay
    restore(uri)
    add(uri, 1000)
    clean(uri)
    with pytest.raises(TableError, match="run the same command again"):
        commit(committer, 2 * BATCH, 3 * BATCH)


def test_tables_of_before_there_were_ids_of_tables(uri: str) -> None:
    creation = lance.Transaction(read_version=0, operation=lance.LanceOperation.Overwrite(SCHEMA, []))
    lance.LanceDataset.commit(uri, creation)
    committer = Committer.open_or_create(uri, SCHEMA)
    commit(committer, 0, BATCH)
    compact(uri)
    clean(uri)
    assert commit(committer, BATCH, 2 * BATCH) == BATCH
    shutil.rmtree(uri)
    lance.LanceDataset.commit(uri, creation)
    add(uri, 1000, 5)
    clean(uri)
    with pytest.raises(TableError, match="run the same command again"):
        commit(committer, 2 * BATCH, 3 * BATCH)


def test_a_column_that_may_not_be_null_between_two_batches(uri: str) -> None:
    """Lance commits such rows, and then nobody can read the table."""
    committer = Committer.open_or_create(uri, SCHEMA)
    fragments = write_fragments(uri, rows(0, 4))
    lance.dataset(uri).add_columns({"kind": "'bird'"})
    with pytest.raises(TableError, match=r"'kind'.*may not be null.*alter_columns"):
        committer.commit(fragments, rows=4)
    lance.dataset(uri).alter_columns({"path": "kind", "nullable": True})
    assert committer.commit(fragments, rows=4).rows == 4
    assert lance.dataset(uri).to_table(columns=["kind"]).column(0).null_count == 4


def fill(filler: Filler, fragment: int, table: pa.Table) -> int:
    return filler.fill({fragment: table}).rows


def reasons(filler: Filler, fragment: int) -> pa.Table:
    """A reason for each empty row of a fragment: what a backfill writes where there is no vector."""
    dataset = lance.dataset(filler.uri)
    parts = [dataset.get_fragment(fragment)]
    scanner = dataset.scanner(columns=[], filter="error IS NULL", fragments=parts, with_row_address=True)
    addresses = scanner.to_table().column(ADDRESS)
    kind = dataset.schema.field("vector").type
    return pa.table(
        {
            ADDRESS: addresses,
            "vector": pa.nulls(len(addresses), kind),
            "error": [f"null: {int(address) >> 32}" for address in addresses.to_pylist()],
        }
    )


@REPLACED
def test_a_backfill_fills_what_is_there_in_the_end(uri: str, replace: Replace) -> None:
    """It looks again after its last batch, so what a rollback took is filled anew; and no row gets another's value."""
    committer = Committer.open_or_create(uri, SCHEMA)
    commit(committer, 0, BATCH)
    commit(committer, BATCH, 2 * BATCH)
    filler = Filler(uri, "vector")
    assert filler.survey().empty == 2 * BATCH
    waiting = reasons(filler, 1)
    assert fill(filler, 0, reasons(filler, 0)) == BATCH // 2
    replace(uri)
    add(uri, 1000)
    clean(uri)
    expected = BATCH // 2 if replace is restore else 0  # of other fragments than those that were read, none
    assert fill(filler, 1, waiting) == expected
    survey = filler.survey()
    assert survey.empty == count(uri) - expected
    for gap in survey.gaps:
        assert fill(filler, gap.fragment, reasons(filler, gap.fragment)) == gap.empty
    assert filler.survey().empty == 0


@pytest.mark.parametrize("acts", HARMLESS, ids=lambda acts: "+".join(act.__name__ for act in acts))
def test_a_backfill_beside_maintenance_and_clean_up(uri: str, acts: tuple[Any, ...]) -> None:
    committer = Committer.open_or_create(uri, SCHEMA)
    commit(committer, 0, BATCH)
    commit(committer, BATCH, 2 * BATCH)
    filler = Filler(uri, "vector")
    filler.survey()
    waiting = reasons(filler, 1)
    assert fill(filler, 0, reasons(filler, 0)) == BATCH // 2
    for act in acts:
        act(uri)
        clean(uri)
    fill(filler, 1, waiting)
    for gap in filler.survey().gaps:
        assert fill(filler, gap.fragment, reasons(filler, gap.fragment)) == gap.empty
    assert filler.survey().empty == 0
    assert lance.dataset(uri).to_table(columns=["error"]).column(0).null_count == 0
