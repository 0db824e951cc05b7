"""The account of a run, the limit on failed rows, progress lines, and the choice of columns."""

from __future__ import annotations

import dataclasses
import io
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lance_align import JobReport, embed
from lance_align.errors import ArgumentError, SourceError
from lance_align.fetching import FetchPolicy
from lance_align.jobs.columns import choose_columns
from lance_align.jobs.progress import Lines, State, beating, reporter
from lance_align.jobs.report import Failure, parse_max_errors, too_many
from lance_align.jobs.sources import open_source

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
REPORT = JobReport(
    source="/data/photos",
    table_uri="/db/photos.lance",
    table_version=3,
    model="align-tiny",
    fingerprint="abc",
    rows_read=110,
    embedded=90,
    failed=10,
    reasons={"format": 4, "null": 6},
    already_there=7,
    duplicates=3,
    stage_s={"read": 1.0, "decode": 12.0, "encode": 6.0, "write": 0.5, "commit": 0.5},
    workers={"decode": 3, "read": 3, "encode": 1, "write": 1},
    commits=2,
    started_at=START,
    finished_at=START + timedelta(seconds=10),
)


def test_figures_follow_from_counts() -> None:
    assert REPORT.rows_written == 100
    assert REPORT.rows_per_s == pytest.approx(10.0)
    assert REPORT.shares()["decode"] == pytest.approx(0.6)
    assert REPORT.bottleneck == "encode"  # 6 s of one actor; the 12 s of decoding were shared by three tasks
    assert REPORT.adds_up
    assert not dataclasses.replace(REPORT, embedded=89).adds_up


def test_text_is_one_screen() -> None:
    lines = REPORT.to_text().splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100
    # the commonest reason first
    assert lines[9:11] == ["    null                    6", "    format                  4"]


def test_the_text_ends_with_what_to_do_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    failures = tuple(Failure(id=f"{number}.tiff", error="format: TIFF is not admitted") for number in range(7))
    report = dataclasses.replace(REPORT, table_uri=str(tmp_path / "my db" / "t.lance"), vector="vector", lacking=4)
    lines = dataclasses.replace(report, failures=failures).to_text().splitlines()
    assert "  14 rows of the table lack a vector; --retry-errors tries them again:" in lines
    assert sum("format: TIFF is not admitted" in line for line in lines) == 5
    assert lines[-2].strip() == 'all of them: table.search().where("error IS NOT NULL")'
    assert lines[-1] == "  search it: lance-align search 'a red car' --db './my db' --table t"
    other = dataclasses.replace(report, vector="second", table_uri="s3://bucket/db/t.lance").to_text()
    assert other.endswith("lance-align search 'a red car' --db s3://bucket/db --table t --vector second")
    assert "search it" not in dataclasses.replace(report, vector=None).to_text()
    assert "photographs" not in report.to_text()
    assert "--model kakaobrain/align-base" in dataclasses.replace(report, photographs=90).to_text()
    assert "photographs" not in dataclasses.replace(report, photographs=90, model="mine").to_text()


def test_a_run_names_what_failed_and_sees_photographs(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    for number in range(3):
        Image.fromarray(noise).save(tmp_path / "in" / f"{number}.jpg", quality=95)
    Image.fromarray(noise[:9, :9]).save(tmp_path / "in" / "small.tiff")
    options: dict[str, Any] = {"db": tmp_path, "table": "t", "model": "align-tiny", "progress": False}
    for embedded in (3, 0):  # a re-run names them too
        report = embed(tmp_path / "in", **options)
        assert report.embedded == embedded
        ((row),) = report.failures
        assert row.id == "small.tiff"
        assert "--image-formats" in row.error
        assert ("these look like photographs" in report.to_text()) == bool(embedded)
        assert json.loads(report.to_json())["failures"] == [{"id": row.id, "error": row.error}]


@pytest.mark.parametrize(
    ("limit", "allowed"),
    [
        (10, True),
        (9, False),
        ("10", True),
        ("9", False),
        (0.1, True),
        (0.09, False),
        ("10%", True),
        ("9.5%", False),
        (0, False),
    ],
)
def test_limits_are_counts_or_shares(limit: Any, allowed: bool) -> None:
    assert too_many(REPORT, parse_max_errors(limit)) is not allowed


@pytest.mark.parametrize("limit", ["", "many", "101%", "1.5", 1.5, -1, "-1", "-1%", float("nan")])
def test_other_limits_are_refused(limit: Any) -> None:
    with pytest.raises(ArgumentError, match="expected a count such as 10, or a share"):
        parse_max_errors(limit)


def test_progress_in_a_file_is_a_plain_line_when_something_changes() -> None:
    out = io.StringIO()
    states = [
        State(phase="looking"),
        *[State(phase="loading the model", decoded=50)] * 20,
        *[State(decoded=60, rows=50, failed=2, committed=40, skipped=10, version=3)] * 20,
    ]
    shown = Lines(200, out, every_s=0.01)
    for state in states:
        shown.show(state)
    shown.end(states[-1], finished=True)
    assert "\r" not in out.getvalue()
    assert "\x1b" not in out.getvalue()
    lines = out.getvalue().splitlines()
    assert all(datetime.fromisoformat(line.split(" ", 1)[0]).tzinfo is not None for line in lines)
    assert "looking: 0 rows of 200 (0%)" in lines[0]
    assert "loading the model: 0 rows of 200 (0%), 50 decoded" in lines[1]
    assert "embedding: 60 rows of 200 (30%), 60 decoded, 10 skipped, 2 failed, 40 committed (version 3)" in lines[2]
    assert lines[3].endswith(" finished")
    assert len(lines) == 4


def test_progress_is_shown_while_a_job_runs() -> None:
    out = io.StringIO()
    counts = iter(range(1000))
    with beating(Lines(None, out, every_s=0.01), lambda: State(rows=next(counts))):
        deadline = time.monotonic() + 30
        while out.getvalue().count("\n") < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert out.getvalue().count("embedding: ") >= 3


def test_progress_tells_when_it_was_stopped(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    with pytest.raises(RuntimeError), reporter(None, State, show=False, log_file=log):
        raise RuntimeError
    assert log.read_text().splitlines()[-1].endswith(" stopped")
    for wrong in (tmp_path, tmp_path / ("x" * 300), tmp_path / "none" / "job.log"):
        with pytest.raises(ArgumentError, match="cannot be written"), reporter(None, State, show=False, log_file=wrong):
            pass


TYPES = {
    "image": pa.binary(),
    "photo": pa.large_binary(),
    "file_name": pa.string(),
    "caption": pa.large_string(),
    "id": pa.int64(),
    "hf": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    "score": pa.float32(),
    "hash": pa.binary(20),
    "uuid": pa.uuid(),
    "images": pa.list_(pa.struct({"bytes": pa.binary(), "path": pa.string()})),
    "image_urls": pa.list_(pa.string()),
    "image_0": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    "image_1": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    "image_url": pa.string(),
    "img": pa.dictionary(pa.int8(), pa.binary()),
    "_id": pa.binary(),
    "url": pa.string(),
    "file_names": pa.list_(pa.string()),
    "input_file_name": pa.string(),
    "photos": pa.int64(),
    "Picture": pa.binary(99),
    "left": pa.binary(),
    "right": pa.binary(),
    "picture": pa.binary(),
    "image_source": pa.string(),
    "title_de": pa.string(),
}


@pytest.mark.parametrize(
    ("names", "said", "chosen"),
    [
        (["score", "image", "caption", "id"], {}, ("image", "bytes", None, "id", ("score", "caption"))),
        (["photo", "file_name"], {}, ("photo", "bytes", None, None, ("file_name",))),
        (["hf", "score"], {}, ("hf", "struct", None, None, ("score",))),
        (["file_name", "caption"], {}, ("file_name", "path", None, None, ("file_name", "caption"))),
        (["image", "photo"], {"image": "photo", "drop": ["image"]}, ("photo", "bytes", None, None, ())),
        (["caption", "score"], {}, (None, None, "caption", None, ("caption", "score"))),
        (["image", "caption"], {"embed": "both"}, ("image", "bytes", "caption", None, ("caption",))),
        (["image", "caption"], {"embed": "text"}, (None, None, "caption", None, ("image", "caption"))),
        (["image", "photo"], {}, ("image", "bytes", None, None, ("photo",))),
        (["images", "caption"], {"embed": "text"}, (None, None, "caption", None, ("images", "caption"))),
        (["score", "hash", "image"], {"id": "hash"}, ("image", "bytes", None, "hash", ("score",))),
        (["uuid", "image"], {}, ("image", "bytes", None, "uuid", ())),
        (["_id", "caption"], {}, (None, None, "caption", "_id", ("caption",))),
        (["img", "caption"], {}, ("img", "bytes", None, None, ("caption",))),
        (["photos", "caption"], {}, (None, None, "caption", None, ("photos", "caption"))),
        (["image_source", "score"], {}, (None, None, "image_source", None, ("image_source", "score"))),
    ],
)
def test_columns_are_recognised_by_name_and_type(
    names: list[str], said: dict[str, Any], chosen: tuple[Any, ...], tmp_path: Path
) -> None:
    pq.write_table(pa.schema([(name, TYPES[name]) for name in names]).empty_table(), tmp_path / "in.parquet")
    columns = choose_columns(open_source(tmp_path / "in.parquet"), **said)
    assert (columns.image, columns.image_kind, columns.text, columns.id, columns.travelling) == chosen


@pytest.mark.parametrize(
    ("names", "said", "message"),
    [
        (
            ["image_0", "image_1", "caption"],
            {},
            r"columns that may be the images: image_0 .*, image_1 .*--image image_0",
        ),
        (["left", "right", "caption"], {}, r"columns that may be the images: left \(binary\), right .*--image left"),
        (["photo", "picture", "caption"], {}, r"columns that may be the images: photo .*, picture .*--image photo"),
        (
            ["images", "caption"],
            {},
            r"a column that may be the images: images .*holds several images a row.*--embed text",
        ),
        (["image_urls", "caption"], {"embed": "both"}, r"'image_urls' holds several images a row"),
        (["image_url", "caption"], {}, r"a column that may be the images: image_url .*--image image_url"),
        (["input_file_name", "caption"], {}, r"a column that may be the images: .*--image input_file_name"),
        (["file_names", "caption"], {}, r"'file_names' holds several images a row.*--image, or"),
        (["Picture", "caption"], {}, r"a column that may be the images: Picture .*another column with --image, or"),
        (["url", "score"], {}, r"no column that looks like texts"),
        (["images", "caption"], {"image": "images"}, r"image column 'images' is list<.*expected binary"),
        (
            ["file_name", "score"],
            {"embed": "both"},
            r"no column that looks like texts \(ids and names of files are none\)",
        ),
        (["image_source", "title_de", "score"], {}, r"columns that may be the texts: image_source, title_de; .*--text"),
    ],
)
def test_what_is_not_clear_is_asked_and_not_passed_over(
    names: list[str], said: dict[str, Any], message: str, tmp_path: Path
) -> None:
    pq.write_table(pa.schema([(name, TYPES[name]) for name in names]).empty_table(), tmp_path / "in.parquet")
    with pytest.raises(SourceError, match=message):
        choose_columns(open_source(tmp_path / "in.parquet"), **said)


def test_a_column_called_id_that_cannot_be_one_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1.0], "caption": ["a"]}), tmp_path / "in.parquet")
    with pytest.raises(SourceError, match=r"id column 'id' is double; expected text, .*--drop id"):
        choose_columns(open_source(tmp_path / "in.parquet"))
    assert choose_columns(open_source(tmp_path / "in.parquet", drop=["id"]), drop=["id"]).id is None


def test_addresses_are_pictures_where_hosts_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"URL": ["https://a.example/b.png"], "TEXT": ["a"]}), tmp_path / "in.parquet")
    assert choose_columns(open_source(tmp_path / "in.parquet")).text == "TEXT"
    fetching = FetchPolicy(hosts=("a.example",))
    with pytest.raises(SourceError, match=r"may be the images: URL .*--image URL"):
        choose_columns(open_source(tmp_path / "in.parquet", fetching=fetching))


def test_the_names_of_files_in_a_folder_are_no_captions(tmp_path: Path) -> None:
    (tmp_path / "red car.png").touch()
    for embedded in ("both", "text"):
        with pytest.raises(SourceError, match="names of files are none"):
            choose_columns(open_source(tmp_path), embed=embedded)


def test_columns_that_are_not_there_are_answered_with_those_that_are(tmp_path: Path) -> None:
    pq.write_table(pa.table({"score": [1.0]}), tmp_path / "in.parquet")
    with pytest.raises(
        SourceError,
        match=r"no column that looks like texts .*; name it with --text; its columns are score \(double\)",
    ):
        choose_columns(open_source(tmp_path / "in.parquet"))
    with pytest.raises(SourceError, match=r"no column that looks like images"):
        choose_columns(open_source(tmp_path / "in.parquet"), embed="image")
    with pytest.raises(SourceError, match=r"image column 'score' is double"):
        choose_columns(open_source(tmp_path / "in.parquet"), image="score")
