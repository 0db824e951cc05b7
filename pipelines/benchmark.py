#!/usr/bin/env python
"""Measure this package against the other ways to do the same work, side by side in one run.

The model has align-base's configuration and weights made here (0.7 GB, once); pictures and captions are drawn and made
here too. Contenders run in turns; each line gives the median rate, its range, the ratio to ours, and the cosine of the
vectors to those of transformers. Each table is printed when it is done.

    python pipelines/benchmark.py
    python pipelines/benchmark.py --parts image --rounds 7 --json benchmark.json
    python pipelines/benchmark.py --parts decode --photographs ~/Pictures
    python pipelines/benchmark.py --parts search --parts growth --rows 1000000

On a GPU machine with torch and transformers alone: `python -m lance_align.benchmarks.gpu`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from lance_align import __version__
from lance_align.benchmarks.decoding import decoding_lines
from lance_align.benchmarks.families import family_lines
from lance_align.benchmarks.gpu import gpu_lines, require_gpu
from lance_align.benchmarks.growth import growth_lines
from lance_align.benchmarks.inputs import caption_mixes, scene_pictures
from lance_align.benchmarks.jobs import job_lines, ways
from lance_align.benchmarks.measuring import Line
from lance_align.benchmarks.search import search_lines
from lance_align.benchmarks.start import start_lines
from lance_align.benchmarks.towers import image_lines, machine, text_lines
from lance_align.benchmarks.weights import CACHE, save_base_checkpoint
from lance_align.cli.command import application, run
from lance_align.encoders.checkpoints import BUNDLED, resolve_spec
from lance_align.errors import ArgumentError

Part = Literal["start", "image", "text", "decode", "job", "growth", "search", "families", "gpu"]
WIDTH = 190  # of the table, in characters

app = application("benchmark.py", __doc__)


@app.default
def benchmark(
    *,
    parts: Sequence[Part] = ("start", "image", "text", "decode", "job", "growth", "search", "families"),
    rounds: int = 5,
    pictures: int = 32,
    captions: int = 256,
    files: int = 4,
    photographs: Path | None = None,
    job_rows: int = 96,
    daft_python: Path | None = None,
    rows: Sequence[int] = (1_000, 10_000, 100_000),
    model: Path | None = None,
    json_path: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    """Print a table of what was measured for each part, and write all of it as JSON if asked.

    Args:
        parts: what to measure: what a user waits for (start), the towers (image, text), decoding, whole jobs, how a job
            grows with its rows, searching a table, the other families at their published sizes, the towers on a GPU.
        rounds: measured rounds, after one that is not.
        pictures: of `image`, 640 pixels a side.
        captions: of `text`, of each kind.
        files: of `decode`, of each format and size.
        photographs: a folder of your own for `decode`, brought to its sizes; by default they are made.
        job_rows: pictures of `job`, JPEGs of 640 pixels a side; align-tiny does twenty times as many.
        daft_python: an interpreter that has Daft installed, so that `job` measures it too.
        rows: of the tables of `growth` and `search`; 1000000 takes minutes, and 3 GB among the temporary files.
        model: an ALIGN checkpoint directory; by default one of align-base's configuration is made, and kept among the
            temporary files.
        json_path: a file for the figures.
    """
    for name, value in {"rounds": rounds, "pictures": pictures, "captions": captions, "files": files}.items():
        if value < 1:
            raise ArgumentError(f"{name}={value}; expected a number above 0")
    if min(rows, default=0) < 1 or job_rows < 1:
        raise ArgumentError(f"rows={tuple(rows)}, job_rows={job_rows}; expected numbers above 0")
    if "gpu" in parts:
        require_gpu()
    if model is not None:
        resolve_spec(model)  # what cannot be used is said before anything is measured
    console = Console()
    directory = model or save_base_checkpoint()
    console.print(f"lance_align {__version__}; {machine()}; {directory}")

    def measure(part: Part) -> Iterable[Iterable[Line]]:
        """The tables of a part, each measured as it is gone through."""
        if part == "image":
            return [image_lines(directory, scene_pictures(pictures, size_px=640), rounds=rounds)]
        if part == "text":
            return [text_lines(directory, caption_mixes(captions), rounds=rounds)]
        if part == "decode":
            return [decoding_lines(directory, number=files, folder=photographs, rounds=rounds)]
        if part == "job":
            drawn = scene_pictures(min(job_rows, 96), size_px=640)
            models = ((directory, job_rows), (BUNDLED / "align-tiny", 20 * job_rows))
            how = {"rounds": rounds, "contenders": ways(daft_python=daft_python), "note": console.print}
            return (job_lines(checkpoint, drawn, number, **how) for checkpoint, number in models)
        if part == "start":
            return [start_lines(rounds=rounds)]
        if part == "growth":
            return [growth_lines(rows)]
        if part == "search":
            asked = caption_mixes(400)["scene captions"]
            return [search_lines(directory, sizes=rows, rounds=rounds, captions=asked, cache=CACHE)]
        if part == "families":
            return family_lines(scene_pictures(16, size_px=640), caption_mixes(64)["scene captions"], rounds=rounds)
        return [gpu_lines(directory, rounds=rounds, note=console.print)]

    lines: list[Line] = []
    for part in parts:
        for table in measure(part):
            measured = list(table)
            Console(width=max(console.width, WIDTH)).print(_table(measured))
            lines += measured
            if json_path is not None:
                written = json.dumps([dataclasses.asdict(line) for line in lines], indent=2, allow_nan=False)
                json_path.write_text(written)


def _table(lines: Sequence[Line]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("part", "way", "median", "range", "ratio", "min cosine", "mean cosine", ""):
        table.add_column(name, justify="left" if name in ("part", "way", "") else "right", no_wrap=name != "")
    for line in lines:
        table.add_row(
            line.part,
            line.name,
            f"{line.median:.2f} {line.unit}",
            f"{line.low:.2f}-{line.high:.2f}",
            "" if line.ratio is None else f"{line.ratio:.2f}",
            "" if line.min_cosine is None else f"{line.min_cosine:.6f}",
            "" if line.mean_cosine is None else f"{line.mean_cosine:.6f}",
            ", ".join(f"{name} {value:.4g}" for name, value in line.notes.items()),
        )
    return table


if __name__ == "__main__":
    run(app)
