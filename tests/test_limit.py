"""A trial of so many rows, of any job: the first ones, the same again, and the whole run goes on from there."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
import pyarrow.csv
import pytest

import lance_align
from tests.corpus import parquet, pictures, png, stored


def folder(directory: Path) -> Path:
    (directory / "in").mkdir()
    for number in range(10):
        (directory / "in" / f"{number}.png").write_bytes(png(number))
    return directory / "in"


def shards(directory: Path) -> Path:
    """Ten samples in three tars, of which only reading tells the length."""
    (directory / "in").mkdir()
    for shard, numbers in enumerate((range(3), range(3, 6), range(6, 10))):
        with tarfile.open(directory / "in" / f"{shard}.tar", "w") as tar:
            for number in numbers:
                info = tarfile.TarInfo(f"{number}.png")
                info.size = len(png(number))
                tar.addfile(info, io.BytesIO(png(number)))
    return directory / "in"


def groups(directory: Path) -> Path:
    return parquet(pictures(10), directory / "in.parquet", group_rows=3)  # an id column: the roll is called


def texts(directory: Path) -> Path:
    table = pa.table({"id": [str(number) for number in range(10)], "text": [f"text {number}" for number in range(10)]})
    pyarrow.csv.write_csv(table, directory / "in.csv")
    return directory / "in.csv"


@pytest.mark.parametrize("source", [folder, shards, groups, texts])
def test_the_first_rows_then_the_others(source: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"db": tmp_path / "db", "table": "t", "model": "fake", "progress": False}
    given = source(tmp_path)
    report = lance_align.embed(given, **options, limit=4)
    assert (report.rows_read, report.embedded, report.plan["limit"]) == (4, 4, 4)
    first = {row["id"] for row in stored(tmp_path / "db", "t")}
    again = lance_align.embed(given, **options, limit=4)
    assert (again.rows_read, again.embedded, again.already_there) == (4, 0, 4)
    rest = lance_align.embed(given, **options)
    assert (rest.rows_read, rest.embedded, rest.already_there) == (10, 6, 4)
    ids = [row["id"] for row in stored(tmp_path / "db", "t")]
    assert len(ids) == len(set(ids)) == 10
    assert first == set(sorted(ids)[:4])
    assert lance_align.embed(given, **{**options, "table": "all"}, limit=99).rows_read == 10


def test_a_limit_and_rows_that_are_gone_do_not_go_together(tmp_path: Path) -> None:
    source = folder(tmp_path)
    with pytest.raises(lance_align.LanceAlignError, match="gone='remove' with limit=4"):
        lance_align.embed(source, db=tmp_path, table="t", model="fake", gone="remove", limit=4, progress=False)
    with pytest.raises(lance_align.LanceAlignError, match="limit=0; expected a number above 0"):
        lance_align.embed(source, db=tmp_path, table="t", model="fake", limit=0, progress=False)


def test_a_backfill_fills_so_many_rows_each_time(tmp_path: Path) -> None:
    """Whole fragments, a part of one, and the rest of one that has some already."""
    rows = pictures(10).select(["id", "image"])
    table = lancedb.connect(tmp_path).create_table("t", rows.slice(0, 4))
    table.add(rows.slice(4, 6))
    lance_align.attach(table, image="image", model="fake")
    options: dict[str, Any] = {"db": tmp_path, "table": "t", "progress": False}
    for there, limit in ((0, 2), (2, 4), (6, 1), (7, 9)):
        report = lance_align.backfill(**options, limit=limit)
        done = min(limit, 10 - there)
        assert (report.already_there, report.embedded, report.rows_read) == (there, done, there + done)
        table.checkout_latest()
        filled = [row["id"] for row in table.search().limit(None).to_list() if row["vector"] is not None]
        assert sorted(filled) == sorted(rows["id"].to_pylist())[: there + done]
