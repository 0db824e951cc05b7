"""The job alone, with a model that costs nothing, on more and more rows: what grows with them, and what does not."""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from lance_align.benchmarks.inputs import encoded, scene_pictures
from lance_align.benchmarks.jobs import TABLE, TIMEOUT_S, WAYS
from lance_align.benchmarks.measuring import Line
from lance_align.benchmarks.processes import Usage, measure

ROWS_PER_GROUP = 50_000
PICTURES_UP_TO = 10_000  # rows; above, texts alone: decoding would be all that is measured
PICTURE_PX = 96
DISTINCT_PICTURES = 256

Kind = Literal["texts", "pictures"]


def growth_lines(sizes: Sequence[int], *, kinds: Sequence[Kind] = ("texts", "pictures")) -> Iterator[Line]:
    """A line for each size and kind of rows; ratios are to the smallest size.

    Notes: seconds of the whole run, to the first version with rows, of all commits, and of the same command again,
    which finds every row done; the table's MB (10^6 bytes); peak MiB of the driver, the ledger and the largest worker.
    """
    for kind in kinds:
        first: float | None = None
        for rows in sorted(sizes):
            if kind == "pictures" and rows > PICTURES_UP_TO:
                continue
            with tempfile.TemporaryDirectory(prefix="lance-align-growth-") as folder:
                line = _grown(kind, rows, Path(folder))
            first = first or line.median
            yield dataclasses.replace(line, ratio=line.median / first)


def _grown(kind: Kind, rows: int, place: Path) -> Line:
    source = place / "in.parquet"
    _write(source, kind, rows)
    versions = _Versions(place / "db" / f"{TABLE}.lance" / "_versions")
    run, report = _run(source, place, kind, versions)
    again, second = _run(source, place, kind, None)
    assert (report["embedded"], second["already_there"]) == (rows, rows), (report, second)
    rate = rows / run.wall_s
    notes = {
        "all s": run.wall_s,
        "first commit s": versions.first_s if versions.first_s is not None else run.wall_s,
        "commits s": report["stage_s"]["commit"],
        "again s": again.wall_s,
        "CPU us a row": 1e6 * run.cpu_s / rows,
        "table MB": sum(file.stat().st_size for file in (place / "db").rglob("*") if file.is_file()) / 1e6,
        **{f"{name} MiB": run.peak_mb[name] for name in ("driver", "ledger", "worker") if name in run.peak_mb},
    }
    return Line(
        part=f"growth, {kind}",
        name=f"{rows:,}",
        unit="rows/s",
        median=rate,
        low=rate,
        high=rate,
        notes=notes,
    )


class _Versions:
    """When a table got its first version with rows: the second one, after the empty one it is created with."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._began = time.perf_counter()
        self.first_s: float | None = None

    def look(self) -> None:
        if self.first_s is None and self._folder.is_dir() and len(list(self._folder.iterdir())) > 1:
            self.first_s = time.perf_counter() - self._began


def _run(source: Path, place: Path, kind: Kind, versions: _Versions | None) -> tuple[Usage, dict[str, Any]]:
    options = json.dumps({"embed": "text" if kind == "texts" else "image", "executor": "ray"})  # for all sizes
    command = [sys.executable, str(WAYS / "ours.py"), str(source), "fake", str(place / "db"), options]
    used = measure(command, timeout_s=TIMEOUT_S, look=versions.look if versions else lambda: None)
    report: dict[str, Any] = json.loads(used.output)
    return used, report


def _write(path: Path, kind: Kind, rows: int) -> None:
    """Ids and captions, all different, and pictures, some of them alike; a group at a time."""
    data = _pictures() if kind == "pictures" else [b""]
    types: dict[str, pa.DataType] = {"id": pa.string(), "caption": pa.string()}
    if kind == "pictures":
        types["image"] = pa.binary()
    schema = pa.schema(types)
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, ROWS_PER_GROUP):
            numbers = range(start, min(rows, start + ROWS_PER_GROUP))
            columns: dict[str, Any] = {
                "id": [f"row-{number}" for number in numbers],
                "caption": [f"a picture of {number} things" for number in numbers],
            }
            if kind == "pictures":
                columns["image"] = pa.array([data[number % len(data)] for number in numbers], pa.binary())
            writer.write_table(pa.table(columns, schema=schema))


def _pictures() -> list[bytes]:
    pictures = scene_pictures(DISTINCT_PICTURES, size_px=PICTURE_PX)
    return [encoded(picture, "JPEG", quality=90) for picture in pictures]
