"""What a user waits for: the demo, a re-run with nothing to do, the first line, the first query; against bare work."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lance_align.benchmarks.jobs import TIMEOUT_S, WAYS
from lance_align.benchmarks.measuring import Line
from lance_align.benchmarks.processes import Usage, measure
from lance_align.corpora import demo_source
from lance_align.errors import JobError

MODEL = "align-tiny"


def start_lines(*, rounds: int, rows: int | None = None) -> Iterator[Line]:
    """A line for each, in seconds of the whole process; ratios are to the bare work in one process.

    Notes: seconds of processor and MiB of the process; of a re-run the seconds beyond importing LanceDB.

    Args:
        rounds: measured rounds, after one that fills the caches and is not measured.
        rows: images of the demo; None for all.
    """
    with tempfile.TemporaryDirectory(prefix="lance-align-start-") as folder:
        place = Path(folder)
        source = demo_source("openmoji", directory=place / "corpus", rows=rows)
        program = [sys.executable, "-m", "lance_align"]
        spent: dict[str, list[Usage]] = {}
        first: list[float] = []
        for turn in range(rounds + 1):
            db = place / str(turn)
            embed = [*program, "embed", str(source), "--db", str(db), "--table", "t", "--model", MODEL]
            commands = {
                "bare work, one process": [*_way("bare"), str(source), MODEL, str(db / "bare")],
                "ours, embed": embed,
                "ours, embed again": embed,
                "import lancedb": [sys.executable, "-c", "import lancedb"],
                "ours, first text query": [*_way("query"), str(db), "t"],
            }
            for name, command in commands.items():
                used = measure(command, timeout_s=TIMEOUT_S, env={**os.environ, "HF_HUB_OFFLINE": "1"})
                if turn:
                    spent.setdefault(name, []).append(used)
            if turn:
                first.append(_first_line_s([*embed, "--table", "first"]))
    bare = statistics.median(used.wall_s for used in spent["bare work, one process"])
    beyond = statistics.median(used.wall_s for used in spent["import lancedb"])
    for name, runs in spent.items():
        seconds = [used.wall_s for used in runs]
        notes: dict[str, Any] = {
            "CPU s": statistics.median(used.cpu_s for used in runs),
            "MiB": statistics.median(used.peak_mb.get("driver", 0.0) for used in runs),
        }
        if name == "ours, embed again":
            notes["s beyond import"] = statistics.median(seconds) - beyond
        yield _line(name, seconds, bare, notes)
    yield _line("ours, first line", first, bare, {})


def _line(name: str, seconds: list[float], bare: float, notes: dict[str, Any]) -> Line:
    median = statistics.median(seconds)
    return Line(
        part="start",
        name=name,
        unit="s",
        median=median,
        low=min(seconds),
        high=max(seconds),
        ratio=median / bare,
        notes=notes,
    )


def _way(name: str) -> list[str]:
    return [sys.executable, str(WAYS / f"{name}.py")]


def _first_line_s(command: list[str]) -> float:
    """Seconds from the start of a job to its first line on the terminal; it is then stopped."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as program:  # noqa: S603
        assert program.stderr is not None
        line = program.stderr.readline()
        spent = time.perf_counter() - started
        program.terminate()
        program.communicate(timeout=TIMEOUT_S)
    if not line:
        raise JobError("the job said nothing on standard error")
    return spent
