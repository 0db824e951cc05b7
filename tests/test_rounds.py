"""Rounds of commits, without Ray: in time, in spite of passing errors, and never twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import lance
import pytest

from lance_align.errors import LanceAlignError
from lance_align.jobs.receipts import Receipt
from lance_align.jobs.rounds import Rounds
from lance_align.jobs.stopping import stopping, uninterrupted
from lance_align.tables.commits import Committer
from lance_align.tables.fragments import write_fragments
from lance_align.tables.location import table_location
from lance_align.testing import Faults
from tests.fake_tables import photos_schema, png, rows

ROOT = Path(__file__).parent.parent


@pytest.fixture
def committer(tmp_path: Path) -> Committer:
    return Committer.open_or_create(table_location(tmp_path, "t").uri, photos_schema())


@pytest.fixture
def receipts(committer: Committer) -> Iterator[Receipt]:
    """Receipts of one row each, without end."""

    def written() -> Iterator[Receipt]:
        for number in range(1000):
            table = rows([f"row {number}"], images=[png("red")], captions=["red"])
            fragments = tuple(write_fragments(committer.uri, table))
            yield Receipt(fragments=fragments, rows=1, reasons={}, decode_s=0.0, encode_s=0.0, write_s=0.0)

    return written()


def ids(committer: Committer) -> list[str]:
    found: list[str] = lance.dataset(committer.uri).to_table(columns=["id"]).column("id").to_pylist()
    return sorted(found)


def test_a_round_ends_in_time_without_another_receipt(committer: Committer, receipts: Iterator[Receipt]) -> None:
    rounds = Rounds(committer, commit_rows=1000, commit_seconds=0.3)
    with rounds.gathering():
        rounds.add(next(receipts))
        end = time.monotonic() + 10
        while not ids(committer) and time.monotonic() < end:
            time.sleep(0.05)
        assert ids(committer) == ["row 0"]
        assert (rounds.committed, rounds.commits) == (1, 1)
    assert rounds.commits == 1  # nothing was left


def test_a_commit_that_the_clock_began_fails_in_the_jobs_own_thread(
    committer: Committer, receipts: Iterator[Receipt]
) -> None:
    rounds = Rounds(committer, commit_rows=1000, commit_seconds=0.1)

    def run() -> None:
        with rounds.gathering():
            for receipt in receipts:
                rounds.add(receipt)
                time.sleep(0.05)

    with Faults() as faults:
        faults.at("before_commit", "disk_full", times=1)
        with pytest.raises(OSError, match="No space left"):
            run()
    assert len(ids(committer)) == rounds.committed > 0  # what waited is committed at the end


def test_a_passing_error_is_tried_again(committer: Committer, receipts: Iterator[Receipt]) -> None:
    rounds = Rounds(committer, commit_rows=1, commit_seconds=60)
    with Faults() as faults:
        faults.at("before_commit", "os_error", times=2)
        rounds.add(next(receipts))
        assert faults.fired("before_commit") == 2
    assert ids(committer) == ["row 0"]


def test_a_round_that_landed_before_the_error_does_not_land_twice(
    committer: Committer, receipts: Iterator[Receipt]
) -> None:
    rounds = Rounds(committer, commit_rows=1, commit_seconds=60)
    with Faults() as faults:
        faults.at("after_commit", "os_error", times=1)
        with pytest.raises(OSError, match="injected"), rounds.gathering():
            rounds.add(next(receipts))
    assert ids(committer) == ["row 0"]


def test_an_error_of_the_job_commits_what_waits_and_is_the_one_told(
    committer: Committer, receipts: Iterator[Receipt]
) -> None:
    rounds = Rounds(committer, commit_rows=1000, commit_seconds=60)

    def run() -> None:
        with rounds.gathering():
            rounds.add(next(receipts))
            raise LanceAlignError("a worker died")

    with pytest.raises(LanceAlignError, match="a worker died"):
        run()
    assert ids(committer) == ["row 0"]


STOPPED = """
import signal
from lance_align.jobs.stopping import Stopped, stopping, uninterrupted

try:
    with stopping(), uninterrupted():
        signal.raise_signal(signal.SIGTERM)
        with uninterrupted():
            pass
        print("committed")
except Stopped as stopped:
    print(stopped, stopped.exit_status, isinstance(stopped, KeyboardInterrupt))
"""


def test_a_signal_waits_for_the_end_of_a_commit() -> None:
    """In a process of its own: one that other tests share would go with the signal if this failed."""
    done = subprocess.run([sys.executable, "-c", STOPPED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "committed\nstopped by SIGTERM 143 True\n"), done.stderr


@pytest.fixture
def default_handler() -> Iterator[None]:
    """Python's own for Ctrl-C: a shell that starts something in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_handler")
def test_handlers_are_those_from_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stopping(), stopping():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_another_thread_handles_no_signals() -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            with stopping(), uninterrupted():
                pass
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert failures == []
