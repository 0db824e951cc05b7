"""The pipeline as a user starts it on Ray: `ray job submit` to a real head node, and by itself on this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.corpus import parquet, pictures, stored

ROOT = Path(__file__).parent.parent
DEADLINE_S = 120.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    """The address of a Ray head with ports and a folder of its own; it is gone afterwards, whatever happened."""
    folder = tempfile.mkdtemp(prefix="la-", dir="/tmp")  # socket names must be short
    port = free_port()
    command = ["ray", "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats", f"--temp-dir={folder}"]
    command += [f"--port={free_port()}", f"--dashboard-port={port}", "--dashboard-host=127.0.0.1"]
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}"]
    with Path(folder, "head.log").open("w") as log:
        head = subprocess.Popen(
            command, env=environment(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True, cwd=folder
        )
    try:
        wait_for(port, head, Path(folder, "head.log"))
        yield f"http://127.0.0.1:{port}"
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(head.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                head.wait(5)
        shutil.rmtree(folder, ignore_errors=True)


def environment() -> dict[str, str]:
    """Of the head and of the client: the same authentication, and this interpreter as `python`."""
    clean = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "PYTHONPATH")}
    bin_folder = str(Path(sys.executable).parent)
    return clean | {"RAY_AUTH_MODE": "disabled", "PATH": f"{bin_folder}:{clean['PATH']}"}


def wait_for(port: int, head: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        assert head.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError(f"the head did not start: {log.read_text()}")


@pytest.mark.parametrize(
    "entrypoint",
    [["pipelines/embed.py"], pytest.param(["python", "pipelines/embed.py"], marks=pytest.mark.slow)],
    ids=["as-it-is", "with-python"],
)
def test_the_pipeline_runs_as_a_ray_job(entrypoint: list[str], dashboard: str, tmp_path: Path) -> None:
    source = parquet(pictures(30), tmp_path / "in.parquet")
    command = ["ray", "job", "submit", "--address", dashboard, "--working-dir", ".", "--"]
    command += [*entrypoint, str(source), "--db", str(tmp_path), "--table", "t", "--model", "fake"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "embedded                 30" in done.stdout
    assert len(stored(tmp_path, "t")) == 30


def test_the_pipeline_starts_a_ray_of_its_own(tmp_path: Path) -> None:
    """It lives as long as the job: Linux ends processes with the thread that has started them."""
    source = parquet(pictures(30), tmp_path / "in.parquet")
    command = [sys.executable, "pipelines/embed.py", str(source), "--db", str(tmp_path), "--table", "t"]
    command += ["--model", "fake", "--executor", "ray"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "plan: executor ray" in done.stdout
    assert len(stored(tmp_path, "t")) == 30
