"""Images behind a network are fetched a few ahead; what comes out is what would come one by one."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import lance_align
from lance_align.jobs.stages.ahead import AHEAD_BYTES, FETCHES, read_ahead
from tests.corpus import parquet
from tests.pictures import encoded


def test_items_come_in_order_whoever_waits() -> None:
    def waits(number: int) -> bool:
        return number % 3 != 0

    found = read_ahead(range(100), lambda number: number * number, waits=waits, size=lambda _: 1)
    assert list(found) == [number * number for number in range(100)]
    assert list(read_ahead([], str, waits=lambda _: True, size=len)) == []


def test_small_ones_are_fetched_together() -> None:
    together = threading.Barrier(FETCHES)  # nobody passes before all are there

    def fetch(number: int) -> int:
        if 1 <= number <= FETCHES:
            together.wait(timeout=30)
        return number

    assert list(read_ahead(range(FETCHES + 1), fetch, waits=lambda _: True, size=lambda _: 1)) == list(
        range(FETCHES + 1)
    )


@pytest.mark.parametrize(("size", "most"), [(AHEAD_BYTES, 1), (AHEAD_BYTES // 3, 3), (1, FETCHES)])
def test_large_ones_wait_for_each_other(size: int, most: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(30):
            taken.append(number)
            yield number

    for number in read_ahead(items(), lambda number: number, waits=lambda _: True, size=lambda _: size):
        assert len(taken) - number <= most


def test_what_does_not_wait_is_read_here() -> None:
    threads = set(read_ahead(range(9), lambda _: threading.current_thread(), waits=lambda _: False, size=lambda _: 1))
    assert threads == {threading.current_thread()}


def test_an_error_is_raised_in_its_turn_and_the_rest_is_let_go() -> None:
    def fetch(number: int) -> int:
        if number == 5:
            raise OSError("gone")
        return number

    found = read_ahead(range(100), fetch, waits=lambda _: True, size=lambda _: 1)
    assert [next(found) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(OSError, match="gone"):
        next(found)
    assert list(found) == []


def test_a_process_ends_though_a_server_is_silent() -> None:
    program = """
import threading
from lance_align.jobs.stages.ahead import read_ahead
fetched = read_ahead(range(9), lambda n: threading.Event().wait() if n else n, waits=lambda _: True, size=lambda _: 1)
print(next(fetched))
fetched.close()
fetched = read_ahead([1], lambda _: threading.Event().wait(), waits=lambda _: True, size=lambda _: 1)
threading.Thread(target=next, args=(fetched,), daemon=True).start()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout == "0\n"


@given(
    sizes=st.lists(st.sampled_from([0, 1, AHEAD_BYTES // FETCHES + 1, AHEAD_BYTES // 2, AHEAD_BYTES])),
    local=st.booleans(),
)
def test_whatever_the_sizes_every_item_comes(sizes: list[int], local: bool) -> None:
    """A large one after small ones leaves more waiting than may."""
    found = read_ahead(enumerate(sizes), lambda item: item, waits=lambda _: not local, size=lambda item: item[1])
    assert list(found) == list(enumerate(sizes))


def test_a_large_image_among_small_ones(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1800, 1800, 3), dtype=np.uint8)
    images = [encoded(Image.new("RGB", (8, 8), (number, 0, 0)), "PNG") for number in range(40)]
    large = encoded(Image.fromarray(noise), "PNG", compress_level=0)
    assert len(large) > AHEAD_BYTES / FETCHES
    source = parquet(pa.table({"image": [*images[:20], large, *images[20:]]}), tmp_path / "in.parquet")
    report = lance_align.embed(source, db=tmp_path / "db", table="t", model="fake", progress=False)
    assert (report.embedded, report.reasons) == (41, {})
