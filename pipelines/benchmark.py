"""Measure this package against the other ways to do the same work, side by side in one run.

The model has align-base's configuration and weights made here (0.7 GB, once); pictures and captions are the demo's.
Contenders run in turns; each line gives the median rate, its range, the ratio to ours, and the cosine of the vectors
to those of transformers.

    python pipelines/benchmark.py
    python pipelines/benchmark.py --parts image --rounds 7 --json benchmark.json
    python pipelines/benchmark.py --parts decode --photographs ~/Pictures
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from lance_align import LanceAlignError, __version__
from lance_align.benchmarks.decoding import decoding_lines
from lance_align.benchmarks.inputs import caption_mixes, scene_pictures
from lance_align.benchmarks.measuring import Line
from lance_align.benchmarks.towers import image_lines, machine, text_lines
from lance_align.benchmarks.weights import save_base_checkpoint
from lance_align.errors import ArgumentError

Part = Literal["image", "text", "decode"]
WIDTH = 170  # of the table, in characters

app = App(
    name="benchmark.py",
    help=__doc__,
    help_format="markdown",
    version=__version__,
    default_parameter=Parameter(negative_iterable=()),
)


@app.default
def benchmark(
    *,
    parts: Sequence[Part] = ("image", "text"),
    rounds: int = 5,
    pictures: int = 32,
    captions: int = 256,
    files: int = 4,
    photographs: Path | None = None,
    model: Path | None = None,
    json_path: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    """Print a table of what was measured, and write it as JSON if asked.

    Args:
        parts: what to measure.
        rounds: measured rounds, after one that is not.
        pictures: how many, of 640 pixels a side.
        captions: how many of each kind.
        files: how many of each format and size for `decode`.
        photographs: a folder of your own for `decode`, brought to its sizes; by default they are made.
        model: an ALIGN checkpoint directory; by default one of align-base's configuration is made, and kept in the
            directory for temporary files.
        json_path: a file for the figures.
    """
    for name, value in {"rounds": rounds, "pictures": pictures, "captions": captions, "files": files}.items():
        if value < 1:
            raise ArgumentError(f"{name}={value}; expected a number above 0")
    directory = model or save_base_checkpoint(
        Path(tempfile.gettempdir(), "lance-align-benchmark", "align-base-textured")
    )
    lines: list[Line] = []
    console = Console()
    wide = Console(width=max(console.width, WIDTH))
    console.print(f"lance_align {__version__}; {machine()}; {directory}")
    for line in _measure(parts, directory, rounds=rounds, pictures=pictures, captions=captions):
        lines.append(line)
    if "decode" in parts:
        lines += decoding_lines(directory, number=files, folder=photographs, rounds=rounds)
    wide.print(_table(lines))
    if json_path is not None:
        json_path.write_text(json.dumps([dataclasses.asdict(line) for line in lines], indent=2))


def _measure(parts: Sequence[Part], directory: Path, *, rounds: int, pictures: int, captions: int) -> Iterator[Line]:
    if "image" in parts:
        yield from image_lines(directory, scene_pictures(pictures, size_px=640), rounds=rounds)
    if "text" in parts:
        yield from text_lines(directory, caption_mixes(captions), rounds=rounds)


def _table(lines: Sequence[Line]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("part", "way", "median", "range", "ratio", "min cosine", "mean cosine", ""):
        table.add_column(name, justify="left" if name in ("part", "way", "") else "right", no_wrap=True)
    for line in lines:
        table.add_row(
            line.part,
            line.name,
            f"{line.median:.2f} {line.unit}",
            f"{line.low:.2f}-{line.high:.2f}",
            f"{line.ratio:.2f}",
            f"{line.min_cosine:.6f}",
            f"{line.mean_cosine:.6f}",
            ", ".join(f"{name} {value:.1f}" for name, value in line.notes.items()),
        )
    return table


if __name__ == "__main__":
    try:
        app()
    except LanceAlignError as error:
        sys.exit(f"error: {error}")
