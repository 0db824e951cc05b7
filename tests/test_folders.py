"""A folder is a tree of pictures: each is a row once, and what is none is counted by kind."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lance_align import JobReport, embed
from lance_align.errors import JobError, SourceError
from lance_align.jobs.sources import Source, open_source
from lance_align.jobs.sources.listing import UNLISTABLE, UNREADABLE
from tests.corpus import png, stored

LONGEST_NAME = "n" * 250


def rows(source: Source) -> list[dict[str, Any]]:
    return [row for split in source.splits for table in source.read(split) for row in table.to_pylist()]


def paths(folder: Path) -> list[str]:
    return [row["path"] for row in rows(open_source(folder))]


def run(source: Path, db: Path, **options: Any) -> JobReport:
    return embed(source, db=db, table="t", model="fake", progress=False, index="none", executor="local", **options)


def write(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(number))


def test_a_link_to_a_folder_on_the_way_is_not_entered(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "deep/b.png")
    (tmp_path / "l").symlink_to(tmp_path)
    (tmp_path / "deep" / "m").symlink_to("..")
    source = open_source(tmp_path)
    assert [row["path"] for row in rows(source)] == ["a.png", "deep/b.png"]
    assert source.left_out == {"links to folders they lie in, or that are listed": 2}


def test_a_link_to_a_folder_above_the_input_is_not_entered(tmp_path: Path) -> None:
    """Nor to one above a folder that a link leads to: either way leads back, and gives pictures a second name."""
    write(tmp_path, "in/a.png", "else/deep/b.png")
    (tmp_path / "in" / "up").symlink_to("..")
    (tmp_path / "in" / "there").symlink_to("../else/deep")
    (tmp_path / "else" / "deep" / "up").symlink_to("..")
    (tmp_path / "way").symlink_to("in")
    for folder in ("in", "way"):
        source = open_source(tmp_path / folder)
        assert [row["path"] for row in rows(source)] == ["a.png", "there/b.png"]
        assert source.left_out == {"links to folders they lie in, or that are listed": 2}


def test_a_link_to_another_folder_is_entered(tmp_path: Path) -> None:
    write(tmp_path, "in/2024/a.png", "elsewhere/b.png")
    (tmp_path / "in" / "latest").symlink_to("2024")
    (tmp_path / "in" / "other").symlink_to("../elsewhere")
    assert paths(tmp_path / "in") == ["2024/a.png", "latest/a.png", "other/b.png"]


def test_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    names = [f"f{number}" for number in range(12)]
    write(tmp_path, *(f"{name}/a.png" for name in names))
    for name in names:
        for other in names:
            (tmp_path / name / f"to-{other}").symlink_to(f"../{other}")
    found = paths(tmp_path)
    assert set(found) >= {f"{name}/a.png" for name in names}
    assert len(found) <= len(names) * (len(names) + 1) + len(names)


def test_a_name_a_link_and_a_folder_cost_themselves(tmp_path: Path) -> None:
    write(tmp_path, "good.png", ".git/x.png", "deep/a.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad \xff.png")).write_bytes(b"x")
    (tmp_path / "dangling.png").symlink_to("nowhere.png")
    (tmp_path / "circle.png").symlink_to("circle.png")
    os.mkfifo(tmp_path / "pipe.png")
    source = open_source(tmp_path)
    assert [row["path"] for row in rows(source)] == ["deep/a.png", "good.png"]
    assert source.left_out == {
        "names that begin with a dot": 1,
        "names that are not UTF-8": 1,
        "links to nothing": 2,
        "neither files nor folders": 1,
    }


def test_gone_removes_nothing_where_a_folder_cannot_be_listed(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write(folder, "a.png", "b.png")
    run(folder, tmp_path)
    (folder / "b.png").unlink()
    here = os.open(folder, os.O_RDONLY)  # folders too deep for a path: nobody can list them by name, root neither
    for _ in range(20):
        os.mkdir(LONGEST_NAME, dir_fd=here)
        inner = os.open(LONGEST_NAME, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    source = open_source(folder)
    assert source.left_out == {UNLISTABLE: 1}
    with pytest.raises(JobError, match="has 1 folders that cannot be listed, so none of the 1 rows"):
        run(folder, tmp_path, gone="remove")
    assert len(stored(tmp_path, "t")) == 2


def test_gone_removes_nothing_where_a_file_that_may_be_a_picture_cannot_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write(folder, "a.png", "no_suffix")
    run(folder, tmp_path)
    (folder / "no_suffix").unlink()
    (folder / "no_suffix").symlink_to("/proc/self/mem")  # a regular file that opens, and that nobody can read at 0
    assert open_source(folder).left_out == {UNREADABLE: 1}
    with pytest.raises(JobError, match="has 1 files of unknown suffixes that cannot be read, so none of the 1 rows"):
        run(folder, tmp_path, gone="remove")
    assert len(stored(tmp_path, "t")) == 2


def test_pictures_with_an_underscore_are_rows_and_notes_of_writers_are_not(tmp_path: Path) -> None:
    write(tmp_path / "photos", "_DSC0001.JPG", "_thumbs/a.png")
    (tmp_path / "photos" / "_SUCCESS").touch()
    source = open_source(tmp_path / "photos")
    assert [row["path"] for row in rows(source)] == ["_DSC0001.JPG", "_thumbs/a.png"]
    assert not source.left_out
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"n": [1]}), tmp_path / "data" / "part-0.parquet")
    for name in ("_SUCCESS", "_metadata", "_committed_123", "_common_metadata", "notes.md"):
        (tmp_path / "data" / name).write_bytes(b"x")
    source = open_source(tmp_path / "data")
    assert (rows(source), source.left_out) == ([{"n": 1}], {".md": 1})


def test_rows_that_writers_keep_beside_data_are_left_out_and_counted(tmp_path: Path) -> None:
    """Of Spark's unfinished attempts; folders of partitions may begin so. A Delta table's folder has deleted rows."""
    for number, name in enumerate(("part-0", "_split=a/part-0", "_temporary/0/part-0")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"n": [number]}), tmp_path / f"{name}.parquet")
    source = open_source(tmp_path)
    assert sorted(row["n"] for row in rows(source)) == [0, 1]
    assert source.left_out == {".parquet": 1}
    write(tmp_path, "_delta_log/0.json")
    with pytest.raises(SourceError, match=r"is a Delta table, .* with --format parquet"):
        open_source(tmp_path)
    assert len(rows(open_source(tmp_path, format="parquet"))) == 2


def test_pictures_of_other_suffixes_are_rows_by_their_content(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "noext", "scan.jxl", "b.jpg.bak", "img_2024.01.05")
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "stereo.mpo", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "anim.apng", format="PNG", save_all=True, append_images=frames[1:])
    for number in range(30):
        (tmp_path / f"{number:02}.txt").write_text("a caption")
    (tmp_path / "real.jxl").write_bytes(b"\xff\x0a....")
    (tmp_path / "LICENSE").write_text("all yours")
    report = run(tmp_path, tmp_path / "db")
    assert (report.embedded, report.failed) == (7, 0)
    assert report.left_out == {".txt": 30, ".jxl": 1, "no suffix": 1}
    text = report.to_text()
    assert "left out                 32" in text
    assert "    30 .txt" in text


def test_a_folder_of_names_without_suffixes_and_one_such_file(tmp_path: Path) -> None:
    write(tmp_path, *(f"{number:032x}" for number in range(20)))
    assert len(paths(tmp_path)) == 20
    assert len(paths(tmp_path / f"{3:032x}")) == 1


def test_many_unknown_suffixes_are_a_short_report(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    for number in range(50):
        (tmp_path / f"x.{number}").write_text("x")
    left_out = open_source(tmp_path).left_out
    assert (len(left_out), sum(left_out.values()), left_out["other suffixes"]) == (21, 50, 30)


def test_labels_from_folders(tmp_path: Path) -> None:
    write(tmp_path / "in", "top.png", "cat/a.png", "dog/young/b.png")
    run(tmp_path / "in", tmp_path, labels_from_folders=True)
    assert [(row["id"], row["label"]) for row in stored(tmp_path, "t")] == [
        ("cat/a.png", "cat"),
        ("dog/young/b.png", "dog/young"),
        ("top.png", None),
    ]
    pq.write_table(pa.table({"n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"a\.parquet is no folder of images"):
        open_source(tmp_path / "a.parquet", labels_from_folders=True)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_hugging_face_image_folder_with_splits(suffix: str, tmp_path: Path) -> None:
    """Equal rows of two metadata files name two pictures: they are two rows."""
    for split in ("train", "test"):
        write(tmp_path / "in" / split, "0.png", "deep/1.png", "unnamed.png")
        table = pa.table({"file_name": ["0.png", "deep/1.png"], "text": ["a red car", "a blue car"]})
        path = tmp_path / "in" / split / f"metadata.{suffix}"
        if suffix == "parquet":
            pq.write_table(table, path)
        elif suffix == "csv":
            path.write_text("file_name,text\n0.png,a red car\ndeep/1.png,a blue car\n")
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    (tmp_path / "in" / "README.md").write_text("# data")
    report = run(tmp_path / "in", tmp_path)
    assert (report.rows_read, report.embedded, report.duplicates) == (4, 4, 0)
    assert report.left_out == {"pictures that no metadata file names": 2, ".md": 1}
    found = lancedb.connect(tmp_path).open_table("t").to_arrow()
    assert sorted(found.column("file_name").to_pylist()) == [
        "test/0.png",
        "test/deep/1.png",
        "train/0.png",
        "train/deep/1.png",
    ]
    assert len(set(found.column("id").to_pylist())) == 4


@pytest.mark.parametrize("column", ["name", "photo"])
def test_pictures_beside_metadata_are_counted_whatever_its_columns_are_called(column: str, tmp_path: Path) -> None:
    write(tmp_path, "a.png", "b.png")
    (tmp_path / "metadata.csv").write_text(f"{column},n\na.png,1\n")
    assert open_source(tmp_path).left_out == {"pictures that no metadata file names": 1}


def test_pictures_and_another_list_are_still_asked_about(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    (tmp_path / "labels.csv").write_text("file_name\na.png\n")
    with pytest.raises(SourceError, match=r"several kinds of files \(1 images, 1 csv\)"):
        open_source(tmp_path)


def test_what_is_no_image_outside_the_folder_is_not_kept(tmp_path: Path) -> None:
    jpeg = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(jpeg, "JPEG")
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.txt").write_text("password")
    (tmp_path / "outside.jpg").write_bytes(jpeg.getvalue())
    (tmp_path / "in" / "inside.png").write_bytes(b"no picture")
    names = ["/proc/self/environ", str(tmp_path / "secret.txt"), "../outside.jpg", "inside.png", "/dev/zero"]
    (tmp_path / "in" / "list.csv").write_text("id,image\n" + "".join(f"{n},{name}\n" for n, name in enumerate(names)))
    report = run(tmp_path / "in" / "list.csv", tmp_path, allow_outside=True)
    assert (report.embedded, report.failed) == (1, 4)
    assert [row["image"] is None for row in stored(tmp_path, "t")] == [True, True, False, False, True]
    assert "password" not in str(lancedb.connect(tmp_path).open_table("t").to_arrow().to_pylist())
