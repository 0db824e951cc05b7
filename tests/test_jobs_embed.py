"""The embed job, end to end on a real Ray: every row of the input in the table once, embedded or with its reason."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from lance_align import JobReport, embed
from lance_align.encoders import load_encoder, resolve_spec
from lance_align.errors import ArgumentError, JobError, ModelError, SourceError, TableError
from lance_align.tables.commits import Committer
from lance_align.tables.schema import Layout, table_schema
from tests.corpus import parquet, pictures, png, stored

ROWS = 40


def run(source: Path, db: Path | str, **options: Any) -> JobReport:
    defaults: dict[str, Any] = {"db": db, "table": "t", "model": "fake", "progress": False, "block_rows": 10}
    return embed(source, **(defaults | options))


def test_every_row_arrives_with_its_columns_and_its_vector(tmp_path: Path) -> None:
    rows = pictures(ROWS)
    report = run(parquet(rows, tmp_path / "in.parquet"), tmp_path, commit_rows=15)
    assert (report.rows_read, report.embedded, report.failed, report.already_there, report.duplicates) == (
        40,
        40,
        0,
        0,
        0,
    )
    assert report.commits >= 2
    assert report.fingerprint == "fake-encoder-version-1"

    table = lancedb.connect(tmp_path).open_table("t")
    assert table.version == report.table_version
    assert table.schema.field("kind").type == rows.schema.field("kind").type
    expected = load_encoder("fake").encode_images(rows.column("image").to_pylist())
    vectors = dict(zip(rows.column("id").to_pylist(), expected.vectors, strict=True))
    for given, found in zip(sorted(rows.to_pylist(), key=lambda row: row["id"]), stored(tmp_path, "t"), strict=True):
        assert {name: found[name] for name in given} == given
        assert np.array_equal(np.float32(found["vector"]), vectors[found["id"]])
        assert found["error"] is None
    hit = table.search(png(7)).limit(1).to_list()[0]
    assert hit["id"] == "row-7"
    assert hit["_distance"] == pytest.approx(0.0, abs=1e-6)


def test_running_again_does_new_rows_only(tmp_path: Path) -> None:
    source = parquet(pictures(20), tmp_path / "in.parquet")
    first = run(source, tmp_path)
    parquet(pictures(ROWS), source)
    second = run(source, tmp_path)
    assert (second.rows_read, second.embedded, second.already_there) == (ROWS, 20, 20)
    third = run(source, tmp_path)
    assert (third.embedded, third.already_there, third.commits) == (0, ROWS, 0)
    assert third.table_version == second.table_version > first.table_version
    assert len({row["id"] for row in stored(tmp_path, "t")}) == len(stored(tmp_path, "t")) == ROWS


def test_bad_rows_arrive_with_their_reasons(tmp_path: Path) -> None:
    images = [png(0), None, b"", b"<svg/>", png(1)[:60], b"GIF89a" + b"\0" * 9]
    rows = pa.table({"id": list(range(6)), "image": pa.array(images, pa.binary())})
    report = run(parquet(rows, tmp_path / "in.parquet"), tmp_path)
    assert (report.embedded, report.failed) == (1, 5)
    assert sum(report.reasons.values()) == 5
    found = stored(tmp_path, "t")
    assert [row["error"] and row["error"].split(":")[0] for row in found[:4]] == [None, "null", "empty", "format"]
    assert [row["vector"] is None for row in found] == [False, True, True, True, True, True]
    assert [row["image"] for row in found] == images  # what was there is kept, whatever it is
    assert len(lancedb.connect(tmp_path).open_table("t").search(png(0)).limit(10).to_list()) == 1


def test_large_images_are_refused_by_their_header(tmp_path: Path) -> None:
    rows = pa.table({"id": ["a", "b"], "image": [png(0, 100), png(0, 10)]})
    run(parquet(rows, tmp_path / "in.parquet"), tmp_path, max_pixels=500, image_formats=["PNG"])
    assert [row["error"] for row in stored(tmp_path, "t")] == [
        "too_large: 100x100 pixels, the limit is 500 in all",
        None,
    ]


def test_texts(tmp_path: Path) -> None:
    rows = pa.table({"id": ["a", "b", "c"], "caption": ["a cat", None, " \n"]})
    report = run(parquet(rows, tmp_path / "in.parquet"), tmp_path)
    assert report.reasons == {"null": 1, "empty": 1}
    found = stored(tmp_path, "t")
    assert found[0]["vector"] == load_encoder("fake").encode_texts(["a cat"]).vectors[0].tolist()
    assert [row["error"] for row in found] == [None, "null: no text", "empty: a blank text"]
    assert lancedb.connect(tmp_path).open_table("t").search("a cat").limit(1).to_list()[0]["id"] == "a"


def test_both_gives_two_vectors_and_names_the_part_that_failed(tmp_path: Path) -> None:
    rows = pa.table(
        {"id": ["a", "b", "c", "d"], "image": [png(0), None, png(2), None], "caption": ["one", "two", "", ""]},
        schema=pa.schema({"id": pa.string(), "image": pa.binary(), "caption": pa.string()}),
    )
    report = run(parquet(rows, tmp_path / "in.parquet"), tmp_path, embed="both")
    found = stored(tmp_path, "t")
    assert [(row["vector"] is None, row["text_vector"] is None) for row in found] == [
        (False, False),
        (True, False),
        (False, True),
        (True, True),
    ]
    assert [row["error"] for row in found] == [
        None,
        "null: image: no image",
        "empty: text: a blank text",
        "null: image: no image; empty: text: a blank text",
    ]
    assert report.reasons == {"null": 2, "empty": 1}
    table = lancedb.connect(tmp_path).open_table("t")
    assert table.search("one", vector_column_name="text_vector").limit(1).to_list()[0]["id"] == "a"
    assert table.search(png(2), vector_column_name="vector").limit(1).to_list()[0]["id"] == "c"


@pytest.mark.parametrize("keep", ["bytes", "thumbnail", "uri"])
def test_a_folder_of_images(keep: str, tmp_path: Path) -> None:
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for name, data in {"a.png": png(0, 40), "deep/é b.png": png(1, 40), "bad.png": b"x", "notes.txt": b"x"}.items():
        (tmp_path / "photos" / name).write_bytes(data)
    report = run(tmp_path / "photos", tmp_path / "db", keep=keep, thumbnail_px=16)
    assert (report.embedded, report.failed) == (2, 1)
    found = stored(tmp_path / "db", "t")
    assert [row["id"] for row in found] == ["a.png", "bad.png", "deep/é b.png"]
    if keep == "uri":
        assert [row["uri"] for row in found] == [str(tmp_path / "photos" / row["id"]) for row in found]
    elif keep == "bytes":
        assert [row["image"] for row in found] == [png(0, 40), b"x", png(1, 40)]
    else:
        assert found[0]["image"][:2] == b"\xff\xd8"
        assert found[1]["image"] is None


def test_paths_in_a_list_stay_and_lead_to_their_pictures(tmp_path: Path) -> None:
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics" / "1.png").write_bytes(png(1))
    (tmp_path / "secret.png").write_bytes(png(2))
    (tmp_path / "pics" / "list.csv").write_text("file,caption\n1.png,one\n../secret.png,two\nno.png,three\n,four\n")
    report = run(tmp_path / "pics" / "list.csv", tmp_path / "db")
    assert report.reasons == {"missing": 2, "null": 1}
    rows = {row["caption"]: row for row in stored(tmp_path / "db", "t")}
    assert rows["one"]["file"] == "1.png"
    assert rows["one"]["image"] == png(1)
    assert "outside" in rows["two"]["error"]
    assert rows["two"]["image"] is None
    assert all(len(row["id"]) == 32 for row in rows.values())


def test_hugging_face_image_structs(tmp_path: Path) -> None:
    image = pa.array([{"bytes": png(0), "path": None}, None], pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    run(parquet(pa.table({"image": image}), tmp_path / "in.parquet"), tmp_path)
    assert {row["error"]: row["image"] for row in stored(tmp_path, "t")} == {None: png(0), "null: no image": None}


def test_equal_rows_and_equal_ids_land_once(tmp_path: Path) -> None:
    twice = pa.concat_tables([pictures(ROWS), pictures(ROWS)])
    by_id = run(parquet(twice, tmp_path / "in.parquet", group_rows=7), tmp_path)
    assert (by_id.embedded, by_id.duplicates) == (ROWS, ROWS)
    by_digest = run(
        parquet(twice.drop_columns(["id"]), tmp_path / "noid.parquet", group_rows=9), tmp_path, table="digests"
    )
    assert (by_digest.embedded, by_digest.duplicates) == (ROWS, ROWS)
    assert len(stored(tmp_path, "digests")) == ROWS
    again = run(
        parquet(twice.drop_columns(["id"]), tmp_path / "noid.parquet", group_rows=30), tmp_path, table="digests"
    )
    assert (again.embedded, again.already_there, again.duplicates) == (0, ROWS, ROWS)


def test_types_travel_unchanged(tmp_path: Path) -> None:
    day = dt.date(2026, 11, 21)
    columns: dict[str, Any] = {
        "text": pa.array(["a", "b"], pa.large_string()),
        "class": pa.array(["x", None]).dictionary_encode(),
        "time": pa.array([dt.datetime(2026, 1, 1, tzinfo=dt.UTC), None], pa.timestamp("ns", tz="Europe/Paris")),
        "day": pa.array([day, None], pa.date32()),
        "took": pa.array([dt.timedelta(seconds=1), None], pa.duration("us")),
        "price": pa.array([decimal.Decimal("1.25"), None], pa.decimal128(20, 2)),
        "prices": pa.array([[decimal.Decimal("1.25")], None], pa.list_(pa.decimal256(40, 2))),
        "boxes": pa.array([[[1, 2], []], None], pa.list_(pa.list_(pa.int16()))),
        "who": pa.array([{"name": "é", "age": None}, None], pa.struct({"name": pa.string(), "age": pa.uint8()})),
        "pair": pa.array([[0.5, 1.5], None], pa.list_(pa.float64(), 2)),
        "half": pa.array([0.5, None], pa.float16()),
        "big": pa.array([2**64 - 1, None], pa.uint64()),
        "blob": pa.array([b"\0", None], pa.large_binary()),
        "flag": pa.array([True, None]),
    }
    given = pa.table(columns)
    run(parquet(given, tmp_path / "in.parquet", group_rows=1), tmp_path, embed="text")
    table = lancedb.connect(tmp_path).open_table("t").to_arrow().sort_by("text")
    assert table.select(given.column_names).cast(given.schema).to_pylist() == given.to_pylist()
    assert [table.schema.field(name).type for name in columns] == given.schema.types


def test_webdataset_shards(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for shard in range(3):
        with tarfile.open(tmp_path / "shards" / f"{shard}.tar", "w") as archive:
            for name, data in {"1.png": png(shard), "1.txt": b"one", "1.cls": b"7", "2.json": b"{}"}.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    report = run(tmp_path / "shards", tmp_path)
    assert (report.embedded, report.failed) == (3, 3)
    found = stored(tmp_path, "t")
    assert [row["id"] for row in found] == ["0.tar/1", "0.tar/2", "1.tar/1", "1.tar/2", "2.tar/1", "2.tar/2"]
    assert (found[0]["text"], dict(found[0]["members"]), found[0]["image"]) == ("one", {"cls": b"7"}, png(0))
    assert (found[1]["json"], found[1]["error"]) == ("{}", "null: no image")


def test_an_own_table_is_a_source_for_another(tmp_path: Path) -> None:
    run(parquet(pictures(12), tmp_path / "in.parquet"), tmp_path)
    with pytest.raises(TableError, match="'vector'"):
        run(tmp_path / "t.lance", tmp_path, table="copy")
    own = ["vector", "error", "content_hash", "vector_crc32"]
    report = run(tmp_path / "t.lance", tmp_path, table="copy", drop=own)
    assert report.embedded == 12
    assert stored(tmp_path, "copy") == stored(tmp_path, "t")


def test_an_input_without_rows_makes_an_empty_table(tmp_path: Path) -> None:
    report = run(parquet(pictures(0), tmp_path / "in.parquet"), tmp_path)
    assert (report.rows_read, report.rows_written) == (0, 0)
    assert report.bottleneck is None
    assert stored(tmp_path, "t") == []


def test_the_report_says_everything(tmp_path: Path) -> None:
    rows = pictures(ROWS).to_pylist()
    rows[3]["image"] = b"bad"
    table = pa.Table.from_pylist([*rows, rows[0]])
    report = run(parquet(table, tmp_path / "in.parquet"), tmp_path)
    facts = json.loads(report.to_json())
    assert (facts["rows_read"], facts["embedded"], facts["failed"], facts["duplicates"]) == (41, 39, 1, 1)
    assert facts["reasons"] == {"format": 1}
    assert set(facts["stage_shares"]) == {"read", "decode", "encode", "write", "commit"}
    assert sum(facts["stage_shares"].values()) == pytest.approx(1.0)
    assert facts["bottleneck"] in facts["stage_shares"]
    text = report.to_text()
    assert "fake-encoder-version-1" in text
    assert "<- bottleneck" in text
    assert len(text.splitlines()) <= 24


def test_max_errors_fails_the_job_and_keeps_the_rows(tmp_path: Path) -> None:
    source = parquet(pa.table({"id": range(4), "caption": ["x", "", "y", ""]}), tmp_path / "in.parquet")
    with pytest.raises(JobError, match="2 of 4 rows could not be embedded, more than max_errors=10% allows") as caught:
        run(source, tmp_path, max_errors="10%")
    assert isinstance(caught.value.report, JobReport)
    assert len(stored(tmp_path, "t")) == 4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"image": "picture"}, SourceError, r"has no column 'picture'; its columns are id \(string\), image"),
        ({"image": "caption", "keep": "uri", "text": "nope"}, SourceError, "has no column 'nope'"),
        ({"embed": "text", "text": "image"}, SourceError, "text column 'image' is binary; expected strings"),
        ({"id": "image"}, SourceError, "id column 'image' is binary"),
        ({"id": "caption"}, SourceError, "--drop id"),
        ({"keep": "uri"}, SourceError, "holds bytes"),
        ({"model": "no-such-model"}, ModelError, "no-such-model"),
        ({"table": "a/b"}, TableError, "'a/b' is refused"),
        ({"max_errors": "many"}, ArgumentError, "max_errors='many'"),
        ({"actors": 0}, ArgumentError, "actors=0"),
        ({"keep": "none"}, ArgumentError, "keep='none'; expected one of bytes, thumbnail, uri"),
        ({"embed": "images"}, ArgumentError, "embed='images'; expected one of image, text, both"),
        ({"drop": "kind"}, ArgumentError, "drop='kind'; expected a list of texts"),
        ({"db": "/dev/null/db"}, TableError, "choose another database"),
        ({"format": "webdataset", "table": "x"}, SourceError, "cannot be read as a tar shard"),
    ],
)
def test_bad_arguments_change_nothing(
    options: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    source = parquet(pictures(3), tmp_path / "in.parquet")
    with pytest.raises(error, match=message) as caught:
        run(source, **{"db": tmp_path / "db"} | options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "db" / "t.lance").exists()


def test_a_table_of_another_model_stays_as_it_was(tmp_path: Path) -> None:
    other = dataclasses.replace(resolve_spec("fake"), fingerprint="another")
    travelling = pa.schema([field for field in pictures(1).schema if field.name in ("caption", "kind")])
    Committer.open_or_create(str(tmp_path / "t.lance"), table_schema(travelling, Layout(), other))
    before = lancedb.connect(tmp_path).open_table("t").version
    with pytest.raises(TableError, match="another"):
        run(parquet(pictures(3), tmp_path / "in.parquet"), tmp_path)
    assert lancedb.connect(tmp_path).open_table("t").version == before
