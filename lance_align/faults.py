"""Named places on a row's way where tests make something go wrong; in production each costs one comparison.

A process is armed when the environment variable `LANCE_ALIGN_FAULTS` names a folder as this module is imported. The
folder may then hold a plan, ``plan.json``, that `lance_align.testing.Faults` writes and takes away again; without one
nothing happens. Every armed process of a machine (driver, Ray's workers, the decoder's child) follows the same plan and
counts in the same files, so "once" means once among all of them.

    site              reached                                              with
    after_read        by a reading task, for each table of source rows     rows=
    decode            before one image is decoded                          data=the encoded image
    encode            before the model gets a batch                        rows=, data=pixels or texts
    before_fragment   by an actor, before it writes a block's fragments    rows=
    after_fragment    by an actor, before it hands its receipt on          rows=
    before_commit     by the driver, before a round becomes a version      rows=
    after_commit      by the driver, before it notes that the round is in  rows=

``data`` lets a fault choose one image among many: it carries a marker, and only a reach whose data contains it counts.
Give bytes that are at hand, or a function that makes them: it is called only when a plan asks for a marker.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import random
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

VARIABLE = "LANCE_ALIGN_FAULTS"
PLAN = "plan.json"

Site = Literal["after_read", "decode", "encode", "before_fragment", "after_fragment", "before_commit", "after_commit"]
SITES: tuple[Site, ...] = get_args(Site)

Action = Literal[
    "os_error",  # raises OSError (EIO)
    "disk_full",  # raises OSError (ENOSPC)
    "value_error",  # raises ValueError
    "memory_error",  # raises MemoryError
    "cuda_memory",  # raises RuntimeError as torch words it
    "cuda_lost",  # the same of a lost GPU, and from then on for all that comes by the site in this process
    "exit",  # os._exit(70)
    "kill",  # SIGKILL to itself
    "segfault",  # SIGSEGV to itself
    "hang",  # sleeps: for `seconds`, else until the plan is gone
    "allocate",  # takes `seconds` * 256 MiB, 256 MiB at a time, or what the process may have
]
ACTIONS: tuple[Action, ...] = get_args(Action)

_ROWS = struct.Struct("<q")  # one reach in a count file: its rows
_folder = os.environ.get(VARIABLE) or None
_lost: set[Path] = set()  # counts of the sites where this process met a "cuda_lost"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    A reach matches if it is of the site, has more rows than `more_than_rows` and contains `marker`. Of the matching
    reaches of all processes, the first `skip` pass, the next `times` may fire (None: all), each with `chance`.

    Attributes:
        site: where.
        action: what.
        times: how many matching reaches may fire.
        skip: how many pass before.
        chance: the probability of each, drawn from `seed` and the number of the reach: the same in every run.
        seed: of the draw.
        marker: bytes of the data, as hexadecimal digits; empty matches all.
        more_than_rows: rows that fit.
        seconds: how long a hang lasts, None for ever; for ``allocate`` the number of 256 MiB pieces.
    """

    site: Site
    action: Action
    times: int | None = None
    skip: int = 0
    chance: float = 1.0
    seed: int = 0
    marker: str = ""
    more_than_rows: int = 0
    seconds: float | None = None


def reach(site: Site, data: bytes | Callable[[], bytes] = b"", rows: int = 1) -> None:
    """Say that a row, or `rows` of them, came to `site`; a test may have asked for a fault here.

    Args:
        site: one of `SITES`.
        data: what a marker is looked for in, or a function that gives it.
        rows: how many rows this reach stands for.

    Raises:
        OSError, ValueError, MemoryError, RuntimeError: as the plan says; never without a plan.
    """
    if _folder is None:
        return
    _reach(Path(_folder), site, data, rows)


def read_plan(folder: Path) -> tuple[str, list[Fault]] | None:
    """The folder of counts and the faults of the plan; None when there is no plan."""
    try:
        plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return plan["counts"], [Fault(**fault) for fault in plan["faults"]]


def write_plan(folder: Path, counts: str, faults: list[Fault]) -> None:
    """Put a plan in place in one step."""
    text = json.dumps({"counts": counts, "faults": [dataclasses.asdict(fault) for fault in faults]})
    draft = folder / f"{counts}.draft"
    draft.write_text(text, encoding="utf-8")
    draft.replace(folder / PLAN)


def count(path: Path, rows: int) -> int:
    """Add an entry to a count file; its number, from 1, is unique among processes: appending is atomic."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(handle, _ROWS.pack(rows))
        return os.lseek(handle, 0, os.SEEK_CUR) // _ROWS.size
    finally:
        os.close(handle)


def counted(path: Path) -> tuple[int, int]:
    """How many entries a count file has, and how many rows they stand for; nothing for a missing one."""
    entries = [rows for (rows,) in _ROWS.iter_unpack(path.read_bytes())] if path.exists() else []
    return len(entries), sum(entries)


def _reach(folder: Path, site: Site, data: bytes | Callable[[], bytes], rows: int) -> None:
    plan = read_plan(folder)
    if plan is None:
        return
    counts = folder / plan[0]
    try:
        count(counts / site, rows)
        if counts / site in _lost:
            _act(Fault(site=site, action="cuda_lost"), folder)
        for number, fault in enumerate(plan[1]):
            if fault.site != site or rows <= fault.more_than_rows:
                continue
            if fault.marker and bytes.fromhex(fault.marker) not in (data() if callable(data) else data):
                continue
            if _fires(fault, count(counts / f"matched-{number}", rows)):
                count(counts / f"fired-{number}", rows)
                if fault.action == "cuda_lost":
                    _lost.add(counts / site)
                _act(fault, folder)
    except FileNotFoundError:
        return  # the test has ended and took its counts away


def _fires(fault: Fault, number: int) -> bool:
    if number <= fault.skip or (fault.times is not None and number > fault.skip + fault.times):
        return False
    return fault.chance >= 1 or random.Random(f"{fault.seed}:{fault.site}:{number}").random() < fault.chance


def _act(fault: Fault, folder: Path) -> None:
    match fault.action:
        case "os_error":
            raise OSError(errno.EIO, "injected fault")
        case "disk_full":
            raise OSError(errno.ENOSPC, "No space left on device (injected fault)")
        case "value_error":
            raise ValueError("injected fault")
        case "memory_error":
            raise MemoryError("injected fault")
        case "cuda_memory":
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB (injected fault)")
        case "cuda_lost":
            raise RuntimeError("CUDA error: an illegal memory access was encountered (injected fault)")
        case "exit":
            os._exit(70)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hang":
            _hang(fault.seconds, folder)
        case "allocate":
            held = [bytearray(b"x") * 2**28 for _ in range(int(fault.seconds or 16))]
            del held


def _hang(seconds: float | None, folder: Path) -> None:
    """Sleep; a hang without an end ends with its plan, so that no test leaves a process behind."""
    ends = time.monotonic() + (seconds if seconds is not None else 10**6)
    plan = read_plan(folder)
    while time.monotonic() < ends and read_plan(folder) == plan:
        time.sleep(0.02)
