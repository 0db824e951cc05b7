"""Parquet, Arrow and Lance inputs as people have them, through the job: every row is in the table once."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from lance_align import JobReport, embed
from lance_align.errors import SourceError, TableError
from tests.corpus import pictures, png, stored


def run(source: Path, db: Path, **options: Any) -> JobReport:
    return embed(source, db=db, table="t", model="fake", executor="local", progress=False, **options)


def both(path: Path, first: pa.Table, second: pa.Table) -> Path:
    path.mkdir()
    for name, table in (("a", first), ("b", second)):
        pq.write_table(table, path / f"{name}.parquet")
    return path


def test_files_that_differ_harmlessly_are_one_table(tmp_path: Path) -> None:
    first = pictures(3).append_column("n", pa.array([1, 2, 3], pa.int8()))
    second = pictures(6).slice(3).drop_columns(["kind"]).append_column("n", pa.array([0.5, None, 2.0]))
    second = second.set_column(1, "image", second["image"].cast(pa.large_binary()))
    source = both(tmp_path / "in", first, second)
    assert run(source, tmp_path / "db").embedded == 6
    assert run(source, tmp_path / "db").already_there == 6
    rows = stored(tmp_path / "db", "t")
    assert [(row["n"], row["kind"]) for row in rows] == [
        *((float(n), f"kind {n - 1}") for n in (1, 2, 3)),
        *((n, None) for n in (0.5, None, 2.0)),
    ]
    assert [row["image"] for row in rows] == [png(seed) for seed in range(6)]


def test_a_dropped_column_is_not_looked_at_and_one_with_a_role_is_read(tmp_path: Path) -> None:
    first = pictures(2).append_column("odd", pa.array([1, 2]))
    second = pictures(4).slice(2).append_column("odd", pa.array(["x", "y"]))
    source = both(tmp_path / "in", first, second)
    with pytest.raises(SourceError, match=r"b\.parquet has column 'odd' as string, .*--drop odd"):
        run(source, tmp_path / "db")
    assert run(source, tmp_path / "db", drop=["odd", "id"], id="id").embedded == 4
    assert "odd" not in stored(tmp_path / "db", "t")[0]


def test_uuids_and_views_are_read_as_what_they_mean(tmp_path: Path) -> None:
    ids = [uuid.UUID(int=number) for number in range(3)]
    table = pa.table(
        {
            "id": pa.array([each.bytes for each in ids], pa.uuid()),
            "image": pa.array([png(seed) for seed in range(3)], pa.binary_view()),
            "tags": pa.array([["x"], None, ["y", "z"]], pa.list_view(pa.string_view())),
        }
    )
    feather.write_feather(table, tmp_path / "in.arrow", compression="uncompressed")
    assert run(tmp_path / "in.arrow", tmp_path / "db").embedded == 3
    assert [(row["id"], row["tags"]) for row in stored(tmp_path / "db", "t")] == [
        (str(ids[0]), ["x"]),
        (str(ids[1]), None),
        (str(ids[2]), ["y", "z"]),
    ]


def test_equal_rows_of_two_partitions_are_two_rows(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / "in" / f"split={split}").mkdir(parents=True)
        pq.write_table(pictures(2).drop_columns(["id"]), tmp_path / "in" / f"split={split}" / "p.parquet")
    report = run(tmp_path / "in", tmp_path / "db")
    assert (report.embedded, report.duplicates) == (4, 0)
    assert sorted(row["split"] for row in stored(tmp_path / "db", "t")) == ["test", "test", "train", "train"]


def test_blobs_and_deleted_rows_of_a_lance_table(tmp_path: Path) -> None:
    blob = pa.field("image", pa.large_binary(), metadata={"lance-encoding:blob": "true"})
    images = pa.array([png(seed) for seed in range(40)], pa.large_binary())
    lance.write_dataset(
        pa.table({"id": range(40), "image": images}, schema=pa.schema([("id", pa.int64()), blob])),
        tmp_path / "in.lance",
    )
    lance.dataset(tmp_path / "in.lance").delete("id % 4 = 0")
    assert run(tmp_path / "in.lance", tmp_path / "db").embedded == 30
    assert {row["id"]: row["image"] for row in stored(tmp_path / "db", "t")} == {
        str(seed): png(seed) for seed in range(40) if seed % 4
    }


@pytest.mark.parametrize(("name", "option"), [("", "--drop ''"), ("meta.width", "--drop meta.width")])
def test_names_that_only_pandas_likes_are_left_out_with_drop(name: str, option: str, tmp_path: Path) -> None:
    pq.write_table(pictures(2).append_column(name, pa.array([1, 2])), tmp_path / "in.parquet")
    with pytest.raises(TableError, match=option):
        run(tmp_path / "in.parquet", tmp_path / "db")
    assert run(tmp_path / "in.parquet", tmp_path / "db", drop=[name]).embedded == 2
