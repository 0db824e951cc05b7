"""Every fault at every site of a job, then a plain re-run: nothing is lost, nothing is there twice.

What ends a process runs on Ray, and so does everything else under ``-m slow``; the rest runs in this process.
"""

from __future__ import annotations

import dataclasses
import os
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lance_align import JobReport, embed
from lance_align.errors import LanceAlignError
from lance_align.faults import SITES, Action, Site
from lance_align.testing import Faults
from tests.corpus import parquet, pictures
from tests.invariants import check, count

ROWS, GROUP_ROWS, BLOCK_ROWS, COMMIT_ROWS = 48, 12, 8, 16
SOAK_SEEDS = int(os.environ.get("LANCE_ALIGN_SOAK_SEEDS", "200"))
SOAK_FIRST = int(os.environ.get("LANCE_ALIGN_SOAK_FIRST", "0"))


@dataclasses.dataclass(frozen=True)
class Source:
    """An input of good pictures."""

    path: Path
    rows: pa.Table


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    rows = pictures(ROWS)
    return Source(parquet(rows, tmp_path_factory.mktemp("source") / "in.parquet", group_rows=GROUP_ROWS), rows)


def job(source: Source, db: Path, **options: Any) -> JobReport:
    """The command under test."""
    given: dict[str, Any] = {"block_rows": BLOCK_ROWS, "commit_rows": COMMIT_ROWS, "stall_seconds": 4.0}
    given |= {"decode_seconds": 1.0, "progress": False}
    return embed(source.path, db=db, table="t", model="fake", **given | options)


def survives(source: Source, db: Path, executor: str) -> bool:
    """Whether a job put every row into the table; if it did not, it said so in one line (I9)."""
    said = ""
    try:
        report = job(source, db, executor=executor)
    except LanceAlignError as error:
        said = str(error)
    if said:
        assert "\n" not in said
        return False
    assert report.rows_read == report.rows_written + report.already_there == ROWS
    assert count(db / "t.lance") == ROWS
    return True


# What passes costs time and nothing else. A ValueError stands for a bug, and ends the job where no row is to blame.
ONCE: list[tuple[Site, Action, bool]] = [
    ("after_read", "os_error", True),
    ("after_read", "value_error", False),
    ("after_read", "exit", True),
    ("after_read", "kill", True),
    ("after_read", "hang", True),
    ("decode", "os_error", True),
    ("decode", "value_error", True),
    ("decode", "memory_error", True),
    ("decode", "exit", True),
    ("decode", "kill", True),
    ("decode", "hang", True),
    ("encode", "os_error", True),
    ("encode", "value_error", True),
    ("encode", "cuda_memory", True),
    ("encode", "cuda_lost", True),
    ("encode", "exit", True),
    ("encode", "kill", True),
    ("encode", "hang", True),
    ("before_fragment", "os_error", True),
    ("before_fragment", "disk_full", False),
    ("before_fragment", "value_error", False),
    ("before_fragment", "exit", True),
    ("before_fragment", "kill", True),
    ("before_fragment", "hang", True),
    ("after_fragment", "os_error", False),
    ("after_fragment", "value_error", False),
    ("after_fragment", "exit", True),
    ("after_fragment", "kill", True),
    ("after_fragment", "hang", True),
    ("before_commit", "os_error", True),
    ("before_commit", "disk_full", False),
    ("before_commit", "value_error", False),
    ("after_commit", "os_error", False),
    ("after_commit", "value_error", False),
]

# A job on Ray costs seconds: one fault that ends a process that reads, and one that embeds, run always.
ONCE_ON_RAY: set[tuple[Site, Action]] = {("after_read", "exit"), ("encode", "hang")}


def ends_a_process(site: Site, action: Action) -> bool:
    """Whether a fault ends the process it meets; decoding has a process of its own."""
    return action in ("exit", "kill", "hang", "cuda_lost") and site != "decode"


def runs(faults: list[tuple[Any, ...]], *, always_on_ray: set[tuple[Site, Action]]) -> list[Any]:
    """Each fault with each executor that survives it."""
    local = [
        # Memory that never suffices is looked for again after each of hundreds of batches: half a minute.
        pytest.param("local", *fault, marks=pytest.mark.slow if fault == ("encode", "cuda_memory") else ())
        for fault in faults
        if not ends_a_process(*fault[:2])
    ]
    on_ray = [
        pytest.param("ray", *fault, marks=() if fault[:2] in always_on_ray else pytest.mark.slow) for fault in faults
    ]
    return local + on_ray


@pytest.mark.parametrize(
    ("executor", "site", "action", "passes"), runs(ONCE, always_on_ray=ONCE_ON_RAY), indirect=["executor"]
)
def test_a_fault_that_happens_once(
    executor: str, site: Site, action: Action, passes: bool, source: Source, tmp_path: Path
) -> None:
    with Faults() as faults:
        faults.at(site, action, skip=1, times=1)
        survived = survives(source, tmp_path, executor)
        assert faults.fired(site) == 1
        assert survived == passes
        if not survived:
            assert survives(source, tmp_path, executor)
        redone = faults.rows("after_fragment") - ROWS
    print(f"{site} {action}: {redone} rows redone")
    assert redone <= COMMIT_ROWS + 2 * BLOCK_ROWS, "I8: a round, and the blocks under way"
    check(tmp_path, "t", source.rows)


ALWAYS: list[tuple[Site, Action]] = [
    ("after_read", "os_error"),
    ("after_read", "exit"),
    ("encode", "value_error"),
    ("encode", "cuda_memory"),
    ("encode", "kill"),
    ("before_fragment", "os_error"),
    ("after_fragment", "value_error"),
    ("before_commit", "os_error"),
    ("after_commit", "os_error"),
]


@pytest.mark.parametrize(("executor", "site", "action"), runs(ALWAYS, always_on_ray=set()), indirect=["executor"])
def test_a_fault_that_stays_ends_the_job_and_the_same_command_goes_on(
    executor: str, site: Site, action: Action, source: Source, tmp_path: Path
) -> None:
    with Faults() as faults:
        faults.at(site, action, skip=2)
        assert not survives(source, tmp_path, executor)
        assert faults.fired(site) >= 1
        faults.mend()
        assert survives(source, tmp_path, executor)
    check(tmp_path, "t", source.rows)


SURVIVABLE: tuple[Action, ...] = ("os_error", "value_error", "memory_error", "exit", "kill", "hang")
RAISING: tuple[Action, ...] = ("os_error", "value_error", "disk_full")
REASONS = frozenset({"encode", "memory", "crash", "timeout"})


def ask_for_random_faults(faults: Faults, seed: int) -> None:
    """One to four faults, each at a random site, of a random kind, some of them more than once."""
    draw = random.Random(seed)
    for number in range(draw.randint(1, 4)):
        site: Site = draw.choice(SITES)
        in_driver = site in ("before_commit", "after_commit")
        faults.at(
            site,
            draw.choice(RAISING if in_driver else SURVIVABLE),
            skip=draw.randint(0, 3),
            times=draw.choice((1, 1, 2, 6)),
            chance=draw.choice((1.0, 0.5)),
            seed=seed * 10 + number,
            seconds=draw.choice((0.3, 6.0)),  # of a hang: less than stall_seconds, or more
        )


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_soak(source: Source, tmp_path: Path) -> None:
    """Random faults, seed after seed; LANCE_ALIGN_SOAK_FIRST and LANCE_ALIGN_SOAK_SEEDS choose which."""
    outcomes = {True: 0, False: 0}
    for seed in range(SOAK_FIRST, SOAK_FIRST + SOAK_SEEDS):
        place = tmp_path / str(seed)
        try:
            with Faults() as faults:
                ask_for_random_faults(faults, seed)
                survived = survives(source, place, "ray")
                faults.mend()
                if not survived:
                    assert survives(source, place, "ray")
            check(place, "t", source.rows, reasons=REASONS)
            outcomes[survived] += 1
        except BaseException:
            print(f"the first seed that fails: LANCE_ALIGN_SOAK_FIRST={seed} LANCE_ALIGN_SOAK_SEEDS=1", flush=True)
            raise
    print(f"{outcomes[True]} runs survived their faults, {outcomes[False]} needed a second run")
