"""Files of one source with different schemas: every value is read as it stood, or the file and column are named."""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from lance_align.errors import SourceError
from lance_align.jobs.sources import Source, open_source
from lance_align.jobs.sources.schemas import as_type, common_type, plain_type

BIG = 2**53 + 1  # the first whole number that a double does not hold


def rows_of(source: Source) -> list[dict[str, Any]]:
    return [row for split in source.splits for table in source.read(split) for row in table.to_pylist()]


def folder(tmp_path: Path, *tables: pa.Table, suffix: str = "arrow") -> Path:
    for number, table in enumerate(tables):
        if suffix == "parquet":
            pq.write_table(table, tmp_path / f"{number}.parquet")
            continue
        with ipc.new_file(tmp_path / f"{number}.arrow", table.schema) as file:
            file.write_table(table)
    return tmp_path


def one(values: list[Any], kind: Any, **other: Any) -> pa.Table:
    return pa.table({"a": pa.array(values, kind), **other})


@pytest.mark.parametrize(
    ("kind", "values", "with_kind", "with_values", "expected"),
    [
        (pa.null(), [None], pa.string(), ["x"], pa.string()),
        (pa.int8(), [-1], pa.int64(), [2**40], pa.int64()),
        (pa.uint8(), [255], pa.int8(), [-1], pa.int16()),
        (pa.uint64(), [2**64 - 1], pa.int64(), [-(2**63)], pa.decimal128(20, 0)),
        (pa.int32(), [2**31 - 1], pa.float32(), [0.5], pa.float64()),
        (pa.int64(), [2**53], pa.float64(), [0.5], pa.float64()),
        (pa.string(), ["x"], pa.large_string(), ["y"], pa.large_string()),
        (pa.string_view(), ["x"], pa.string(), ["y"], pa.string()),
        (pa.dictionary(pa.int8(), pa.string()), ["x", None, "x"], pa.string(), ["y"], pa.string()),
        (pa.binary(2), [b"xy"], pa.binary(), [b"x"], pa.binary()),
        (pa.binary_view(), [b"x"], pa.large_binary(), [b"y"], pa.large_binary()),
        (pa.date32(), [dt.date(2026, 1, 1)], pa.date64(), [dt.date(1, 1, 1)], pa.date64()),
        (
            pa.timestamp("s", "UTC"),
            [dt.datetime(2026, 1, 1, tzinfo=dt.UTC)],
            pa.timestamp("us", "+00:00"),
            [dt.datetime(2026, 1, 1, 0, 0, 0, 7, tzinfo=dt.UTC)],
            pa.timestamp("us", "UTC"),
        ),
        (
            pa.decimal128(5, 2),
            [decimal.Decimal("123.45")],
            pa.decimal128(9, 4),
            [decimal.Decimal("12345.6789")],
            pa.decimal128(9, 4),
        ),
        (pa.list_(pa.int8()), [[1], None, []], pa.large_list(pa.int64()), [[2**40]], pa.large_list(pa.int64())),
        (pa.list_(pa.int8(), 2), [[1, 2], None], pa.list_(pa.int8()), [[3]], pa.list_(pa.int8())),
    ],
)
def test_types_that_differ_harmlessly_become_one(
    kind: Any, values: list[Any], with_kind: Any, with_values: list[Any], expected: Any, tmp_path: Path
) -> None:
    source = open_source(folder(tmp_path, one(values, kind), one(with_values, with_kind)))
    assert source.schema.field("a").type == expected
    assert [row["a"] for row in rows_of(source)] == values + with_values


@pytest.mark.parametrize("suffix", ["arrow", "parquet"])
def test_columns_that_a_file_lacks_are_null_and_come_after_those_it_has(suffix: str, tmp_path: Path) -> None:
    first = pa.table({"a": [1], "b": ["x"]}, schema=pa.schema([pa.field("a", pa.int8(), False), ("b", pa.string())]))
    source = open_source(folder(tmp_path, first, pa.table({"c": [{"d": 1}], "b": ["y"]}), suffix=suffix))
    assert source.schema.names == ["a", "b", "c"]
    assert source.schema.field("a").nullable
    assert rows_of(source) == [{"a": 1, "b": "x", "c": None}, {"a": None, "b": "y", "c": {"d": 1}}]
    some = [table.to_pylist() for split in source.splits for table in source.read(split, columns=["c"])]
    assert some == [[{"c": None}], [{"c": {"d": 1}}]]


def test_structs_are_joined_by_the_names_of_their_fields(tmp_path: Path) -> None:
    first = pa.table({"a": pa.array([{"x": 1}, None])})
    source = open_source(folder(tmp_path, first, pa.table({"a": pa.array([{"y": ["v"], "x": 0.5}])})))
    assert [row["a"] for row in rows_of(source)] == [{"x": 1.0, "y": None}, None, {"x": 0.5, "y": ["v"]}]


@pytest.mark.parametrize(
    ("kind", "value", "with_kind", "with_value"),
    [
        (pa.int64(), 1, pa.string(), "1"),
        (pa.bool_(), True, pa.int8(), 1),
        (pa.string(), "x", pa.binary(), b"x"),
        (pa.timestamp("us"), dt.datetime(2026, 1, 1), pa.timestamp("us", "UTC"), dt.datetime(2026, 1, 1)),
        (pa.struct([("x", pa.int8())]), {"x": 1}, pa.struct([("x", pa.string())]), {"x": "1"}),
    ],
)
def test_a_real_conflict_names_files_column_types_and_remedy(
    kind: Any, value: Any, with_kind: Any, with_value: Any, tmp_path: Path
) -> None:
    path = folder(tmp_path, one([value], kind, b=pa.array(["x"])), one([with_value], with_kind, b=pa.array(["y"])))
    with pytest.raises(SourceError, match=r"1\.arrow has column 'a' as .*0\.arrow as .*--drop a") as raised:
        open_source(path)
    assert str(kind) in str(raised.value)
    assert str(with_kind) in str(raised.value)
    dropped = open_source(path, drop=["a"])
    assert (dropped.schema.names, dropped.dropped) == (["b"], ("a",))
    assert rows_of(dropped) == [{"b": "x"}, {"b": "y"}]


def test_a_column_to_drop_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no column 'c' to drop; its columns are a \(int64\)"):
        open_source(folder(tmp_path, one([1], pa.int64())), drop=["c"])


def test_a_number_is_refused_before_it_is_rounded(tmp_path: Path) -> None:
    source = open_source(folder(tmp_path, one([0.5], pa.float64()), one([BIG], pa.int64())))
    with pytest.raises(SourceError, match=r"1\.arrow: column 'a' holds a value that double does not hold .*--drop a"):
        rows_of(source)


def test_two_columns_of_one_name_are_refused_by_name_or_left_out(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], names=["a", "a", "b"])
    path = folder(tmp_path, twice)
    with pytest.raises(SourceError, match=r"0\.arrow has two columns 'a'; .*--drop a"):
        open_source(path)
    assert rows_of(open_source(path, drop=["a"])) == [{"b": 3}]


VARIANTS = pa.table(
    {
        "text": pa.array(["x", None, "long " * 9], pa.string_view()),
        "bytes": pa.array([b"x", None, b"long " * 9], pa.binary_view()),
        "list": pa.ListViewArray.from_arrays(
            [3, 0, 1], [2, 0, 2], pa.array(range(5)), mask=pa.array([False, True, False])
        ),
        "texts": pa.array([["x"], None, ["y", None]], pa.large_list_view(pa.string_view())),
        "struct": pa.array([{"x": ["v"]}, None, {"x": None}], pa.struct([("x", pa.list_(pa.string_view()))])),
        "map": pa.array([[("k", "v")], None, []], pa.map_(pa.string_view(), pa.string_view())),
        "class": pa.DictionaryArray.from_arrays(
            pa.array([1, None, 0], pa.uint32()), pa.array(["x", "y"], pa.string_view())
        ),
        "runs": pa.RunEndEncodedArray.from_arrays([2, 3], pa.array(["x", None], pa.string_view())),
    }
)


@pytest.mark.parametrize("start", [0, 1])
def test_storage_variants_are_read_as_what_they_mean(start: int, tmp_path: Path) -> None:
    source = open_source(folder(tmp_path, VARIANTS.slice(start)))
    assert [str(kind) for kind in source.schema.types] == [
        "string",
        "binary",
        "list<item: int64>",
        "large_list<item: string>",
        "struct<x: list<item: string>>",
        "map<string, string>",
        "dictionary<values=string, indices=uint32, ordered=0>",
        "string",
    ]
    expected = VARIANTS.to_pylist()[start:]
    assert rows_of(source) == expected


LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (pa.null(), st.none()),
    (pa.bool_(), st.booleans()),
    *((getattr(pa, f"int{bits}")(), st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)) for bits in (8, 16, 32, 64)),
    *((getattr(pa, f"uint{bits}")(), st.integers(0, 2**bits - 1)) for bits in (8, 16, 32, 64)),
    (pa.float32(), st.floats(width=32, allow_nan=False)),
    (pa.float64(), st.floats(allow_nan=False)),
    (pa.string(), st.text(max_size=5)),
    (pa.large_string(), st.text(max_size=5)),
    (pa.string_view(), st.text(max_size=20)),
    (pa.dictionary(pa.int16(), pa.string()), st.text(max_size=5)),
    (pa.binary(), st.binary(max_size=5)),
    (pa.binary(3), st.binary(min_size=3, max_size=3)),
    (pa.date32(), st.dates()),
    (pa.timestamp("ms"), st.datetimes().map(lambda when: when.replace(microsecond=0))),
    (pa.timestamp("us"), st.datetimes()),
    (
        pa.timestamp("ns", "UTC"),
        st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1), timezones=st.just(dt.UTC)),
    ),
    (pa.decimal128(6, 2), st.decimals(-9999, 9999, places=2, allow_nan=False)),
    (pa.decimal128(38, 10), st.decimals(-9999, 9999, places=10, allow_nan=False)),
]


def typed(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Types that hold others, with strategies of their values."""
    return st.one_of(
        inner.map(lambda item: (pa.list_(item[0]), st.lists(item[1], max_size=3))),
        inner.map(lambda item: (pa.list_(item[0], 2), st.lists(item[1], min_size=2, max_size=2))),
        inner.map(lambda item: (pa.list_view(item[0]), st.lists(item[1], max_size=3))),
        st.dictionaries(st.sampled_from("xyz"), inner, min_size=1, max_size=2).map(
            lambda fields: (
                pa.struct([(name, kind) for name, (kind, _) in fields.items()]),
                st.fixed_dictionaries({name: values for name, (_, values) in fields.items()}),
            )
        ),
    )


KINDS = st.recursive(st.sampled_from(LEAVES).map(lambda leaf: (leaf[0], leaf[1] | st.none())), typed, max_leaves=4)


@st.composite
def columns(draw: st.DrawFn) -> pa.Array[Any]:
    kind, values = draw(KINDS)
    try:
        return pa.array(draw(st.lists(values | st.none(), max_size=4)), kind)
    except pa.ArrowInvalid:  # a decimal with too many digits, a date too far away
        return pa.nulls(2)


def same(one: Any, other: Any) -> bool:
    """Whether a cell is what it was; fields that the other file brought are null."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(same(one.get(name), other.get(name)) for name in {*one, *other})
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(itertools.starmap(same, zip(one, other, strict=True)))
    return bool(one == other)


@settings(max_examples=100, deadline=None)
@given(columns(), columns(), st.integers(0, 2))
def test_two_columns_become_one_without_loss_or_are_refused(first: Any, second: Any, start: int) -> None:
    kind = common_type(plain_type(first.type), plain_type(second.type))
    assert kind == common_type(plain_type(second.type), plain_type(first.type)) or pa.types.is_nested(kind)
    if kind is None:
        return
    for array in (first[start:], second):
        try:
            read = as_type(pa.chunked_array([array]), kind)
        except pa.ArrowInvalid:  # a number that a double does not hold, a time beyond the finer unit's
            continue
        read.validate(full=True)
        assert read.type == kind
        assert same(read.to_pylist(), array.to_pylist()), (kind, array)


@settings(max_examples=20, deadline=None)
@given(columns(), columns())
def test_two_parquet_files_are_read_without_loss_or_refused(
    tmp_path_factory: pytest.TempPathFactory, first: Any, second: Any
) -> None:
    path = tmp_path_factory.mktemp("files")
    written = []
    for number, column in enumerate((first, second)):
        plain = as_type(pa.chunked_array([column]), plain_type(column.type))
        try:
            pq.write_table(pa.table({"a": plain, "n": range(len(column))}), path / f"{number}.parquet")
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # not every type can be written
            return
        written += plain.to_pylist()
    read: list[Any] | None = None
    message = "column 'a'"
    try:
        read = [row["a"] for row in rows_of(open_source(path))]
    except SourceError as error:
        message = str(error)
    assert "column 'a'" in message
    assert read is None or same(read, written)
