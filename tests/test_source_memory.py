"""A reader holds what it announces, whatever a file holds or claims."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lance_align.errors import SourceError
from lance_align.jobs.sources import Source, open_source
from lance_align.jobs.sources.base import CHUNK_BYTES, CHUNK_ROWS
from lance_align.jobs.sources.pages import pages

MIB = 2**20


def held(source: Source) -> tuple[int, int]:
    """Rows, and the most bytes that a reader has at once before they are cut."""
    tables = [
        (table.num_rows, table.nbytes) for split in source.splits for table in source.tables(split, source.schema.names)
    ]
    return sum(rows for rows, _ in tables), max(size for _, size in tables)


def of_photographs(rows: int, mib: int) -> pa.Table:
    return pa.table({"id": range(rows), "image": pa.array([bytes([row]) * mib * MIB for row in range(rows)])})


@pytest.mark.parametrize("suffix", [".parquet", ".lance"])
def test_rows_of_megabytes_are_read_a_few_at_a_time(suffix: str, tmp_path: Path) -> None:
    path, table = tmp_path / f"rows{suffix}", of_photographs(40, 4)
    if suffix == ".lance":
        lance.write_dataset(table, path)
    else:
        pq.write_table(table, path, compression="none")
    source = open_source(path)
    rows, most = held(source)
    assert rows == 40
    assert most <= 2 * CHUNK_BYTES + MIB
    assert [row for split in source.splits for read in source.read(split) for row in read["id"].to_pylist()] == [
        *range(40)
    ]
    light = [table.num_rows for split in source.splits for table in source.tables(split, ["id"])]
    assert max(light) >= 24  # what is not wanted does not count


def test_rows_that_all_name_one_long_value_count_with_it(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"x" * 4 * MIB] * 100}), tmp_path / "same.parquet", compression="none")
    rows, most = held(open_source(tmp_path / "same.parquet"))
    assert rows == 100
    assert most <= 4 * CHUNK_BYTES + MIB


def test_rows_of_paths_are_read_many_at_a_time(tmp_path: Path) -> None:
    pq.write_table(pa.table({"file": [f"{row}.png" for row in range(5000)]}), tmp_path / "rows.parquet")
    source = open_source(tmp_path / "rows.parquet")
    assert next(iter(source.tables(source.splits[0], ["file"]))).num_rows == CHUNK_ROWS


def test_a_page_of_zeros_is_refused_before_it_is_decompressed(tmp_path: Path) -> None:
    zeros = pa.table({"image": [bytes(MIB)] * 80})
    pq.write_table(zeros, tmp_path / "zeros.parquet", compression="zstd", use_dictionary=False)
    assert (tmp_path / "zeros.parquet").stat().st_size < MIB
    source = open_source(tmp_path / "zeros.parquet")
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(SourceError, match=r"zeros\.parquet .*page at byte 4 claims 83,886,\d+ bytes from"):
        list(source.read(source.splits[0]))
    assert pa.default_memory_pool().max_memory() < before + 64 * MIB


def varint(number: int) -> bytes:
    """A 64-bit integer in Thrift's compact protocol."""
    number *= 2
    digits = []
    while True:
        digits.append(number & 127)
        number >>= 7
        if not number:
            return bytes([*(digit | 128 for digit in digits[:-1]), digits[-1]])


def claiming(path: Path, rows: int, *, claimed: int) -> None:
    """Let a file's footer claim another number of rows."""
    data = path.read_bytes()
    size = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - size : -8]
    assert b"\x16" + varint(rows) in footer
    footer = footer.replace(b"\x16" + varint(rows), b"\x16" + varint(claimed))
    path.write_bytes(data[: -8 - size] + footer + len(footer).to_bytes(4, "little") + b"PAR1")


@pytest.mark.parametrize("claimed", [10**10, 10**12, 2**62])
def test_a_footer_that_claims_rows_the_file_cannot_hold_is_refused_at_once(claimed: int, tmp_path: Path) -> None:
    path = tmp_path / "lie.parquet"
    pq.write_table(pa.table({"n": range(5000)}), path)
    claiming(path, 5000, claimed=claimed)
    started = time.monotonic()
    with pytest.raises(SourceError, match=r"lie\.parquet cannot be read as Parquet"):
        open_source(path)
    assert time.monotonic() - started < 5


def test_a_row_group_that_ends_early_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "short.parquet"
    pq.write_table(pa.table({"n": range(5000)}), path)
    claiming(path, 5000, claimed=6000)
    source = open_source(path)
    with pytest.raises(SourceError, match=r"short\.parquet cannot be read as Parquet"):
        list(source.read(source.splits[0]))


def test_a_large_file_of_equal_rows_is_no_lie(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": pa.repeat(1, 2_000_000)}), tmp_path / "equal.parquet", row_group_size=2_000_000)
    assert open_source(tmp_path / "equal.parquet").rows() == 2_000_000


class Bytes:
    """A file of some bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read_at(self, size: int, start: int) -> bytes:
        return self._data[start : start + size]


@given(st.binary(max_size=200))
def test_headers_of_pages_may_hold_anything(data: bytes) -> None:
    count = 0
    try:
        for _ in itertools.islice(pages(Bytes(data), 0, len(data)), 300):
            count += 1
    except pa.ArrowInvalid:
        pass
    assert count <= len(data)


def test_padding_behind_the_last_page_is_none() -> None:
    assert list(pages(Bytes(bytes(100)), 0, 100)) == []


def test_headers_within_headers_have_an_end() -> None:
    with pytest.raises(pa.ArrowInvalid, match="no header that can be read"):
        next(pages(Bytes(b"\x1c" * 60_000), 0, 60_000))
