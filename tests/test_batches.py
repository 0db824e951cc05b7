"""Batches that fail: halved down to the rows that are to blame, and smaller for good when memory ran out."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from lance_align.encoders.base import Embeddings
from lance_align.errors import JobError, ModelError, TableError
from lance_align.jobs.attempts import attempts
from lance_align.jobs.stages.batches import Batches
from lance_align.testing import FakeEncoder, Faults

FAKE = FakeEncoder()
DIM = FAKE.spec.dim
TEXTS = [f"text {number}" for number in range(40)]


def model(fails: Callable[[Sequence[str]], Exception | None]) -> Callable[[Sequence[str]], Embeddings]:
    """The fake, with an error for some batches."""

    def embed(texts: Sequence[str]) -> Embeddings:
        error = fails(texts)
        if error is not None:
            raise error
        return FAKE.encode_texts(texts)

    return embed


def test_a_batch_that_fails_costs_only_the_row_to_blame() -> None:
    poison = {TEXTS[7], TEXTS[8], TEXTS[39]}
    vectors, reasons = Batches().embed(
        TEXTS, model(lambda texts: ValueError("bad\nbatch") if poison & set(texts) else None), dim=DIM
    )
    assert {TEXTS[row]: reason for row, reason in enumerate(reasons) if reason} == dict.fromkeys(
        poison, "encode: ValueError: bad"
    )
    good = [row for row, reason in enumerate(reasons) if reason is None]
    np.testing.assert_array_equal(vectors[good], FAKE.encode_texts(TEXTS).vectors[good])


def test_memory_that_ran_out_makes_later_batches_smaller() -> None:
    sizes: list[int] = []

    def small_card(texts: Sequence[str]) -> Exception | None:
        sizes.append(len(texts))
        return RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB") if len(texts) > 12 else None

    batches = Batches()
    for _ in range(2):
        vectors, reasons = batches.embed(TEXTS, model(small_card), dim=DIM)
        assert reasons == [None] * 40
        np.testing.assert_array_equal(vectors, FAKE.encode_texts(TEXTS).vectors)
    assert sizes == [40, 20, *8 * [10]]
    assert batches.halved == 2


def test_one_row_that_does_not_fit_says_memory() -> None:
    _, reasons = Batches().embed(
        TEXTS, model(lambda texts: MemoryError("too long") if TEXTS[3] in texts else None), dim=DIM
    )
    assert [reason for reason in reasons if reason] == ["memory: MemoryError: too long"]


def test_a_passing_error_costs_no_row() -> None:
    with Faults() as faults:
        faults.at("encode", "os_error", times=2)
        _, reasons = Batches().embed(["one row"], FAKE.encode_texts, dim=DIM)
        assert reasons == [None]
        assert faults.fired("encode") == 2


def test_no_row_is_blamed_for_a_model_that_fails_on_all() -> None:
    with pytest.raises(JobError, match=r"failed on each of 40 rows: encode: RuntimeError: no device; no row is blamed"):
        Batches().embed(TEXTS, model(lambda _: RuntimeError("no device")), dim=DIM)


def test_no_row_is_blamed_for_a_model_that_stops_working_on_the_way() -> None:
    seen: list[str] = []

    def lost(texts: Sequence[str]) -> Exception | None:
        seen.extend(texts)
        return RuntimeError("nothing works any more") if TEXTS[30] in seen else None

    with pytest.raises(JobError, match="the model stopped working: encode: RuntimeError: nothing works any more"):
        Batches().embed(TEXTS, model(lambda texts: lost(texts) if len(texts) <= 5 else ValueError()), dim=DIM)


def test_a_lost_device_ends_the_job_at_once_where_there_is_one_process() -> None:
    with Faults() as faults:
        faults.at("encode", "cuda_lost", skip=1, times=1)
        batches = Batches(max_rows=10)
        with pytest.raises(JobError, match="is lost: encode: RuntimeError: CUDA error: an illegal"):
            batches.embed(TEXTS, FAKE.encode_texts, dim=DIM)
        assert faults.reached("encode") == 2
        with pytest.raises(JobError, match="device of this process is lost"):  # it stays so
            batches.embed(TEXTS, FAKE.encode_texts, dim=DIM)


def test_a_lost_device_ends_a_worker_so_that_another_takes_its_place() -> None:
    code = """
from lance_align.jobs.stages.batches import Batches
from lance_align.jobs.watchdog import watched
def model(texts):
    raise RuntimeError("CUDA error: device-side assert triggered")
with watched(60):
    Batches().embed(["a", "b"], model, dim=4)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "the device of this process is lost: encode: RuntimeError: CUDA error: device-side assert triggered\n"
    )


def test_a_typed_error_of_the_model_passes() -> None:
    with pytest.raises(ModelError, match="has changed"):
        Batches().embed(TEXTS, model(lambda _: ModelError("the checkpoint has changed")), dim=DIM)


def test_no_rows_give_no_vectors() -> None:
    vectors, reasons = Batches().embed([], FAKE.encode_texts, dim=DIM)
    assert (vectors.shape, reasons) == ((0, DIM), [])


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (OSError(5, "Input/output error"), 3),
        (OSError(28, "No space left on device"), 1),
        (OSError(13, "Permission denied"), 1),
        (TableError("the table was replaced"), 1),
    ],
)
def test_storage_is_tried_again_where_that_may_help(error: Exception, calls: int) -> None:
    made: list[float] = []

    def call() -> None:
        made.append(time.monotonic())
        raise error

    with pytest.raises(type(error)):
        attempts(call)
    assert len(made) == calls


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("with watched(0.5): time.sleep(30)", 1),
        ("with watched(0.5): sum(range(10**10))", 1),  # does not let go of the interpreter
        ("with watched(0.5): [(time.sleep(0.1), beat()) for _ in range(10)]", 0),
        ("for item in watched_items(iter([1, 2]), 0.5): time.sleep(0.8)", 0),  # the taker's time does not count
        ("list(watched_items((time.sleep(9) for _ in [1]), 0.5))", 1),
    ],
)
def test_the_watchdog_ends_a_process_without_progress(body: str, status: int) -> None:
    code = f"import time\nfrom lance_align.jobs.watchdog import beat, watched, watched_items\n{body}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    assert ("Timeout" in done.stderr) == (status == 1)
