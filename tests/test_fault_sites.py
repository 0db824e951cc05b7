"""The fault switches themselves: what fires, how often, and that an unarmed process never looks."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import timeit
from pathlib import Path

import pytest

from lance_align.errors import ArgumentError
from lance_align.faults import ACTIONS, SITES, reach
from lance_align.testing import Faults


def fires(times: int, *, rows: int = 1, data: bytes = b"") -> list[bool]:
    """Which of so many reaches at "encode" raised."""
    raised = []
    for _ in range(times):
        try:
            reach("encode", data, rows)
            raised.append(False)
        except OSError:
            raised.append(True)
    return raised


def in_new_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_nothing_happens_without_a_plan() -> None:
    for site in SITES:
        reach(site)


def test_a_fault_fires_in_its_window() -> None:
    with Faults() as faults:
        faults.at("encode", "os_error", skip=1, times=2)
        assert fires(5) == [False, True, True, False, False]
        assert faults.fired("encode") == 2
        assert faults.reached("encode") == 5
    assert fires(1) == [False]


def test_a_fault_can_ask_for_rows_and_for_a_marker() -> None:
    with Faults() as faults:
        faults.at("encode", "os_error", marker=b"POISON")
        assert fires(1, data=b"..POISON..") == [True]
        assert fires(1, data=b"harmless") == [False]
    with Faults() as faults:
        faults.at("encode", "os_error", more_than_rows=8)
        assert fires(1, rows=9) == [True]
        assert fires(1, rows=8) == [False]
        assert faults.rows("encode") == 17


def test_chance_is_the_same_in_every_run() -> None:
    runs = []
    for _ in range(2):
        with Faults() as faults:
            faults.at("encode", "os_error", chance=0.5, seed=3)
            runs.append(fires(40))
    assert runs[0] == runs[1]
    assert 8 < sum(runs[0]) < 32


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        ("os_error", OSError),
        ("disk_full", OSError),
        ("value_error", ValueError),
        ("memory_error", MemoryError),
        ("cuda_memory", RuntimeError),
        ("cuda_lost", RuntimeError),
    ],
)
def test_actions_that_raise(action: str, kind: type[Exception]) -> None:
    with Faults() as faults:
        faults.at("decode", action)  # type: ignore[arg-type]
        with pytest.raises(kind, match="injected fault") as raised:
            reach("decode")
        if action == "disk_full":
            assert isinstance(raised.value, OSError)
            assert raised.value.errno == errno.ENOSPC


@pytest.mark.parametrize(("action", "status"), [("exit", 70), ("kill", -9), ("segfault", -11)])
def test_actions_that_end_the_process_count_in_all_processes(action: str, status: int) -> None:
    with Faults() as faults:
        faults.at("decode", action, times=1)  # type: ignore[arg-type]
        code = "from lance_align.faults import reach; reach('decode')"
        assert in_new_process(code).returncode == status
        assert in_new_process(code).returncode == 0  # once is once among all processes
        assert faults.fired("decode") == 1


def test_a_hang_lasts_as_long_as_asked() -> None:
    with Faults() as faults:
        faults.at("decode", "hang", seconds=0.2)
        assert timeit.timeit(lambda: reach("decode"), number=1) >= 0.2


def test_an_unarmed_process_never_looks_and_pays_little(tmp_path: Path) -> None:
    with Faults(tmp_path) as faults:
        faults.at("encode", "exit")
        code = (
            "import timeit; from lance_align.faults import reach\n"
            "print(min(timeit.repeat('reach(\"encode\")', globals=globals(), number=100_000, repeat=5)) * 1e4)"
        )
        result = in_new_process(code, LANCE_ALIGN_FAULTS="")
        assert result.returncode == 0, result.stderr
        assert float(result.stdout) < 1000  # nanoseconds a call; 40 measured, the rest is for a busy machine
        assert in_new_process(code, LANCE_ALIGN_FAULTS=str(tmp_path)).returncode == 70


def test_unknown_sites_and_actions_are_refused() -> None:
    with Faults() as faults, pytest.raises(ArgumentError, match="no fault 'os_error' at 'elsewhere'"):
        faults.at("elsewhere", "os_error")  # type: ignore[arg-type]
    assert "hang" in ACTIONS
