"""Whole jobs, a Parquet file of JPEGs to a Lance table: this package against the programs in `ways`.

Every program is run by itself, in turns, on all pictures and on one: what the one takes is the start, and the other
pictures are the steady rate. Beside wall-clock seconds stand those of the processors, which other work on the machine
changes less.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from lance_align import visuals
from lance_align.benchmarks.inputs import encoded
from lance_align.benchmarks.measuring import OURS, Line, our_engines, unit_vectors
from lance_align.benchmarks.processes import Usage, measure
from lance_align.encoders import load_encoder, resolve_spec
from lance_align.errors import JobError

WAYS = Path(__file__).parent / "ways"
TIMEOUT_S = 1800.0
ROWS_PER_GROUP = 32
TABLE = "t"
PARTS_ROWS = 32  # pictures that the encoder and the decoder are measured alone on


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A program that does the whole job.

    Attributes:
        name: of the line.
        command: the interpreter, the file; input, model and database follow.
        arguments: what follows these.
    """

    name: str
    command: tuple[str, str]
    arguments: tuple[str, ...] = ()


def ways(*, daft_python: Path | None) -> list[Way]:
    """Ours with each engine that is here, then the others; the loop is last, for its vectors are the reference.

    Args:
        daft_python: an interpreter that has Daft, which wants other versions than this package; None leaves it out.
    """
    found = [
        Way(name=f"{OURS}, {engine}", command=_program("ours"), arguments=(f'{{"engine": "{engine}"}}',))
        for engine in our_engines()
    ]
    if daft_python is not None:
        found.append(Way(name="Daft embed_image", command=_program("daft_embed", daft_python)))
    return [
        *found,
        Way(name="Ray Data, map_batches", command=_program("ray_data")),
        Way(name="loop, table.add", command=_program("loop")),
    ]


def _program(name: str, python: Path | None = None) -> tuple[str, str]:
    return str(python or sys.executable), str(WAYS / f"{name}.py")


def job_lines(
    model: Path,
    pictures: Sequence[Image.Image],
    rows: int,
    *,
    rounds: int,
    contenders: Sequence[Way],
    note: Callable[[str], None],
) -> Iterator[Line]:
    """Lines of the encoder alone, the decoder alone, what both together could reach, and every way.

    Args:
        model: the checkpoint directory.
        pictures: used over and over until there are `rows`.
        rows: more than one.
        contenders: as `ways` gives them: ours first; vectors are compared with the last one's.
        note: told in a line what could not be run, and why.
    """
    part = f"job, {model.name}"
    data = [encoded(picture, "JPEG", quality=90) for picture in pictures]
    alone = [line for way in contenders if way.name.startswith(OURS) for line in _alone(part, way, model, data)]
    runs: dict[str, list[tuple[Usage, Usage]]] = {way.name: [] for way in contenders}
    vectors: dict[str, NDArray[np.float64]] = {}
    with tempfile.TemporaryDirectory(prefix="lance-align-jobs-") as folder:
        place = Path(folder)
        many, one = _input(place / "many.parquet", data, rows), _input(place / "one.parquet", data, 1)
        for turn in range(rounds):
            for way in contenders:
                if way.name not in runs:
                    continue
                try:
                    used = [
                        _run(way, source, model, place / f"{turn} {way.name} {source.stem}") for source in (one, many)
                    ]
                except JobError as error:
                    note(f"{part}: {way.name}: {error}")
                    del runs[way.name]
                    continue
                runs[way.name].append((used[0], used[1]))
                vectors[way.name] = _vectors(place / f"{turn} {way.name} many")
    yield from alone
    rates: dict[str, list[float]] = {}
    for name, pairs in runs.items():
        try:
            rates[name] = _steady(pairs, rows)
        except JobError as error:  # the others took long enough to be told, and much longer to run
            note(f"{part}: {name}: {error}")
    if not any(name.startswith(OURS) for name in rates):
        return  # nothing to compare the others with; the notes say why
    reference = vectors[list(runs)[-1]]
    ideals = {line.name.split(", ")[1]: line.median for line in alone if line.name.startswith("ideal")}
    ours = next(rates[name] for name in rates if name.startswith(OURS))
    for name, steady in rates.items():
        pairs = runs[name]
        cosines = (vectors[name] * reference).sum(axis=1)
        notes = {
            "all s": statistics.median(used.wall_s for _, used in pairs),
            "start s": statistics.median(used.wall_s for used, _ in pairs),
            "CPU ms a row": 1000 * statistics.median(_cpu_s(pair) for pair in pairs) / (rows - 1),
        }
        if name.startswith(OURS):
            notes["percent of ideal"] = 100 * statistics.median(steady) / ideals[name.split(", ")[1]]
        yield Line(
            part=part,
            name=name,
            unit="rows/s",
            median=statistics.median(steady),
            low=min(steady),
            high=max(steady),
            ratio=statistics.median(steady) / statistics.median(ours),
            min_cosine=float(cosines.min()),
            mean_cosine=float(cosines.mean()),
            notes=notes,
        )


def _steady(pairs: Sequence[tuple[Usage, Usage]], rows: int) -> list[float]:
    """Rows a second without the start, of each round; the start is the shortest one, so that no rate is too high.

    Raises:
        JobError: so few rows that the work took no longer than the start.
    """
    start_s = min(start.wall_s for start, _ in pairs)
    spent = [used.wall_s - start_s for _, used in pairs]
    if min(spent) <= 0:
        raise JobError(f"{rows} rows took no longer than one, so nothing was measured; take more (--job-rows)")
    return [(rows - 1) / seconds for seconds in spent]


def _cpu_s(pair: tuple[Usage, Usage]) -> float:
    return max(0.0, pair[1].cpu_s - pair[0].cpu_s)


def _run(way: Way, source: Path, model: Path, db: Path) -> Usage:
    env = dict(os.environ)
    if way.command[0] != sys.executable:
        env.pop("PYTHONPATH", None)  # another interpreter has packages of its own
    env |= {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_USAGE_STATS_ENABLED": "0",
        "DO_NOT_TRACK": "1",
    }
    return measure([*way.command, str(source), str(model), str(db), *way.arguments], env=env, timeout_s=TIMEOUT_S)


def _vectors(db: Path) -> NDArray[np.float64]:
    """Unit vectors of the table a way made, in the order of ids."""
    rows = lance.dataset(str(db / f"{TABLE}.lance")).to_table(columns=["id", "vector"]).sort_by("id")
    return unit_vectors(np.array(rows.column("vector").to_pylist(), dtype=np.float32))


def _alone(part: str, way: Way, model: Path, data: Sequence[bytes]) -> Iterator[Line]:
    """Encoder and decoder by themselves in this process, and the ideal: rows over their CPU seconds, on all CPUs."""
    engine: Any = way.name.split(", ")[1]
    spec = resolve_spec(model)
    encoder = load_encoder(spec, device="cpu", engine=engine)
    files = (list(data) * PARTS_ROWS)[:PARTS_ROWS]
    pixels = np.stack([visuals.read_pixels(each, spec.image) for each in files])
    encoder.encode_pixels(pixels)
    encode_wall_s, encode_cpu_s = _timed(lambda: encoder.encode_pixels(pixels))
    decode_wall_s, decode_cpu_s = _timed(lambda: [visuals.read_pixels(each, spec.image) for each in files])
    cores = os.cpu_count() or 1
    for name, rate, notes in (
        (f"encoder, {engine}", PARTS_ROWS / encode_wall_s, {"CPU ms a row": 1000 * encode_cpu_s / PARTS_ROWS}),
        (
            f"decoder, {engine}, one core",
            PARTS_ROWS / decode_wall_s,
            {"CPU ms a row": 1000 * decode_cpu_s / PARTS_ROWS},
        ),
        (f"ideal, {engine}", cores * PARTS_ROWS / (encode_cpu_s + decode_cpu_s), {"CPUs": float(cores)}),
    ):
        yield Line(
            part=part,
            name=name,
            unit="rows/s",
            median=rate,
            low=rate,
            high=rate,
            notes=notes,
        )


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock and CPU seconds of this process, the best of three."""
    spent = []
    for _ in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        spent.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(wall for wall, _ in spent), min(cpu for _, cpu in spent)


def _input(path: Path, data: Sequence[bytes], rows: int) -> Path:
    table = pa.table(
        {
            "id": [f"{row:09}" for row in range(rows)],
            "image": pa.array([data[row % len(data)] for row in range(rows)], pa.binary()),
            "caption": [f"picture {row}" for row in range(rows)],
        }
    )
    pq.write_table(table, path, row_group_size=ROWS_PER_GROUP)
    return path
