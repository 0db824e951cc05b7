"""Names of rows: equal rows get equal digests, different ones do not, however the rows are cut and encoded."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lance_align.errors import SourceError
from lance_align.jobs.ids import content_hash, hex_hashes, row_digests, text_ids

UUID = uuid.UUID("b6a226de-27b4-4093-b9b4-8261e33e0ada")
SCHEMA = pa.schema(
    {
        "text": pa.string(),
        "data": pa.binary(),
        "number": pa.int32(),
        "flag": pa.bool_(),
        "time": pa.timestamp("ms"),
        "price": pa.decimal128(8, 2),
        "lists": pa.list_(pa.list_(pa.int8())),
        "pair": pa.list_(pa.float32(), 2),
        "box": pa.struct([pa.field("a", pa.string()), pa.field("b", pa.list_(pa.bool_()))]),
        "map": pa.map_(pa.string(), pa.int16()),
    }
)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


rows = st.fixed_dictionaries(
    {
        "text": maybe(st.sampled_from(["", "a", "ab", "é\0", "b"])),
        "data": maybe(st.sampled_from([b"", b"a", b"ab", b"\0"])),
        "number": maybe(st.integers(-2, 2)),
        "flag": maybe(st.booleans()),
        "time": maybe(st.sampled_from([dt.datetime(1970, 1, 1), dt.datetime(2026, 1, 1)])),
        "price": maybe(st.sampled_from([Decimal("0.00"), Decimal("1.50")])),
        "lists": maybe(st.lists(maybe(st.lists(maybe(st.integers(0, 1)), max_size=2)), max_size=2)),
        "pair": maybe(st.lists(maybe(st.sampled_from([0.0, 1.0])), min_size=2, max_size=2)),
        "box": maybe(
            st.fixed_dictionaries(
                {"a": maybe(st.sampled_from(["", "a"])), "b": maybe(st.lists(st.booleans(), max_size=2))}
            )
        ),
        "map": maybe(st.lists(st.tuples(st.sampled_from(["", "a"]), maybe(st.integers(0, 1))), max_size=2)),
    }
)


@settings(max_examples=60, deadline=None)
@given(st.lists(rows, min_size=1, max_size=12), st.data())
def test_digests_are_equal_exactly_for_equal_rows_however_they_are_cut(found: list[dict[str, Any]], data: Any) -> None:
    table = pa.Table.from_pylist(found, schema=SCHEMA)
    digests = row_digests(table)
    assert all(len(digest) == 32 for digest in digests)
    for i, left in enumerate(found):
        for j, right in enumerate(found):
            assert (digests[i] == digests[j]) == (left == right)

    cut = data.draw(st.integers(0, len(found)))
    assert row_digests(table.slice(0, cut)) + row_digests(table.slice(cut)) == digests  # slices share buffers
    chunked = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    assert row_digests(chunked) == digests
    encoded = table.set_column(0, "text", table.column("text").dictionary_encode())
    assert row_digests(encoded.select(list(reversed(SCHEMA.names)))) == digests


def test_digests_stay_the_same_from_version_to_version() -> None:
    table = pa.table({"caption": ["a cat", None], "n": pa.array([1, 2], pa.int64())})
    assert row_digests(table) == [
        "7def954cad51588cf4d53b5a18bd791d",
        "b071b2fb98096cb2313f066215ecd26d",
    ]


def test_boundaries_between_cells_count() -> None:
    assert len(set(row_digests(pa.table({"a": ["x", "", "xy"], "b": ["y", "xy", ""]})))) == 3


def test_cells_behind_null_lists_do_not_count() -> None:
    hidden = pa.ListArray.from_arrays(
        pa.array([0, 2, 3], pa.int32()), pa.array([1, 2, 3]), mask=pa.array([True, False])
    )
    plain = pa.array([None, [3]], pa.list_(pa.int64()))
    assert row_digests(pa.table({"x": hidden})) == row_digests(pa.table({"x": plain}))


def test_unions_have_no_digest() -> None:
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
    with pytest.raises(SourceError, match="name an id column"):
        row_digests(pa.table({"x": union}))


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pa.array([7, None], pa.uint64()), ["7", None]),
        (pa.array(["7", None], pa.large_string()), ["7", None]),
        (pa.array(["b", "b"]).dictionary_encode(), ["b", "b"]),
        (pa.array([3, 3], pa.int16()).dictionary_encode(), ["3", "3"]),
        (pa.array([2**64 - 1, None], pa.uint64()), ["18446744073709551615", None]),
        (pa.array([UUID.bytes, None], pa.uuid()), [str(UUID), None]),
        (pa.array([UUID.bytes, None], pa.binary(16)), [UUID.hex, None]),
        (pa.array([b"a b", b"\xc3\xa9", b"a\xff", None]), ["a b", "é", r"a\xff", None]),
        (pa.array([b"a\xff", rb"a\xff", rb"a\b", b"a\\b\xff"]), [r"a\xff", r"a\\xff", r"a\b", r"a\\b\xff"]),
        (pa.array([Decimal("12345678901234567890"), None], pa.decimal128(38, 0)), ["12345678901234567890", None]),
        (pa.array([Decimal("100.50"), Decimal("0.00")], pa.decimal256(50, 20)), ["100.5", "0"]),
        (pa.array([dt.date(2020, 1, 10), None], pa.date32()), ["2020-01-10", None]),
        (pa.array([dt.datetime(2020, 1, 10), None], pa.timestamp("s")), ["2020-01-10 00:00:00", None]),
        (pa.array([dt.datetime(2020, 1, 10, 0, 0, 20)], pa.timestamp("ns")), ["2020-01-10 00:00:20"]),
        (pa.array([dt.datetime(2020, 1, 1, 0, 0, 0, 1200)], pa.timestamp("us", "UTC")), ["2020-01-01 00:00:00.0012Z"]),
        (pa.array([dt.time(10, 20, 30)], pa.time64("us")), ["10:20:30"]),
        (pa.nulls(2), [None, None]),
    ],
)
def test_ids_become_text(values: pa.Array[Any], texts: list[str | None]) -> None:
    assert text_ids(pa.chunked_array([values]), "n").to_pylist() == texts


def test_floats_are_no_ids() -> None:
    with pytest.raises(SourceError, match="id column 'n' is double; expected text, whole numbers, "):
        text_ids(pa.chunked_array([[1.0]]), "n")


def test_content_hashes_tell_rows_and_images_apart() -> None:
    one, other = row_digests(pa.table({"caption": ["a", "b"]}))
    hashes = {content_hash(digest, image) for digest in (one, other) for image in (None, b"", b"x", b"\1x")}
    assert len(hashes) == 8
    assert content_hash(one, b"x") == content_hash(one, b"x")
    assert content_hash("00" * 16, b"x") == "a884875a17eb0cd3444fb2feda565a01"  # in tables: from version to version


def test_hexadecimal_digits_become_hashes_and_anything_else_none() -> None:
    digits = "00000000000000010000000000000002"
    found, valid = hex_hashes(pa.array([digits, None, "", digits.upper() + "\n", "x" * 32, "é" * 32]))
    assert valid.tolist() == [True, False, False, False, False, False]
    assert found[0].tolist() == [2**56, 2 * 2**56]
    assert not found[1:].any()
