"""The same scenarios in this process and on Ray: the same rows, the same tables, the same accounts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
import pytest

import lance_align
from lance_align import backfill, describe, embed
from tests.corpus import parquet, pictures, stored

BOTH = pytest.mark.parametrize("executor", ["local", "ray"], indirect=True)


def mixed(folder: Path) -> Path:
    """30 rows in two files: two bad pictures, two that share an id, five of another file."""
    table = pictures(30)
    images = table["image"].to_pylist()
    images[3], images[17] = b"no picture", None
    table = table.set_column(table.schema.get_field_index("image"), "image", pa.array(images, pa.binary()))
    names = [*table["id"].to_pylist()[:29], "row-4"]
    table = table.set_column(table.schema.get_field_index("id"), "id", pa.array(names))
    folder.mkdir()
    parquet(table.slice(0, 20), folder / "a.parquet")
    parquet(table.slice(20), folder / "b.parquet")
    return folder


@BOTH
def test_embed_backfill_and_describe_give_the_same_table(
    executor: str, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    source = mixed(tmp_path / "in")
    options: dict[str, Any] = {"db": tmp_path, "table": "t", "progress": False, "executor": executor}
    first = embed(source, model="fake", block_rows=8, commit_rows=10, **options)
    assert (first.rows_read, first.embedded, first.failed, first.duplicates) == (30, 27, 2, 1)
    assert first.reasons == {"format": 1, "null": 1}
    assert [row.id for row in first.duplicate_rows] == ["row-4"]
    assert first.plan["executor"] == executor
    again = embed(source, model="fake", **options, gone="list")
    assert (again.already_there, again.duplicates, again.embedded, again.gone) == (29, 1, 0, 0)

    table = lancedb.connect(tmp_path).open_table("t")
    lance_align.attach(table, image="image", vector="second", model="fake")
    filled = backfill(vector="second", **options)
    assert (filled.embedded, filled.failed, filled.plan["executor"]) == (27, 2, executor)
    described = describe(column="said", model=str(checkpoints["caption"]), max_new_tokens=2, threads=1, **options)
    assert (described.embedded + described.failed, described.plan["executor"]) == (29, executor)
    found = stored(tmp_path, "t")
    assert sorted(row["id"] for row in found) == sorted({f"row-{number}" for number in range(29)})
    for row in found:
        assert (row["vector"] is None) == (row["id"] in ("row-3", "row-17"))
        assert row["second"] == row["vector"]
