"""How work is cut for tasks and actors, and how a cluster is divided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from lance_align import embed
from lance_align.encoders import resolve_spec
from lance_align.jobs.executors.base import blocks
from lance_align.jobs.plan import MAX_GROUP, grouped
from lance_align.jobs.shape import Resources, ShapeOptions, shape
from lance_align.jobs.sources import Split
from tests.corpus import parquet, pictures, stored

LENGTHS = st.lists(st.none() | st.integers(0, 50), max_size=100)


@given(lengths=LENGTHS, rows=st.integers(1, 100), at_least=st.integers(0, 20))
def test_groups_hold_every_split_once_in_order(lengths: list[int | None], rows: int, at_least: int) -> None:
    splits = {3 * number: Split(path=str(number), rows=length) for number, length in enumerate(lengths)}
    groups = list(grouped(splits, rows=rows, at_least=at_least))
    assert [entry for group in groups for entry in group.items()] == list(splits.items())
    for group in groups:
        assert 0 < len(group) <= MAX_GROUP
        known = [split.rows for split in group.values()]
        assert len(group) == 1 or (None not in known and sum(filter(None, known)) <= rows)


def test_small_splits_share_tasks_as_long_as_every_reader_has_some() -> None:
    splits = {number: Split(path=str(number), rows=30) for number in range(200)}
    assert len(list(grouped(splits, rows=1024, at_least=4))) == 6  # 34 of them in each
    assert len(list(grouped(splits, rows=1024, at_least=50))) == 50
    assert len(list(grouped(splits, rows=10, at_least=4))) == 200


@given(lengths=st.lists(st.integers(0, 30), max_size=30), rows=st.integers(1, 50))
def test_tables_are_cut_by_the_number_of_rows_alone(lengths: list[int], rows: int) -> None:
    tables, number = [], 0
    for length in lengths:
        tables.append(pa.table({"n": pa.array(range(number, number + length), pa.int64())}))
        number += length
    found = list(blocks(tables, rows=rows))
    assert [value for table in found for value in table.column("n").to_pylist()] == list(range(number))
    assert [len(table) for table in found] == [rows] * (number // rows) + [number % rows] * (number % rows > 0)


def test_whatever_is_chosen_can_be_said() -> None:
    spec = resolve_spec("fake")
    chosen = shape(spec, Resources(cpus=4), ShapeOptions())
    assert (chosen.readers, chosen.actors, chosen.block_rows) == (2, 1, 1024)
    assert chosen.threads >= 1
    said = shape(
        spec,
        Resources(cpus=4),
        ShapeOptions(actors=2, readers=3, threads=1, block_rows=7, engine="torch", device="cpu"),
    )
    assert said.choices == {
        "executor": "ray",
        "readers": 3,
        "actors": 2,
        "threads": 1,
        "device": "cpu",
        "engine": "torch",
        "precision": "float32",
        "block_rows": 7,
    }
    alone = shape(spec, Resources(cpus=4, is_local=True), ShapeOptions())
    assert (alone.choices["executor"], alone.actors, alone.readers, alone.threads) == ("local", 1, 1, 4)


def test_the_plan_stands_in_the_log_and_in_the_report(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    rows = pictures(12)
    for number in range(6):  # small files share tasks and blocks
        parquet(rows.slice(2 * number, 2), folder / f"{number}.parquet")
    options: dict[str, Any] = {"model": "fake", "readers": 1, "threads": 1, "block_rows": 6, "engine": "torch"}
    report = embed(folder, db=tmp_path, table="t", progress=False, log_file=tmp_path / "log", commit_rows=9, **options)
    assert report.embedded == 12
    assert len(stored(tmp_path, "t")) == 12
    plan = (
        "plan: executor local, readers 1, actors 1, threads 1, device cpu, engine torch, precision float32, "
        "block_rows 6, commit_rows 9"
    )
    looking, planned, *_ = (tmp_path / "log").read_text().splitlines()
    assert looking.endswith(f"looking at {folder}")
    assert plan in planned
    assert plan in report.to_text()
    assert json.loads(report.to_json())["plan"]["readers"] == 1
