"""The demo corpora on disk: complete or absent, the same every time, and readable as any Parquet folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from lance_align import images
from lance_align.corpora import demo_source
from lance_align.corpora.demo import OPENMOJI_SCHEMA, SCENES_SCHEMA
from lance_align.corpora.scenes import draw_scene, scene_at
from lance_align.errors import ArgumentError, SourceError


def test_scenes_arrive_in_order_in_several_files_with_their_truth(tmp_path: Path) -> None:
    folder = demo_source("scenes", directory=tmp_path / "new", rows=1260, seed=5)
    files = sorted(folder.iterdir())
    assert [pq.ParquetFile(file).metadata.num_rows for file in files] == [1000, 260]
    assert [pq.ParquetFile(file).num_row_groups for file in files] == [4, 2]
    table = ds.dataset(folder).to_table()
    assert table.schema.equals(SCENES_SCHEMA)
    for index in (0, 999, 1259):
        row, scene = table.slice(index, 1).to_pylist()[0], scene_at(5, index)
        assert (row["id"], row["caption"], tuple(row["captions"])) == (scene.id, scene.captions[0], scene.captions)
        assert [(o["name"], o["colour"]) for o in row["objects"]] == [(o.name, o.colour) for o in scene.objects]
        np.testing.assert_array_equal(np.asarray(images.decode(row["image"])), draw_scene(scene, size_px=128))


def test_a_corpus_is_as_readable_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        folder = demo_source("scenes", directory=tmp_path, rows=2)
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o750


def test_openmoji_may_be_thinned_evenly(tmp_path: Path) -> None:
    folder = demo_source("openmoji", directory=tmp_path, rows=12)
    table = ds.dataset(folder).to_table()
    assert table.schema.equals(OPENMOJI_SCHEMA)
    rows = table.to_pylist()
    assert len({row["id"] for row in rows}) == 12
    assert {row["is_flag"] for row in rows} == {True, False}
    assert all(images.decode(row["image"]).size == (256, 256) for row in rows)
    assert all("-".join(f"{ord(c):04X}" for c in row["emoji"]) == row["id"] for row in rows)


def test_what_is_there_is_not_written_again_and_what_is_written_again_is_the_same(tmp_path: Path) -> None:
    first = demo_source("scenes", directory=tmp_path / "a", rows=30)
    stamp = {file.name: file.stat().st_mtime_ns for file in first.iterdir()}
    assert demo_source("scenes", directory=tmp_path / "a", rows=30) == first
    assert {file.name: file.stat().st_mtime_ns for file in first.iterdir()} == stamp
    again = demo_source("scenes", directory=tmp_path / "b", rows=30)
    assert [f.read_bytes() for f in sorted(again.iterdir())] == [f.read_bytes() for f in sorted(first.iterdir())]
    assert demo_source("scenes", directory=tmp_path / "a", rows=30, seed=1) != first
    assert demo_source("scenes", directory=tmp_path / "a", rows=31) != first


def test_a_directory_that_cannot_be_written_is_an_answer(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(SourceError, match="expected a writable directory"):
        demo_source("scenes", directory=tmp_path / "file", rows=3)


@pytest.mark.parametrize(
    ("name", "rows", "seed", "message"),
    [
        ("emoji", None, 0, "unknown demo corpus 'emoji'"),
        ("scenes", 0, 0, "rows=0"),
        ("scenes", 3, -1, "seed=-1"),
        ("openmoji", 100_000, 0, "rows=100000; OpenMoji has"),
    ],
)
def test_bad_arguments_leave_nothing_behind(
    name: str, rows: int | None, seed: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match=message):
        demo_source(name, directory=tmp_path, rows=rows, seed=seed)
    assert list(tmp_path.iterdir()) == []
