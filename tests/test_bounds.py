"""What a job may take: memory of the driver that does not grow with rows, and a disk that is full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lance_align import embed
from lance_align.errors import JobError, LanceAlignError
from lance_align.testing import Faults
from tests.corpus import parquet, pictures
from tests.invariants import check, count

ROOT = Path(__file__).parent.parent

# One job in a process of its own: the peak of the driver, and what the ledger's process takes, in MiB.
MEASURED = """
import json, os, re, sys, threading
from pathlib import Path
from lance_align import embed
from tests.processes import workers

def mib(pid, field):
    return int(re.search(field + r":\\s+(\\d+) kB", Path(f"/proc/{pid}/status").read_text()).group(1)) / 1024

ledger, ended = [0.0], threading.Event()

def watch():
    while not ended.wait(0.5):
        for pid in workers(os.getpid(), ["IdRegistryActor"]):
            try:
                ledger[0] = max(ledger[0], mib(pid, "VmHWM"))
            except (OSError, AttributeError):
                pass

thread = threading.Thread(target=watch)
thread.start()
report = embed(sys.argv[1], db=sys.argv[2], table="t", model="fake", embed="text", progress=False, block_rows=20_000,
               commit_rows=100_000, index="none")
ended.set()
thread.join()
print(json.dumps({"rows": report.embedded, "driver": mib("self", "VmHWM"), "ledger": ledger[0]}))
"""


@pytest.mark.slow
def test_the_drivers_memory_does_not_grow_with_rows(tmp_path: Path) -> None:
    measured = {}
    for rows in (10_000, 1_000_000):
        names = [f"row-{number}" for number in range(rows)]
        table = pa.table({"id": names, "text": names})
        path = tmp_path / f"{rows}.parquet"
        pq.write_table(table, path, row_group_size=50_000)
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, str(path), str(tmp_path / str(rows))],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        measured[rows] = json.loads(done.stdout)
        assert measured[rows]["rows"] == rows
    print(measured)
    few, many = measured[10_000], measured[1_000_000]
    print(f"ledger: {(many['ledger'] - few['ledger']) * 2**20 / 990_000:.0f} bytes an id at its peak")
    assert many["driver"] - few["driver"] < 200


@pytest.mark.parametrize("executor", ["local", pytest.param("ray", marks=pytest.mark.slow)], indirect=True)
def test_a_disk_that_is_said_to_be_full(executor: str, tmp_path: Path) -> None:
    rows = pictures(40)
    source = parquet(rows, tmp_path / "in.parquet", group_rows=10)
    options = {"db": tmp_path, "table": "t", "model": "fake", "block_rows": 10, "commit_rows": 10, "progress": False}
    options["executor"] = executor
    with Faults() as faults:
        faults.at("before_fragment", "disk_full", skip=2)
        with pytest.raises(JobError, match="the disk is full: free space; what is committed stays; run the same"):
            embed(source, **options)  # type: ignore[arg-type]
        assert faults.fired("before_fragment") <= 2  # once a block: a full disk is not tried again
    committed = count(tmp_path / "t.lance")
    assert committed in (10, 20)  # the second block's receipt may have been on its way
    assert embed(source, **options).already_there == committed  # type: ignore[arg-type]
    check(tmp_path, "t", rows)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no right to mount a small file system here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_a_disk_that_is_full(small_disk: Path, tmp_path: Path) -> None:
    rows = pictures(120)
    padding = pa.array([os.urandom(30_000) for _ in range(120)], pa.binary())
    rows = rows.append_column("padding", padding)
    source = parquet(rows, tmp_path / "in.parquet", group_rows=20)
    options = {"db": small_disk, "table": "t", "model": "fake", "block_rows": 10, "commit_rows": 10, "progress": False}
    with pytest.raises(LanceAlignError, match="the disk is full: free space") as raised:
        embed(source, **options)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)
    there = count(small_disk / "t.lance")
    assert 0 < there < 120
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert embed(source, **options).already_there == there  # type: ignore[arg-type]
    check(small_disk, "t", rows)
