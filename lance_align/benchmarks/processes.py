"""A program and all the processes below it: their seconds of processor, and how much memory each kind takes at most.

Read from ``/proc``, so Linux only; elsewhere every figure is 0.
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lance_align.errors import JobError

LOOK_EVERY_S = 0.2
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
PROC = Path("/proc")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a program took.

    Attributes:
        output: what it wrote to standard output.
        wall_s: from its start to its end.
        cpu_s: of all its processes, as far as they were seen: looked at every `LOOK_EVERY_S`.
        peak_mb: memory in MiB by kind of process, without what it shares with others (Ray's object store): `driver`
            is the program itself, `ledger` the job's ledger, `worker` the largest other process of Ray's that runs
            tasks or actors.
    """

    output: str
    wall_s: float
    cpu_s: float
    peak_mb: Mapping[str, float]


def measure(
    command: Sequence[str],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    look: Callable[[], None] = lambda: None,
) -> Usage:
    """Run a program to its end.

    Args:
        env: variables in place of this process's; None for these.
        look: called at every look.

    Raises:
        JobError: it failed, or took longer than `timeout_s`; says what it said last.
    """
    started = time.perf_counter()
    with subprocess.Popen(  # noqa: S603 - a program of this package
        list(command), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as program:
        watch = _Watch(program.pid, look)
        try:
            output, said = program.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            program.kill()
            raise JobError(f"{Path(command[1]).name} took more than {timeout_s:g} s") from error
        finally:
            watch.end()
    wall_s = time.perf_counter() - started
    if program.returncode:
        last = (said.strip().splitlines() or [f"status {program.returncode}"])[-1]
        raise JobError(f"{Path(command[1]).name} failed: {last}")
    return Usage(output=output, wall_s=wall_s, cpu_s=sum(watch.cpu_s.values()), peak_mb=watch.peak_mb)


class _Watch:
    """Looks at a process and those below it from a thread of its own."""

    def __init__(self, pid: int, look: Callable[[], None]) -> None:
        self._pid, self._look = pid, look
        self.cpu_s: dict[tuple[int, str], float] = {}  # by process id and start time
        self.peak_mb: dict[str, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="usage", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            self._look()
            for pid in _family(self._pid):
                self._see(pid)

    def _see(self, pid: int) -> None:
        try:
            fields = _stat(pid)
            name = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace")
            status = (PROC / str(pid) / "status").read_text()
        except OSError:
            return  # it has ended
        self.cpu_s[pid, fields[19]] = (int(fields[11]) + int(fields[12])) / TICKS
        kind = "driver" if pid == self._pid else "ledger" if "IdRegistryActor" in name else "worker"
        if kind == "driver" or name.startswith("ray::"):
            own = sum(int(kb) for kb in re.findall(r"(?:RssAnon|RssFile):\s+(\d+) kB", status)) / 1024
            self.peak_mb[kind] = max(self.peak_mb.get(kind, 0.0), own)


def own_mb() -> float:
    """Memory of this process in MiB that no file and no other process shares; 0 where there is no ``/proc``."""
    status = PROC / "self" / "status"
    found = re.search(r"RssAnon:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else 0.0


def _family(root: int) -> list[int]:
    """A process and all below it."""
    parents: dict[int, int] = {}
    for entry in PROC.glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int(_stat(int(entry.name))[1])
        except OSError:
            continue
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _stat(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` after the name: state, parent, …"""
    return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
