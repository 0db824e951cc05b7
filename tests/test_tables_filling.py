"""Vectors into rows that are there, whatever others do to the table in between: none ever lands on another row."""

from __future__ import annotations

import contextlib
import datetime as dt
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import lancedb
import numpy as np
import pyarrow as pa
import pytest
from lancedb.index import IvfFlat

import lance_align
from lance_align.encoders import load_encoder
from lance_align.errors import TableError
from lance_align.tables.filling import ADDRESS, Filled, Filler, Survey
from lance_align.testing import FAKE_SPEC

ROWS = 30  # in each of two fragments


def notes(directory: Path, *, stable_row_ids: bool = False) -> Filler:
    """A table of numbered texts in two fragments, with a model attached and nothing filled."""
    uri = directory / "notes.lance"
    lance.write_dataset(texts(0, ROWS), uri, enable_stable_row_ids=stable_row_ids)
    lance.write_dataset(texts(ROWS, 2 * ROWS), uri, mode="append")
    lance_align.attach(opened(directory), text="body", model="fake")
    return Filler(str(uri), "vector")


def texts(start: int, stop: int) -> pa.Table:
    numbers = range(start, stop)
    return pa.table({"number": pa.array(numbers, pa.int64()), "body": [f"text {number}" for number in numbers]})


def opened(directory: Path) -> Any:
    return lancedb.connect(directory).open_table("notes")


def vector(text: str) -> Any:
    return load_encoder("fake").encode_texts([text]).vectors[0]


def made(filler: Filler, survey: Survey, *, every: int = 1) -> dict[int, pa.Table]:
    """What a job makes of a survey's rows, as the table was then; of every `every`-th row only."""
    dataset = lance.dataset(filler.uri, version=survey.version)
    rows: dict[int, pa.Table] = {}
    for gap in survey.gaps:
        read = dataset.scanner(
            columns=["body"], filter=EMPTY, fragments=[dataset.get_fragment(gap.fragment)], with_row_address=True
        ).to_table()
        assert read.num_rows == gap.empty
        read = read.take(list(range(0, read.num_rows, every)))
        bodies: list[Any] = read.column("body").to_pylist()
        values = pa.array([None if body is None else vector(body) for body in bodies], pa.list_(pa.float32(), 32))
        errors = pa.array(["null: no text" if body is None else None for body in bodies], pa.string())
        rows[gap.fragment] = pa.table({ADDRESS: read.column(ADDRESS), "vector": values, "error": errors})
    return rows


def check(directory: Path, *, is_full: bool = False) -> int:
    """Every vector is that of its own text, every null text has its reason; how many rows are empty."""
    empty = 0
    for row in opened(directory).to_arrow().to_pylist():
        if row["vector"] is not None:
            assert np.array_equal(np.float32(row["vector"]), vector(row["body"])), row["number"]
            assert row["error"] is None
        elif row["error"] is not None:
            assert (row["body"], row["error"]) == (None, "null: no text")
        else:
            empty += 1
    assert not (is_full and empty)
    return empty


def fill_up(filler: Filler) -> None:
    for _ in range(9):
        survey = filler.survey()
        if not survey.empty:
            return
        filler.fill(made(filler, survey))
    raise AssertionError("it is never full")


def test_a_survey_finds_what_is_empty_and_a_round_fills_it(tmp_path: Path) -> None:
    filler = notes(tmp_path)
    opened(tmp_path).delete("number < 5")
    survey = filler.survey()
    assert (survey.rows, survey.empty, len(survey.gaps)) == (2 * ROWS - 5, 2 * ROWS - 5, 2)
    version = filler.version
    assert filler.fill(made(filler, survey, every=2)) == Filled(rows=28, reasons={}, left=0)
    assert filler.version == version + 1
    again = filler.survey()
    assert again.empty == check(tmp_path) == 27
    assert filler.fill(made(filler, again)).rows == 27
    assert filler.survey() == Survey(version=filler.version, rows=55, gaps=())
    assert Filler(filler.uri, "vector").survey().gaps == ()
    check(tmp_path, is_full=True)
    assert filler.fill({}) == Filled()
    assert filler.version == version + 2


def test_the_same_round_twice_lands_once(tmp_path: Path) -> None:
    filler = notes(tmp_path)
    rows = made(filler, filler.survey())
    assert filler.fill(rows).rows == 2 * ROWS
    version = filler.version
    assert Filler(filler.uri, "vector").fill({}).rows == 0
    again = filler.fill(rows)
    assert (again.rows, again.left, filler.version) == (2 * ROWS, 0, version + 1) or again.left == 2 * ROWS
    check(tmp_path, is_full=True)


# Those who change a text here leave rows that have a vector alone: LanceDB keeps the vector of a row that is updated.
EMPTY = "vector IS NULL AND error IS NULL"


def add(directory: Path) -> None:
    opened(directory).add([{"number": 100, "body": "added with a vector"}])


def append(directory: Path) -> None:
    lance.write_dataset(texts(200, 205), directory / "notes.lance", mode="append")


def delete(directory: Path) -> None:
    opened(directory).delete("number % 7 = 0")


def update(directory: Path) -> None:
    opened(directory).update(where=f"number % 5 = 0 AND {EMPTY}", values={"body": "changed"})


def null(directory: Path) -> None:
    opened(directory).update(where=f"number % 5 = 1 AND {EMPTY}", values_sql={"body": "NULL"})


def merge(directory: Path) -> None:
    table = opened(directory)
    numbers = [row["number"] for row in table.search().where(EMPTY).limit(2).to_list()] + [500]
    numbers = [*dict.fromkeys(number for number in numbers if number < 500 or not table.count_rows("number = 500"))]
    changed = pa.table({"number": pa.array(numbers, pa.int64()), "body": [f"merged {number}" for number in numbers]})
    merging = table.merge_insert("number").when_matched_update_all().when_not_matched_insert_all()
    merging.execute(changed)


def replace_column(directory: Path) -> None:
    """Another source in the same places: the rows stay where they are, and their texts change."""
    dataset = lance.dataset(directory / "notes.lance")
    fragments, fields = [], []
    for fragment in dataset.get_fragments()[:1]:  # there always is one
        rows = fragment.to_table(columns=["number"], filter=EMPTY, with_row_address=True)
        if rows.num_rows == 0:
            return
        bodies = [f"replaced {number}" for number in rows.column("number").to_pylist()]
        changed = pa.table({ADDRESS: rows.column(ADDRESS), "body": pa.array(bodies, pa.string())})
        metadata, fields = fragment.update_columns(changed, left_on=ADDRESS)
        fragments.append(metadata)
    operation = lance.LanceOperation.Update([], fragments, [], fields, [], "rewrite_columns")
    lance.LanceDataset.commit(dataset, operation, read_version=dataset.version)


def compact(directory: Path) -> None:
    opened(directory).optimize()


def compact_after_deleting(directory: Path) -> None:
    delete(directory)
    lance.dataset(directory / "notes.lance").optimize.compact_files(materialize_deletions_threshold=0.0)


def another_backfill(directory: Path) -> None:
    other = Filler(str(directory / "notes.lance"), "vector")
    other.fill(made(other, other.survey(), every=3))


def another_model(directory: Path) -> None:
    table = opened(directory)
    lance_align.attach(table, text="body", vector="second", model="fake")
    other = Filler(str(directory / "notes.lance"), "second")
    survey = other.survey()
    if survey.empty:
        rows = {
            gap.fragment: lance.dataset(other.uri)
            .get_fragment(gap.fragment)
            .to_table(columns=[], with_row_address=True)
            .append_column("second", pa.array([vector("x")] * gap.rows, pa.list_(pa.float32(), 32)))
            .append_column("second_error", pa.nulls(gap.rows, pa.string()))
            for gap in survey.gaps
        }
        other.fill(rows)


def add_column(directory: Path) -> None:
    table = opened(directory)
    if "twice" not in table.schema.names:
        table.add_columns({"twice": "number * 2"})


def index(directory: Path) -> None:
    table = opened(directory)
    if table.count_rows("vector IS NOT NULL") > 1:
        table.create_index("vector", config=IvfFlat(num_partitions=1))


def drop_old_versions(directory: Path) -> None:
    lance.dataset(directory / "notes.lance").cleanup_old_versions(older_than=dt.timedelta(0))


ACTS: list[Callable[[Path], None]] = [
    add,
    append,
    delete,
    update,
    null,
    merge,
    replace_column,
    compact,
    compact_after_deleting,
    another_backfill,
    another_model,
    add_column,
    index,
    drop_old_versions,
]


@pytest.mark.parametrize("stable_row_ids", [False, True])
@pytest.mark.parametrize("act", ACTS)
def test_what_others_do_between_reading_and_writing(
    tmp_path: Path, act: Callable[[Path], None], stable_row_ids: bool
) -> None:
    filler = notes(tmp_path, stable_row_ids=stable_row_ids)
    filler.fill(made(filler, filler.survey(), every=3))
    survey = filler.survey()
    rows = made(filler, survey)
    act(tmp_path)
    count = opened(tmp_path).count_rows()
    filled = filler.fill(rows)
    assert filled.rows + filled.left == survey.empty
    check(tmp_path)
    fill_up(filler)
    check(tmp_path, is_full=True)
    assert opened(tmp_path).count_rows() == count


@pytest.mark.parametrize("seed", range(6))
def test_many_things_in_any_order(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    filler = notes(tmp_path, stable_row_ids=bool(seed % 2))
    for _ in range(8):
        rows = made(filler, filler.survey(), every=chance.choice([1, 2, 5]))
        for act in chance.sample(ACTS[:-1], chance.randint(0, 2)):
            act(tmp_path)
        filler.fill(rows)
        check(tmp_path)
    fill_up(filler)
    check(tmp_path, is_full=True)


def test_two_rounds_at_once_on_one_fragment_do_not_undo_each_other(tmp_path: Path) -> None:
    first = notes(tmp_path)
    second = Filler(first.uri, "vector")
    ours, theirs = made(first, first.survey(), every=2), made(second, second.survey())
    assert first.fill(ours).rows == ROWS
    assert second.fill(theirs) == Filled(rows=ROWS, reasons={}, left=ROWS)
    check(tmp_path, is_full=True)


def test_two_jobs_and_a_compaction_at_once(tmp_path: Path) -> None:
    notes(tmp_path)
    landed: list[int] = []
    failures: list[Exception] = []

    def job() -> None:
        try:
            filler = Filler(str(tmp_path / "notes.lance"), "vector")
            while (survey := filler.survey()).empty:
                landed.append(filler.fill(made(filler, survey, every=4)).rows)
        except Exception as error:  # noqa: BLE001  whatever it is, the test shows it
            failures.append(error)

    threads = [threading.Thread(target=job) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(3):
        append(tmp_path)
        with contextlib.suppress(RuntimeError):  # a round was first: LanceDB's compaction asks to be called again
            compact(tmp_path)
        opened(tmp_path).delete(f"number = {number}")
    for thread in threads:
        thread.join()
    assert failures == []
    fill_up(Filler(str(tmp_path / "notes.lance"), "vector"))
    check(tmp_path, is_full=True)
    assert opened(tmp_path).count_rows() == 2 * ROWS + 15 - 3
    assert sum(landed) <= 2 * ROWS + 15  # none was written twice


def test_an_index_made_half_way_finds_all_rows_in_the_end(tmp_path: Path) -> None:
    filler = notes(tmp_path)
    filler.fill(made(filler, filler.survey(), every=2))
    index(tmp_path)
    fill_up(filler)
    table = opened(tmp_path)
    for number in range(2 * ROWS):
        assert table.search(f"text {number}").limit(1).to_list()[0]["number"] == number
    table.optimize()
    table.checkout_latest()
    assert table.index_stats("vector_idx").num_indexed_rows == 2 * ROWS
    assert table.search("text 7").limit(1).to_list()[0]["number"] == 7


def test_older_versions_stay_readable(tmp_path: Path) -> None:
    filler = notes(tmp_path)
    before = opened(tmp_path).to_arrow()
    version = filler.version
    fill_up(filler)
    table = opened(tmp_path)
    table.checkout(version)
    assert table.to_arrow().equals(before)


def test_reasons_are_forgotten_on_request(tmp_path: Path) -> None:
    filler = notes(tmp_path)
    null(tmp_path)
    fill_up(filler)
    failed = opened(tmp_path).count_rows("error IS NOT NULL")
    assert failed == 12
    version = filler.version
    assert filler.forget_errors() == failed
    assert (filler.version, filler.survey().empty) == (version + 1, failed)
    opened(tmp_path).update(where="body IS NULL", values={"body": "mended"})
    fill_up(filler)
    assert check(tmp_path, is_full=True) == 0
    assert opened(tmp_path).count_rows("error IS NOT NULL") == 0
    assert filler.forget_errors() == 0


def overwrite(directory: Path) -> None:
    lance.write_dataset(texts(0, ROWS), directory / "notes.lance", mode="overwrite")


def restore(directory: Path) -> None:
    table = opened(directory)
    table.checkout(1)
    table.restore()


def drop_vector(directory: Path) -> None:
    opened(directory).drop_columns(["vector"])


def drop_source(directory: Path) -> None:
    opened(directory).drop_columns(["body"])


def rename_error(directory: Path) -> None:
    opened(directory).alter_columns({"path": "error", "rename": "why"})


@pytest.mark.parametrize("act", [overwrite, restore, drop_vector, drop_source, rename_error])
def test_a_table_that_is_another_one_by_now(tmp_path: Path, act: Callable[[Path], None]) -> None:
    filler = notes(tmp_path)
    rows = made(filler, filler.survey())
    act(tmp_path)
    version = opened(tmp_path).version
    with pytest.raises(TableError) as caught:
        filler.fill(rows)
    assert "\n" not in str(caught.value)
    assert opened(tmp_path).version == version


def test_a_table_that_says_nothing(tmp_path: Path) -> None:
    lance.write_dataset(texts(0, 2), tmp_path / "notes.lance")
    with pytest.raises(TableError, match=r"does not say how 'vector' is made; lance_align\.attach"):
        Filler(str(tmp_path / "notes.lance"), "vector")
    with pytest.raises(TableError, match="is not there; the database has notes"):
        Filler(str(tmp_path / "nothing.lance"), "vector")
    assert FAKE_SPEC.dim == 32
