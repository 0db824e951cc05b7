"""Names of rows: equal rows get equal digests, different ones do not, however the rows are cut and encoded."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lance_align.errors import SourceError
from lance_align.jobs.ids import id_hashes, row_digests, text_ids
from lance_align.jobs.ledger import DUPLICATE, GRANTED, IN_TABLE, THERE, IdSet, Ledger

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
    ],
)
def test_ids_become_text(values: pa.Array[Any], texts: list[str | None]) -> None:
    assert text_ids(pa.chunked_array([values]), "n").to_pylist() == texts


def test_floats_are_no_ids() -> None:
    with pytest.raises(SourceError, match="id column 'n' is double; expected text or whole numbers"):
        text_ids(pa.chunked_array([[1.0]]), "n")


def hashes(*numbers: int) -> Any:
    return np.array([[number >> 1, number & 1] for number in numbers], dtype=np.uint64)  # pairs share a half


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=8), max_size=12))
def test_the_ledger_grants_each_id_once_and_again_to_the_same_row(claims: list[list[int]]) -> None:
    ledger = Ledger()
    firsts = [100 * number for number in range(len(claims))]
    answers = [ledger.claim(first, hashes(*claim), 0.0).tolist() for first, claim in zip(firsts, claims, strict=True)]
    granted = [
        row
        for claim, answer in zip(claims, answers, strict=True)
        for row, a in zip(claim, answer, strict=True)
        if a == GRANTED
    ]
    assert sorted(granted) == sorted({number for claim in claims for number in claim})
    tally = ledger.tally()
    for first, claim, answer in reversed(list(zip(firsts, claims, answers, strict=True))):
        assert ledger.claim(first, hashes(*claim), 0.0).tolist() == answer  # a task that is run again
    assert ledger.tally() == tally
    assert tally.read == tally.granted + tally.duplicates == sum(map(len, claims))


def test_the_ledger_knows_what_the_table_holds() -> None:
    ledger = Ledger([["a", "b"], ["c", "c"]])
    answers = ledger.claim(0, id_hashes(["a", "x", "x", "c"]), 0.5)
    assert answers.tolist() == [THERE, GRANTED, DUPLICATE, THERE]
    assert ledger.tally().there == 2
    assert ledger.tally().read_s == 0.5


def test_an_id_set_finds_all_of_many() -> None:
    numbers = np.random.default_rng(0).permutation(20_000)
    ids = IdSet()
    for start in range(0, 20_000, 700):
        part = numbers[start : start + 700]
        ids.add(hashes(*part.tolist()), part.astype(np.int64))
    known, owners = ids.owners(hashes(*range(20_000)))
    assert known.all()
    assert owners.tolist() == list(range(20_000))
    assert not ids.owners(hashes(20_000, 20_001))[0].any()
    assert IN_TABLE < 0
