"""What the names of folders say of rows (``split=train/year=2024``) is said in columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from lance_align.errors import SourceError
from lance_align.jobs.columns import choose_columns
from lance_align.jobs.ids import row_digests
from lance_align.jobs.sources import Source, open_source


def write(rows: Sequence[dict[str, Any]], path: Path) -> None:
    path.parent.mkdir(parents=True)
    table = pa.Table.from_pylist(list(rows))
    match path.suffix:
        case ".parquet":
            pq.write_table(table, path)
        case ".arrow":
            feather.write_feather(table, path, compression="uncompressed")
        case ".csv":
            pacsv.write_csv(table, path)
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def tables_of(source: Source) -> list[pa.Table]:
    return [table for split in source.splits for table in source.read(split)]


def rows_of(source: Source) -> list[dict[str, Any]]:
    return [row for table in tables_of(source) for row in table.to_pylist()]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".csv", ".jsonl"])
def test_equal_rows_of_two_folders_are_two_rows(suffix: str, tmp_path: Path) -> None:
    for split in ("test", "train"):
        write([{"caption": "a"}, {"caption": "b"}], tmp_path / f"split={split}" / "year=2024" / f"p{suffix}")
    source = open_source(tmp_path)
    assert rows_of(source) == [
        {"caption": caption, "split": split, "year": 2024} for split in ("test", "train") for caption in ("a", "b")
    ]
    assert len({digest for table in tables_of(source) for digest in row_digests(table)}) == 4
    some = [table.to_pylist() for table in source.read(source.splits[-1], columns=["split"])]
    assert some == [[{"split": "train"}, {"split": "train"}]]
    assert open_source(tmp_path, drop=["split", "year"]).schema.names == ["caption"]
    assert open_source(next(tmp_path.rglob(f"*{suffix}"))).schema.names == ["caption"]


def test_a_value_is_a_number_only_where_all_of_its_column_print_back(tmp_path: Path) -> None:
    folders = ["month=01/n=1/where=a%2Fb", "month=12/n=-20/where=__HIVE_DEFAULT_PARTITION__", "plain"]
    for number, folder in enumerate(folders):
        write([{"x": number}], tmp_path / folder / "p.parquet")
    assert rows_of(open_source(tmp_path)) == [
        {"x": 0, "month": "01", "n": 1, "where": "a/b"},
        {"x": 1, "month": "12", "n": -20, "where": None},
        {"x": 2, "month": None, "n": None, "where": None},
    ]


def test_what_a_row_says_itself_goes_before_what_its_folder_says(tmp_path: Path) -> None:
    write([{"x": 1, "split": "own"}, {"x": 2, "split": None}], tmp_path / "split=a" / "p.parquet")
    write([{"x": 3}], tmp_path / "split=7" / "p.parquet")
    assert {row["x"]: row["split"] for row in rows_of(open_source(tmp_path))} == {1: "own", 2: "a", 3: "7"}


def test_a_folder_name_that_is_no_value_of_the_files_column_is_named(tmp_path: Path) -> None:
    write([{"x": 1, "n": 5}, {"x": 2, "n": None}], tmp_path / "n=seven" / "p.parquet")
    with pytest.raises(SourceError, match=r"n=seven/p\.parquet: column 'n' .*--drop n"):
        rows_of(open_source(tmp_path))


def test_columns_of_folder_names_play_no_role_unless_it_is_said(tmp_path: Path) -> None:
    for number in range(2):
        write([{"body": "a"}, {"body": "b"}], tmp_path / f"_id={number}" / "caption=x" / "p.parquet")
    columns = choose_columns(open_source(tmp_path))
    assert (columns.id, columns.text, columns.travelling) == (None, "body", ("body", "_id", "caption"))
    assert choose_columns(open_source(tmp_path), text="caption").text == "caption"
