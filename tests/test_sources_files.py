"""Every format gives the rows that are in it, types unchanged, whichever way it is cut into splits."""

from __future__ import annotations

import datetime as dt
import decimal
import io
import json
import tarfile
from pathlib import Path

import lance
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.feather as feather
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest

from lance_align.errors import SourceError
from lance_align.jobs.sources import Format, Source, Split, open_source
from lance_align.jobs.sources.base import CHUNK_ROWS
from lance_align.jobs.sources.lists import MAX_SPLITS, SPLIT_ROWS

RICH = pa.table(
    {
        "id": pa.array(range(2500), pa.int64()),
        "image": pa.array([b"\x00\xff%d" % i for i in range(2500)], pa.binary()),
        "class": pa.array(["cat", "dog", None, "cat", "emu"] * 500).dictionary_encode(),
        "seen": pa.array([dt.datetime(2026, 1, 1, tzinfo=dt.UTC)] * 2500, pa.timestamp("us", tz="UTC")),
        "price": pa.array([decimal.Decimal("1.25")] * 2500, pa.decimal128(9, 2)),
        "boxes": pa.array([[[1, 2], []], None, []] * 833 + [[[3]]], pa.list_(pa.list_(pa.int16()))),
        "long": pa.array(["é"] * 2500, pa.large_string()),
    }
)


def rows_of(source: Source) -> pa.Table:
    tables = [table for split in source.splits for table in source.read(Split.from_json(split.to_json()))]
    assert all(table.num_rows <= CHUNK_ROWS for table in tables)
    return pa.concat_tables(tables) if tables else source.schema.empty_table()


def write(table: pa.Table, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".parquet":
            pq.write_table(table, path, row_group_size=700)
        case ".feather":
            feather.write_feather(table, path, chunksize=700)
        case ".arrows":
            with ipc.new_stream(path, table.schema) as stream:
                stream.write_table(table, max_chunksize=700)
        case ".lance":
            lance.write_dataset(table, path, max_rows_per_file=700)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".arrows", ".lance"])
def test_types_and_order_survive(suffix: str, tmp_path: Path) -> None:
    source = open_source(write(RICH, tmp_path / f"rows{suffix}"))
    found = rows_of(source)
    assert found.schema == RICH.schema
    assert found.to_pylist() == RICH.to_pylist()
    assert source.rows() in (2500, None)


@pytest.mark.parametrize("suffix", [".parquet", ".feather"])
def test_a_folder_of_files_is_one_source(suffix: str, tmp_path: Path) -> None:
    write(RICH.slice(0, 1000), tmp_path / "data" / f"b{suffix}")
    write(RICH.slice(1000), tmp_path / "data" / "deep" / f"c{suffix}")
    (tmp_path / "data" / "_SUCCESS").touch()
    assert rows_of(open_source(tmp_path / "data")).column("id").to_pylist() == list(range(2500))


def test_long_row_groups_are_cut_in_ranges(tmp_path: Path) -> None:
    numbers = pa.table({"n": range(20_000)})
    pq.write_table(numbers, tmp_path / "one_group.parquet")
    source = open_source(tmp_path / "one_group.parquet")
    assert [split.rows for split in source.splits] == [8192, 8192, 3616]
    assert rows_of(source).equals(numbers)


def test_a_stream_is_read_to_its_end_mark(tmp_path: Path) -> None:
    """pyarrow takes a stream that is cut between two messages for a whole one, and reads one of two joined."""
    whole = write(RICH, tmp_path / "rows.arrows").read_bytes()
    messages = [number for number in range(len(whole)) if whole.startswith(b"\xff\xff\xff\xff", number)]
    cut = (tmp_path / "a.arrows", tmp_path / "b.arrows", tmp_path / "c.arrows")
    for path, data in zip(cut, (whole[:-8], whole[: messages[-2]], whole + whole), strict=True):
        path.write_bytes(data)
        with pytest.raises(SourceError, match=r"ends without its end mark|bytes follow its end mark"):
            rows_of(open_source(path))
    assert rows_of(open_source(tmp_path / "rows.arrows")).num_rows == 2500


def test_file_uri_is_the_path(tmp_path: Path) -> None:
    path = write(RICH, tmp_path / "rows.parquet")
    assert rows_of(open_source(path.as_uri())).equals(rows_of(open_source(path)))


def test_bytes_bound_tables_as_well(tmp_path: Path) -> None:
    heavy = pa.table({"image": [b"x" * 2**20] * 80})
    pq.write_table(heavy, tmp_path / "heavy.parquet")
    source = open_source(tmp_path / "heavy.parquet")
    sizes = [table.num_rows for split in source.splits for table in source.read(split)]
    assert sum(sizes) == 80
    assert max(sizes) <= 32


def test_schema_metadata_of_others_is_left_behind(tmp_path: Path) -> None:
    noisy = RICH.replace_schema_metadata({"embedding_functions": "[]", "pandas": "{}"})
    assert not open_source(write(noisy, tmp_path / "rows.lance")).schema.metadata


def test_different_files_in_a_folder_are_refused(tmp_path: Path) -> None:
    write(pa.table({"a": [1]}), tmp_path / "1.parquet")
    write(pa.table({"a": ["x"]}), tmp_path / "2.parquet")
    with pytest.raises(SourceError, match=r"2\.parquet has column 'a' as string, .*1\.parquet as int64; .*--drop a"):
        open_source(tmp_path)


def test_csv_types_and_quoted_line_breaks(tmp_path: Path) -> None:
    text = 'id,file,caption,n\n007,a.png,"two\nlines",1\n008,b.png,,2\n'
    (tmp_path / "rows.csv").write_text(text)
    source = open_source(tmp_path / "rows.csv", as_text=["id"])
    assert rows_of(source).to_pylist() == [
        {"id": "007", "file": "a.png", "caption": "two\nlines", "n": 1},
        {"id": "008", "file": "b.png", "caption": None, "n": 2},
    ]


def test_long_lists_are_cut_in_ranges(tmp_path: Path) -> None:
    numbers = pa.table({"n": range(5000), "name": [f"file {n}" for n in range(5000)]})
    pacsv.write_csv(numbers, tmp_path / "list.csv")
    lines = "".join(json.dumps(row) + "\n" for row in numbers.to_pylist())
    (tmp_path / "list.jsonl").write_text(lines)
    for name in ("list.csv", "list.jsonl"):
        source = open_source(tmp_path / name)
        assert [split.rows for split in source.splits] == [2048, 2048, 904]
        assert rows_of(source).to_pylist() == numbers.to_pylist()


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
def test_a_long_list_is_parsed_a_bounded_number_of_times(name: str, tmp_path: Path) -> None:
    rows = 100 * SPLIT_ROWS
    lines = [f'{{"n": {n}}}' for n in range(rows)] if name.endswith("jsonl") else ["n", *map(str, range(rows))]
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    source = open_source(tmp_path / name)
    assert len(source.splits) <= MAX_SPLITS  # a task parses what stands before its range
    assert source.rows() == sum(split.rows or 0 for split in source.splits) == rows
    last = pa.concat_tables(source.read(source.splits[-1])).column("n")
    assert last[-1].as_py() == rows - 1


def test_jsonl_nests(tmp_path: Path) -> None:
    rows = [{"file": "a.png", "tags": ["x", "y"], "box": {"w": 1}}, {"file": "b.png", "tags": [], "box": None}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert rows_of(open_source(tmp_path / "rows.jsonl")).to_pylist() == rows


def test_a_damaged_line_is_found_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"file": "a.png"}\n{"file": \n')
    with pytest.raises(SourceError, match=r"rows\.jsonl cannot be read as JSON Lines"):
        open_source(tmp_path / "rows.jsonl")


def tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_webdataset_groups_by_key(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    members = {
        "d/001.png": b"P",
        "d/001.txt": "käse".encode(),
        "d/001.cls": b"7",
        "002.seg.png": b"S",
        "002.json": b"{}",
    }
    tar(tmp_path / "shards" / "a.tar", members)
    tar(tmp_path / "shards" / "b.tar.gz", {"001.jpg": b"J"}, "w:gz")
    source = open_source(tmp_path / "shards")
    assert (source.image, source.text, source.id, source.rows()) == ("image", "text", "key", None)
    assert rows_of(source).to_pylist() == [
        {"key": "a.tar/d/001", "image": b"P", "text": "käse", "json": None, "members": [("cls", b"7")]},
        {"key": "a.tar/002", "image": b"S", "text": None, "json": "{}", "members": []},
        {"key": "b.tar.gz/001", "image": b"J", "text": None, "json": None, "members": []},
    ]


def test_a_truncated_shard_is_an_error(tmp_path: Path) -> None:
    whole = tar(tmp_path / "a.tar", {"001.png": b"x" * 5000}).read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:3000])
    with pytest.raises(SourceError, match=r"a\.tar cannot be read as a tar shard"):
        rows_of(open_source(tmp_path / "a.tar"))


def test_a_lance_table_is_read_without_its_deleted_rows(tmp_path: Path) -> None:
    path = write(RICH, tmp_path / "rows.lance")
    lance.dataset(path).delete("id % 2 = 0")
    source = open_source(path)
    lance.dataset(path).delete("true")  # after the job began: its version is fixed
    assert rows_of(source).column("id").to_pylist() == list(range(1, 2500, 2))


def test_a_lance_table_that_is_cut_is_named(tmp_path: Path) -> None:
    source = open_source(write(RICH, tmp_path / "rows.lance"))
    for file in (tmp_path / "rows.lance" / "data").iterdir():
        file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(SourceError, match=r"rows\.lance cannot be read as a Lance table"):
        rows_of(source)


def test_a_folder_of_images_is_a_list_of_relative_paths(tmp_path: Path) -> None:
    for name in ("b.PNG", "a/1.jpg", "a/.hidden.png", ".git/x.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    source = open_source(tmp_path)
    assert rows_of(source).to_pylist() == [{"path": "a/1.jpg"}, {"path": "b.PNG"}]
    assert (source.image, source.id, source.rows()) == ("path", "path", 2)


def test_formats_are_recognised_by_content_and_can_be_said(tmp_path: Path) -> None:
    write(RICH, tmp_path / "a.parquet").rename(tmp_path / "plain")
    assert open_source(tmp_path / "plain").rows() == 2500
    tar(tmp_path / "shard", {"1.png": b"x"})
    assert rows_of(open_source(tmp_path / "shard")).num_rows == 1
    (tmp_path / "list").write_text("a,b\n1,2\n")
    with pytest.raises(SourceError, match="--format"):
        open_source(tmp_path / "list")
    assert open_source(tmp_path / "list", format="csv").rows() == 1


@pytest.mark.parametrize(
    ("files", "form", "message"),
    [
        ([], None, "holds no images and no other known files"),
        (["notes.txt"], None, "holds no images"),
        (["a.png", "b.csv"], None, r"several kinds of files \(1 images, 1 csv\)"),
        (["a.png"], "parquet", "holds no parquet files"),
        (["a.csv"], "images", "holds no images"),
        (["a.parquet"], None, "cannot be read as Parquet"),
        (["a.arrow"], None, "cannot be read as Arrow IPC"),
    ],
)
def test_folders_that_cannot_be_read(files: list[str], form: Format | None, message: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"\x00\x01")
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path, format=form)


@pytest.mark.parametrize("uri", ["/nowhere/at/all", "gopher://x/y", "http://example.org/a.parquet", "nothing.lance"])
def test_sources_that_are_not_there(uri: str) -> None:
    with pytest.raises(SourceError, match=r"does not exist|cannot be opened"):
        open_source(uri)


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".arrows", ".lance", ".csv", ".jsonl"])
def test_some_columns_give_the_same_rows_and_rows_have_places(suffix: str, tmp_path: Path) -> None:
    names = ["id", "long"]
    plain = pa.table(
        {"long": [f"long {n}" for n in range(5000)], "n": range(5000), "id": [str(n) for n in range(5000)]}
    )
    path = tmp_path / f"rows{suffix}"
    if suffix == ".csv":
        pacsv.write_csv(plain, path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in plain.to_pylist()))
    else:
        write(plain, path)
    source = open_source(path, as_text=["id"])
    tables = [table for split in source.splits for table in source.read(split, columns=names)]
    assert pa.concat_tables(tables).select(names).to_pylist() == plain.select(names).to_pylist()
    assert all(table.column_names == names for table in tables)
    last = len(source.splits) - 1
    (file, row), (_, first) = source.places([(last, 3), (0, 0)])
    rows = source.read(source.splits[last]).__next__().column("id").to_pylist()
    assert first == 0
    if suffix == ".feather":  # how many rows a record batch has, only reading it tells
        assert (file, row) == (f"{path} (part {last})", 3)
    else:
        assert (file, str(row)) == (str(path), rows[3])
