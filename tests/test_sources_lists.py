"""CSV and JSON Lines: every row of a list is read once, as it stands, or the list is refused by name and line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lance_align
from lance_align.errors import SourceError
from lance_align.jobs.columns import choose_columns
from lance_align.jobs.sources import Source, Split, open_source

QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def rows_of(source: Source) -> list[dict[str, Any]]:
    tables = [table for split in source.splits for table in source.read(Split.from_json(split.to_json()))]
    return [row for table in tables for row in table.to_pylist()]


def opened(content: str | bytes, path: Path, **options: Any) -> Source:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return open_source(path, **options)


def types_of(source: Source) -> dict[str, str]:
    return {field.name: str(field.type) for field in source.schema}


# Types


@pytest.mark.parametrize(
    "cells",
    [
        ("007", "7", "07", "0070"),
        ("0x7", "7"),
        ("1e3", "1000"),
        ("+5", "5"),
        ("-0", "0"),
        ("1.10", "1.1"),
        ("12345678901234567890", "12345678901234567891"),
        ("9007199254740993", "0.5"),
        ("2020-01-01", "2020-01-02"),
        ("10:00:00", "11:00:00"),
        ("2020-01-01 10:00:00", "2020-01-01T10:00:00Z"),
        ("1_000", "1,000"),
        ("true", "True"),
        ("1", "true"),
        ("٣", "3"),
    ],
)
def test_cells_that_would_not_print_back_stay_text(cells: tuple[str, ...], tmp_path: Path) -> None:
    """In a column that plays no role, and whichever row has the odd cell."""
    for order in (cells, cells[::-1]):
        text = "".join(f'a,"{cell}"\n' for cell in order)
        source = opened("kind,n\n" + text, tmp_path / "rows.csv")
        assert [row["n"] for row in rows_of(source)] == list(order)


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (("1", "", "-7"), "int64", [1, None, -7]),
        (("9223372036854775807", "1"), "int64", [2**63 - 1, 1]),
        (("0.5", "", "1e-05"), "double", [0.5, None, 1e-05]),
        (("1", "0.5", "-1.0"), "double", [1.0, 0.5, -1.0]),
        (("true", "false", ""), "bool", [True, False, None]),
        (("", ""), "string", [None, None]),
    ],
)
def test_cells_that_print_back_are_what_they_look_like(
    cells: tuple[str, ...], kind: str, values: list[Any], tmp_path: Path
) -> None:
    source = opened("kind,n\n" + "".join(f"a,{cell}\n" for cell in cells), tmp_path / "rows.csv")
    assert types_of(source)["n"] == kind
    assert [row["n"] for row in rows_of(source)] == values


@pytest.mark.parametrize(("name", "role"), [("ID", "id"), ("title", "text"), ("file", "image"), ("uuid", "id")])
def test_columns_that_play_a_role_are_text(name: str, role: str, tmp_path: Path) -> None:
    """Whether they are called so, or the user says so."""
    for column, options in ((name, {}), ("other", {role: "other"})):
        source = opened(f"{column},n\n1,1\n2,2\n", tmp_path / "rows.csv", as_text=tuple(options.values()))
        assert types_of(source) == {column: "string", "n": "int64"}
        embed: Any = None if role == "image" else "text"
        said: dict[str, Any] = options if role in ("image", "text") else {"text": column, **options}
        columns = choose_columns(source, embed=embed, **said)
        assert getattr(columns, role) == column


def test_a_size_is_no_path(tmp_path: Path) -> None:
    source = opened("file,bytes,image\na.png,100,7\n", tmp_path / "rows.csv")
    assert types_of(source) == {"file": "string", "bytes": "int64", "image": "int64"}
    assert choose_columns(source).image == "file"


def test_strings_of_json_are_strings(tmp_path: Path) -> None:
    row = {
        "id": "2020-01-01",
        "text": "2020-01-01 10:00:00",
        "when": "2020-01-01T10:00:00Z",
        "in": {"t": ["2020-01-01"]},
    }
    source = opened(json.dumps(row) + "\n", tmp_path / "rows.jsonl")
    assert rows_of(source) == [row]
    assert choose_columns(source, embed="text").id == "id"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((1, None, -(2**63)), "int64"),
        ((1, 2**64 - 1), "uint64"),
        ((1, 0.5), "double"),
        ((True, None), "bool"),
        ((None, None), "string"),
        (([], None), "list<item: string>"),
        (([1], [0.5]), "list<item: double>"),
        (({"a": 1}, {"b": "x"}), "struct<a: int64, b: string>"),
    ],
)
def test_values_of_json_have_one_type(values: tuple[Any, ...], kind: str, tmp_path: Path) -> None:
    for order in (values, values[::-1]):
        lines = "".join(json.dumps({"file": "a.png", "n": value}) + "\n" for value in order)
        source = opened(lines, tmp_path / "rows.jsonl")
        if not kind.startswith("struct"):
            assert types_of(source)["n"] == kind
            assert [row["n"] for row in rows_of(source)] == list(order)
        else:
            assert {"a": 1, "b": None} in [row["n"] for row in rows_of(source)]


def test_a_number_among_texts(tmp_path: Path) -> None:
    """Is text where the column plays a role; elsewhere both lines are named, with the remedy."""
    lines = '{"id": 12345678901234567890, "caption": 1984}\n{"id": "a", "caption": "b"}\n'
    source = opened(lines, tmp_path / "rows.jsonl")
    assert [row["id"] for row in rows_of(source)] == ["12345678901234567890", "a"]
    assert [row["caption"] for row in rows_of(source)] == ["1984", "b"]
    lines = '{"text": "a", "w": 1}\n{"text": "b", "w": 2}\n{"text": "c", "w": "96"}\n'
    with pytest.raises(SourceError, match=r"rows\.jsonl line 3 has text in 'w', .*line 1 has a number; .*--drop w"):
        opened(lines, tmp_path / "rows.jsonl")
    assert [row["text"] for row in rows_of(open_source(tmp_path / "rows.jsonl", drop=["w"]))] == ["a", "b", "c"]


# Several files


@pytest.mark.parametrize(
    ("suffix", "one", "other", "kind", "values"),
    [
        ("csv", "n\n96\n", 'n\n""\n', "int64", [96, None]),
        ("csv", "n\n1\n", "n\n0.5\n", "double", [1.0, 0.5]),
        ("csv", "n\n1\n", "n\nx\n", "string", ["1", "x"]),
        ("csv", "n\n007\n", "n\n7\n", "string", ["007", "7"]),
        ("csv", "n\n1\n", "", "int64", [1]),
        ("csv", "", "n\n1\n", "int64", [1]),
        ("csv", "n\n", "n\n1\n", "int64", [1]),
        ("csv", "m,n\n1,2\n", "n;m\n3;4\n", "int64", [2, 3]),
        ("csv", "m\n1\n", "m,n\n3,4\n", "int64", [None, 4]),
        ("jsonl", '{"n": null}\n', '{"n": 3}\n', "int64", [None, 3]),
        ("jsonl", '{"m": 1}\n', '{"m": 1, "n": true}\n', "bool", [None, True]),
        ("jsonl", '{"n": 1}\n', "", "int64", [1]),
        ("jsonl", '{"n": 1}\n', '{"n": 0.5}\n', "double", [1.0, 0.5]),
    ],
)
def test_files_of_one_source_have_one_schema(
    suffix: str, one: str, other: str, kind: str, values: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"a.{suffix}").write_text(one)
    (tmp_path / "in" / f"b.{suffix}").write_text(other)
    source = open_source(tmp_path / "in")
    assert types_of(source)["n"] == kind
    assert [row["n"] for row in rows_of(source)] == values


def test_a_conflict_of_files_names_both(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "n": [1]}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "b", "n": {"m": 1}}\n')
    with pytest.raises(
        SourceError, match=r"b\.jsonl line 1 has an object in 'n', .*a\.jsonl line 1 has a list; .*--drop n"
    ):
        open_source(tmp_path)
    assert open_source(tmp_path, drop=["n"]).rows() == 2


def test_a_file_without_a_header_line_loses_no_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("file,caption\na.png,a\n")
    (tmp_path / "b.csv").write_text("b.png,b\nc.png,c\n")
    with pytest.raises(SourceError, match=r"b\.csv has none of the columns .* but b\.png, b; expected a header line"):
        open_source(tmp_path)


# The end


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('id,caption\n1,a\n2,"b\n3,c\n4,d\n', 3),
        ('id,"caption\n1,a\n', 1),
        ('id,caption\n1,"two\nlines","x\n', 3),
        ('id,caption\n1,a\n2,"', 3),
        ('\n\nid,caption\n1,"a\n', 4),
        ('id;caption\n1;"a""\n2;b\n', 2),
    ],
)
def test_a_quotation_that_never_closes_is_named(text: str, line: int, tmp_path: Path) -> None:
    for suffix, content in (
        (".csv", text.encode()),
        (".csv.gz", gzip.compress(text.encode())),
        ("16.csv", text.encode("utf-16")),
    ):
        with pytest.raises(
            SourceError, match=rf"rows{suffix} cannot be read as CSV: the quotation that opens in line {line} never"
        ):
            opened(content, tmp_path / f"rows{suffix}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('id,caption\n1,"a\n2,"b"\n', r"in line 3, text follows the end of the quotation that opens in line 2"),
        ("id,caption\n1,a\n2,b,c\n", r"line 3 has 3 cells, the header line 2; .*--delimiter .*','"),
        ("id,caption\n1\n", r"line 2 has 1 cells, the header line 2"),
        ("id,caption,id\n1,a,2\n", r"two columns 'id'"),
        ("", "is empty"),
        ("i\0d\0,\0a\0\n\0", "NUL characters in its header line; .*save it as UTF-8"),
    ],
)
def test_a_list_that_does_not_fit_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=message):
        opened(text, tmp_path / "rows.csv")


def test_a_long_quotation_and_a_long_line_are_refused_before_they_are_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lance_align.jobs.sources.lists.MAX_CHARS", 2**18)
    with pytest.raises(SourceError, match=r"line 2 (has over|is longer than) 262,144 characters"):
        opened("id\n" + "x" * 2**19 + "\n", tmp_path / "rows.csv")
    assert len(rows_of(opened("id\n" + "x" * (2**18 - 1) + "\n", tmp_path / "rows.csv"))[0]["id"]) == 2**18 - 1
    before = csv.field_size_limit(2**17)
    try:
        with pytest.raises(SourceError, match=r"the quotation that opens in line 3 is longer than .*; close it"):
            opened('id\na\n"' + ("x" * 1024 + "\n") * 260, tmp_path / "rows.csv")
    finally:
        csv.field_size_limit(before)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_gz_file_is_read_to_its_end_or_refused(suffix: str, tmp_path: Path) -> None:
    lines = ["id,n\n", *(f"{n},{n * n}\n" for n in range(3000))]
    if suffix == "jsonl":
        lines = [json.dumps({"id": str(n), "n": n * n}) + "\n" for n in range(3000)]
    whole = gzip.compress("".join(lines).encode())
    members = gzip.compress("".join(lines[:1000]).encode()) + gzip.compress("".join(lines[1000:]).encode())
    for good in (whole, members):
        assert len(rows_of(opened(good, tmp_path / f"A.{suffix}.GZ"))) == 3000
    crc = bytearray(whole)
    crc[-8] ^= 1
    for bad in (
        b"",
        whole[:-9],
        whole[:-1],
        whole[: len(whole) // 2],
        bytes(crc),
        whole + b"garbage",
        whole + members[:50],
    ):
        with pytest.raises(SourceError, match=rf"a\.{suffix}\.gz cannot be read as"):
            opened(bad, tmp_path / f"a.{suffix}.gz")


def test_a_list_that_became_shorter_is_no_end(tmp_path: Path) -> None:
    for name, lines in (("a.csv", ["n", *map(str, range(50))]), ("a.jsonl", [f'{{"n": {n}}}' for n in range(50)])):
        source = opened("\n".join(lines) + "\n", tmp_path / name)
        (tmp_path / name).write_text("\n".join(lines[:-5]) + "\n")
        with pytest.raises(SourceError, match="became shorter while it was read"):
            rows_of(source)


# Delimiters and encodings


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv"])
def test_delimiters_are_seen_in_the_header_line(delimiter: str, name: str, tmp_path: Path) -> None:
    rows = [["id", "file", "caption"], ["1", "a.png", "a; b, c|d\te"], ["2", "b.png", 'said "x"\nand']]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    found = rows_of(opened(text.getvalue(), tmp_path / name))
    assert found == [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def test_a_tsv_file_has_tabs_if_its_header_line_may_have_either(tmp_path: Path) -> None:
    assert rows_of(opened("a, b\tc\n1\t2\n", tmp_path / "rows.tsv")) == [{"a, b": 1, "c": 2}]


def test_excel_says_the_delimiter_in_a_line_of_its_own(tmp_path: Path) -> None:
    assert rows_of(opened("sep=;\r\na,b;c,d\r\n1;2\r\n", tmp_path / "rows.csv")) == [{"a,b": 1, "c,d": 2}]
    with pytest.raises(SourceError, match="opens in line 3 never closes"):
        opened('sep=;\na;b\n1;"2\n', tmp_path / "rows.csv")


def test_a_delimiter_can_be_said(tmp_path: Path) -> None:
    assert rows_of(opened("a^b,c\n1^2\n", tmp_path / "rows.csv", delimiter="^")) == [{"a": 1, "b,c": 2}]
    assert rows_of(opened("a\tb;c;d\n1\t2\n", tmp_path / "rows.csv", delimiter="tab")) == [{"a": 1, "b;c;d": 2}]
    for wrong in ("", ",,", '"', "\n"):
        with pytest.raises(SourceError, match="cannot separate cells"):
            open_source(tmp_path / "rows.csv", delimiter=wrong)
    (tmp_path / "rows.jsonl").write_text("{}\n")
    with pytest.raises(SourceError, match="only CSV has one"):
        open_source(tmp_path / "rows.jsonl", delimiter=";")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-8"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_encodings_are_told_by_their_mark(encoding: str, ends: str, tmp_path: Path) -> None:
    text = ends.join(["id,caption", "1,käse 🧀", "2,鳥", ""])
    wanted = [{"id": "1", "caption": "käse 🧀"}, {"id": "2", "caption": "鳥"}]
    assert rows_of(opened(text.encode(encoding), tmp_path / "rows.csv")) == wanted
    marked = b"\xfe\xff" + text.encode("utf-16-be")
    assert rows_of(opened(marked, tmp_path / "rows.csv")) == wanted
    if ends != "\r":
        lines = ends.join([*(json.dumps(row, ensure_ascii=False) for row in wanted), ""])
        assert rows_of(opened(lines.encode(encoding), tmp_path / "rows.jsonl")) == wanted


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_bytes_that_are_not_utf_8_touch_their_own_cell(suffix: str, tmp_path: Path) -> None:
    if suffix == "csv":
        content = b"image,caption\n0.png,ok\ncaf\xe9.png,k\xc3\xa4se\n2.png,caf\xe9 \\ \xff\n"
    else:
        content = (
            b'{"image": "0.png", "caption": "ok"}\n{"image": "caf\xe9.png", "caption": "k\xc3\xa4se"}\n'
            b'{"image": "2.png", "caption": "caf\xe9 \\\\ \xff"}\n'
        )
    source = opened(content, tmp_path / f"rows.{suffix}")
    assert rows_of(source) == [
        {"image": "0.png", "caption": "ok"},
        {"image": r"caf\xe9.png", "caption": "käse"},
        {"image": "2.png", "caption": r"caf\xe9 \\ \xff"},
    ]
    columns = choose_columns(source, embed="both")
    assert (columns.image, columns.image_kind, columns.text) == ("image", "path", "caption")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_an_id_of_other_bytes_is_another_id(suffix: str, tmp_path: Path) -> None:
    """Valid text stays as it is; what is mended never reads like it, nor like another mended text."""
    ids = [b"a\xff", rb"a\xff", rb"a\\xff", b"a\\\xff", b"\xff", b"a\xfe"]
    rows = [b"%s,t" % cell for cell in ids]
    content = b"\n".join([b"id,text", *rows, b""])
    if suffix == "jsonl":
        content = b"".join(b'{"id": "%s", "text": "t"}\n' % cell.replace(b"\\", b"\\\\") for cell in ids)
    elif suffix == "parquet":
        raw = pa.array(ids, pa.binary())
        sink = pa.BufferOutputStream()
        texts = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
        pq.write_table(pa.table({"id": texts, "text": ["t"] * len(ids)}), sink)
        content = sink.getvalue().to_pybytes()
    opened(content, tmp_path / f"rows.{suffix}")
    for expected in (len(ids), 0):
        report = lance_align.embed(
            tmp_path / f"rows.{suffix}", db=tmp_path / "db", table="t", model="fake", executor="local", progress=False
        )
        assert (report.rows_read, report.embedded, report.duplicates) == (len(ids), expected, 0)
    found = lancedb.connect(tmp_path / "db").open_table("t").to_arrow()["id"].to_pylist()
    assert {r"a\xff", r"a\\xff", r"\xff", r"a\xfe"} < set(found)
    assert len(set(found)) == len(ids)


def test_a_list_through_a_job(tmp_path: Path) -> None:
    """Semicolons, tabs, a mark, dates, zeros: each row of each file is in the table once, with its id and its text."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tsv").write_bytes("id\tcaption\twhen\n007\tone\t2020-01-01\n7\ttwo\t\n".encode("utf-16"))
    (tmp_path / "in" / "b.csv").write_text("caption;id;score\nthree;2020-01-01;1.10\n1984;12345678901234567890;\n")
    options: dict[str, Any] = {"db": tmp_path / "db", "table": "t", "model": "fake", "executor": "local"}
    for expected in (4, 0):
        report = lance_align.embed(tmp_path / "in", embed="text", progress=False, **options)
        assert (report.rows_read, report.embedded, report.failed, report.duplicates) == (4, expected, 0, 0)
    rows = lancedb.connect(tmp_path / "db").open_table("t").to_arrow().select(["id", "caption", "when", "score"])
    assert sorted(tuple(row.values()) for row in rows.to_pylist()) == [
        ("007", "one", "2020-01-01", None),
        ("12345678901234567890", "1984", None, None),
        ("2020-01-01", "three", None, "1.10"),
        ("7", "two", None, None),
    ]


# JSON Lines


def test_half_a_surrogate_pair_costs_nothing(tmp_path: Path) -> None:
    lines = r'{"text": "bad \ud83d half", "\udc00": [{"a": "\ude00"}]}' + "\n" + r'{"text": "ok \ud83d\ude00"}' + "\n"
    assert rows_of(opened(lines, tmp_path / "rows.jsonl")) == [
        {"text": r"bad \ud83d half", r"\udc00": [{"a": r"\ude00"}]},
        {"text": "ok 😀", r"\udc00": None},
    ]


@pytest.mark.parametrize(
    "line",
    [
        '{"text": ',
        "[1, 2]",
        "7",
        '"text"',
        "null",
        '{"text": "a"} {"text": "b"}',
        '{"text": "a", "text": "b"}',
        '{"in": {"a": 1, "a": 2}}',
        '{"n": 1e400}',
        '{"n": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"n": ' + "7" * 5000 + "}",
        "\0",
    ],
)
def test_a_line_that_is_no_object_is_named(line: str, tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"rows\.jsonl cannot be read as JSON Lines: line 3 \(.*\); .*mend these lines"
    ):
        opened(f'{{"text": "a"}}\n\n{line}\n{{"text": "b"}}\n', tmp_path / "rows.jsonl")


@pytest.mark.parametrize(("value", "seen"), [("[" * 300 + "]" * 300, "64 levels"), ("7" * 400, "300 digits")])
def test_values_that_no_table_holds_are_named(value: str, seen: str, tmp_path: Path) -> None:
    lines = f'{{"text": "a"}}\n{{"text": "b", "n": {value}}}\n'
    with pytest.raises(SourceError, match=rf"rows\.jsonl line 2 has a value of more than {seen}; .*--drop"):
        opened(lines, tmp_path / "rows.jsonl")
    assert open_source(tmp_path / "rows.jsonl", drop=["n"]).rows() == 2


def test_many_bad_lines_are_counted(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"line 1 \(.*\), line 2 \(.*\), line 3 \(.*\) and 5 more; "):
        opened("{\n" * 8 + "{}\n", tmp_path / "rows.jsonl")


def test_an_array_of_objects_is_named_with_the_remedy(tmp_path: Path) -> None:
    opened(gzip.compress(b'{"text": "a"}\n'), tmp_path / "rows.json.gz")
    assert open_source(tmp_path / "rows.json.gz").rows() == 1
    for name in ("rows.json", "rows.jsonl", "rows"):
        with pytest.raises(SourceError, match=r"it holds an array; .*jq -c"):
            opened('[\n {"text": "a"},\n {"text": "b"}\n]\n', tmp_path / name)
    assert rows_of(opened('{"text": "a"}\n', tmp_path / "rows.json")) == [{"text": "a"}]  # many data sets call them so


# Any text


def rows_or_refusal(content: bytes, path: Path) -> list[dict[str, Any]] | None:
    try:
        return rows_of(opened(content, path))
    except SourceError as error:
        if str(path) not in str(error):
            raise
        return None


CELLS = st.text(alphabet=st.sampled_from("ab0 1.;\t|é\\-"), max_size=6)


@QUICK
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8),
    at=st.integers(0, 10**6),
    byte=st.integers(0, 255),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    instead=st.booleans(),
)
def test_any_byte_anywhere_in_csv(
    rows: list[tuple[str, str]], at: int, byte: int, quoting: Any, instead: bool, tmp_path: Path
) -> None:
    """Put in, or instead of another: all rows are there and differ in one place, or the list is refused by name."""
    text = io.StringIO()
    csv.writer(text, quoting=quoting, lineterminator="\n").writerows([("key", "caption"), *rows])
    data = bytearray(text.getvalue().encode())
    head = data.index(b"\n") + 1
    at = head + at % (len(data) - head)
    data[at : at + instead] = bytes([byte])
    found = rows_or_refusal(bytes(data), tmp_path / "rows.csv")
    if found is None:
        return
    wanted = [tuple(cell or None for cell in row) for row in rows]
    seen = [tuple(None if cell is None else str(cell) for cell in row.values()) for row in found]
    assert len(seen) == len(wanted)
    assert sum(map(lambda one, other: as_text(one) != as_text(other), seen, wanted)) <= 1


def as_text(row: tuple[str | None, ...]) -> list[str]:
    return [(cell or "").removesuffix(".0") for cell in row]


@QUICK
@given(
    rows=st.lists(st.tuples(st.text(max_size=6), st.integers()), min_size=1, max_size=6),
    at=st.integers(0, 10**6),
    damage=st.binary(min_size=1, max_size=3),
)
def test_any_bytes_anywhere_in_json_lines(rows: list[tuple[str, int]], at: int, damage: bytes, tmp_path: Path) -> None:
    lines = [json.dumps({"id": str(number), "text": text, "n": n}) for number, (text, n) in enumerate(rows)]
    data = bytearray("".join(line + "\n" for line in lines).encode())
    at %= len(data)
    data[at : at + len(damage)] = damage
    found = rows_or_refusal(bytes(data), tmp_path / "rows.jsonl")
    if found is None:
        return
    assert len(found) == len(rows)
    assert sum(row.get("text") != text for row, (text, _) in zip(found, rows, strict=True)) <= 1


def as_float(cell: str) -> str:
    return f"{cell}.0" if re.fullmatch("-?[0-9]+", cell) else cell.lower()


NUMBERS = st.from_regex(r"[-+]?[0-9]{0,3}(\.[0-9]{0,2})?(e[0-9])?", fullmatch=True) | st.integers().map(str)
WORDS = st.sampled_from(["true", "True", "FALSE", "nan", "NaN", "inf", "-0", "1_0", "0x1", "٣"])


@QUICK
@given(
    cells=st.lists(st.text(max_size=8), min_size=1, max_size=9)
    | st.lists(NUMBERS, min_size=1, max_size=3)
    | st.lists(NUMBERS | WORDS, min_size=1, max_size=3)
    | st.lists(st.floats(width=16).map(repr) | st.integers().map(str), min_size=1, max_size=3)
)
def test_any_cells_come_back_as_they_stood(cells: list[str], tmp_path: Path) -> None:
    """Whatever their type became: printed again, they are the same."""
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("kind", "n"), *(("a", cell) for cell in cells)])
    found = [row["n"] for row in rows_of(opened(text.getvalue(), tmp_path / "rows.csv"))]
    words: dict[type, Callable[[Any], str]] = {float: repr, int: str, str: str, bool: str, type(None): lambda _: ""}
    printed = [words[type(value)](value) for value in found]
    if any(isinstance(value, bool) for value in found):  # of one spelling
        assert [text.lower() for text in printed] == [cell.lower() for cell in cells]
    elif any(isinstance(value, float) for value in found):
        assert [text.lower() for text in printed] in ([cell.lower() for cell in cells], [as_float(c) for c in cells])
    else:
        assert printed == cells
