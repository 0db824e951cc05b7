"""Jobs beside other writers: two jobs into one table, and a job beside everything else that LanceDB users do."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import lance
import lancedb
import pytest
import ray
from lancedb.index import BTree

import lance_align  # noqa: F401  registers the embedding function, with which tables embed the rows that are added
from lance_align import embed
from lance_align.testing import Faults
from tests.corpus import parquet, pictures, png, stored

ROOT = Path(__file__).parent.parent
ROWS = 120


@pytest.mark.parametrize(
    "executor",
    [pytest.param("local", id="in-two-processes"), pytest.param("ray", id="on-one-cluster", marks=pytest.mark.slow)],
    indirect=True,
)
def test_two_jobs_into_one_new_table_at_once(executor: str, tmp_path: Path) -> None:
    """Both read the same rows, in the same order: whatever one brings second is left out and counted.

    On one cluster of four CPUs neither holds for good what the other needs.
    """
    source = parquet(pictures(ROWS), tmp_path / "in.parquet", group_rows=40)
    command = [sys.executable, str(ROOT / "pipelines" / "embed.py"), str(source), "--db", str(tmp_path), "--table", "t"]
    command += ["--model", "fake", "--block-rows", "10", "--commit-rows", "10", "--no-progress"]
    clean = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    if executor == "ray":
        clean["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    jobs = [
        subprocess.Popen(
            [*command, "--report-json", str(tmp_path / f"{number}.json")],
            env=clean,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    try:
        ends = [(job.communicate(timeout=300)[0], job.returncode) for job in jobs]
    finally:
        for job in jobs:
            job.kill()
    assert [status for _, status in ends] == [0, 0], ends
    reports = [json.loads((tmp_path / f"{number}.json").read_text()) for number in range(2)]
    assert sum(report["embedded"] for report in reports) == ROWS
    assert [report["embedded"] + report["already_there"] for report in reports] == [ROWS, ROWS]
    assert len({row["id"] for row in stored(tmp_path, "t")}) == len(stored(tmp_path, "t")) == ROWS


@pytest.mark.parametrize("executor", ["local", pytest.param("ray", marks=pytest.mark.slow)], indirect=True)
def test_a_job_beside_adds_deletes_optimize_and_an_index(executor: str, tmp_path: Path) -> None:
    source = parquet(pictures(ROWS), tmp_path / "in.parquet", group_rows=20)
    options: dict[str, Any] = {"db": tmp_path, "table": "t", "model": "fake", "progress": False}
    options["executor"] = executor
    embed(parquet(pictures(20), tmp_path / "first.parquet"), **options)
    ended = threading.Event()
    added = itertools.count()

    def table() -> Any:
        return lancedb.connect(tmp_path).open_table("t")

    def look() -> int:
        """A reader sees each id once, in every version, and can search it."""
        seen = table()
        ids = [row["id"] for row in seen.to_lance().to_table(columns=["id"]).to_pylist()]
        assert len(set(ids)) == len(ids)
        assert seen.search(png(3)).limit(1).to_list()[0]["id"] == "row-3"
        return len(ids)

    def repeat(act: Callable[[], object]) -> int:
        times = 0
        while not ended.wait(0.3):
            try:
                act()
                times += 1
            except (OSError, RuntimeError) as error:  # what Lance and LanceDB raise for conflicts, which are theirs
                if "conflict" not in str(error):
                    raise
        return times

    acts: list[Callable[[], object]] = [
        look,
        lambda: table().add([{"id": f"added {next(added)}", "caption": "mine", "kind": None, "image": png(1000)}]),
        lambda: table().delete("id LIKE 'added %'"),
        lambda: table().optimize(cleanup_older_than=timedelta(days=1)),
        lambda: table().create_index("id", config=BTree()),
    ]
    with ThreadPoolExecutor(len(acts)) as threads:
        running = [threads.submit(repeat, act) for act in acts]
        try:
            with Faults() as faults:
                faults.at("encode", "hang", seconds=0.3)  # each block takes some time
                report = embed(source, **options, block_rows=10, commit_rows=20)
        finally:
            ended.set()
    times = [each.result() for each in running]
    assert all(times), times
    assert (report.embedded, report.already_there, report.failed) == (ROWS - 20, 20, 0)
    found = {row["id"]: row for row in stored(tmp_path, "t") if not row["id"].startswith("added ")}
    assert set(found) == {f"row-{number}" for number in range(ROWS)}
    assert all(row["error"] is None and row["vector"] is not None for row in found.values())
    assert "id_idx" in [index.name for index in table().list_indices()]
    versions = [version["version"] for version in lance.dataset(str(tmp_path / "t.lance")).versions()]
    assert len(versions) > report.commits
