"""From ``table.search("words")`` to its result: how long, how much of that is the model's, and how much is found."""

from __future__ import annotations

import dataclasses
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lance
import lancedb
import numpy as np
import pyarrow as pa

from lance_align.benchmarks.measuring import OURS, Line
from lance_align.benchmarks.vectors import Space, space, spread
from lance_align.encoders import allow_models, load_encoder, resolve_spec
from lance_align.encoders.remembered import remembered
from lance_align.indexing.building import build_index, choose_settings
from lance_align.indexing.recall import nearest, recall
from lance_align.tables.index_report import IndexReport
from lance_align.tables.layout import EmbeddedColumn
from lance_align.tables.metadata import function_metadata
from lance_align.tables.search_settings import SearchSettings

QUERIES = 100
LIMIT = 10
EXACT_ROWS = 4_000_000  # compared at most by the queries of exact search, which take 4 us a row (lancedb 0.40)


def search_lines(
    directory: Path, *, sizes: Sequence[int], rounds: int, captions: Sequence[str], cache: Path
) -> Iterator[Line]:
    """Latencies in milliseconds, the ratio to embedding a caption alone, and recall@10 of texts and of pictures.

    The table's model is the one in `directory`, so that a query costs what it costs there. What its vectors mean is
    nothing; recall is measured with vectors of align-tiny instead (see `lance_align.benchmarks.vectors`).

    Args:
        directory: an ALIGN checkpoint of at least 256 dimensions.
        sizes: rows of the tables, which are made in the directory for temporary files and removed again.
        rounds: how often the captions are asked.
        captions: short ones, as people ask; `QUERIES` of them are used.
        cache: a directory for the vectors of align-tiny.
    """
    allow_models(str(directory))
    spec = resolve_spec(directory)
    asked = list(dict.fromkeys(captions))[:QUERIES]
    known = space(spec.dim, cache=cache)
    yield _text_tower_alone(directory)
    for rows in sizes:
        folder = Path(tempfile.mkdtemp(prefix="lance-align-search-"))
        try:
            _write(folder, known, rows, directory)
            yield from _of_one_size(folder, known, rows, directory, asked, rounds=rounds)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _of_one_size(
    folder: Path, known: Space, rows: int, directory: Path, asked: Sequence[str], *, rounds: int
) -> Iterator[Line]:
    part = f"search, {rows:,} rows"
    encoder = load_encoder(directory)
    vectors = encoder.encode_texts(asked).vectors
    truth = nearest(lance.dataset(str(folder / "t.lance")), "vector", known.texts[:QUERIES])
    pictures = _some_pictures(known)
    picture_truth = nearest(lance.dataset(str(folder / "t.lance")), "vector", pictures)

    def encode(number: int) -> None:
        encoder.encode_texts([asked[number]])

    own = _timed(encode, len(asked), rounds=rounds)
    yield _line(part, "the encoder alone", own, own)

    def lines(
        name: str, settings: SearchSettings, report: IndexReport | None, queries: int = QUERIES
    ) -> Iterator[Line]:
        table = _open(folder)
        cold_ms = _cold_ms(folder, settings, vectors[0])
        count = min(queries, len(asked))

        def words(number: int) -> None:
            settings.apply(table.search(asked[number])).limit(LIMIT).to_arrow()

        def index_only(number: int) -> None:
            settings.apply(table.search(vectors[number])).limit(LIMIT).to_arrow()

        found = {
            "recall": recall(table, "vector", known.texts[:queries], truth[:queries], settings),
            "of pictures": recall(table, "vector", pictures[:queries], picture_truth[:queries], settings),
        }
        built = {} if report is None else {"build s": report.build_s, "measure s": report.measure_s}
        search = _timed(words, count, rounds=rounds, forget=True)
        only = _timed(index_only, count, rounds=rounds)
        share = statistics.median(own) / statistics.median(search)
        notes = {**found, "share of encoding": share, "first from disk ms": cold_ms, **built}
        yield _line(part, f"{OURS}, {name}", search, own, **notes)
        yield _line(part, f"{name}, by vector", only, own)
        yield _line(part, f"{name}, words asked before", _timed(words, count, rounds=rounds), own)

    yield from lines("exact", SearchSettings(), None, max(1, min(QUERIES, EXACT_ROWS // rows)))
    table = _open(folder)
    report = build_index(table)
    if report.action == "built":
        yield from lines(f"{report.type} {report.partitions}", SearchSettings(), report)
        # The table's own model cannot say: its vectors mean nothing.
        settings, _ = choose_settings(table, "vector", known.texts[:QUERIES], truth, index_type=str(report.type))
        if str(settings):
            yield from lines(f"{report.type} {report.partitions}{settings}", settings, report)


def _write(folder: Path, known: Space, rows: int, directory: Path) -> None:
    spec = resolve_spec(directory)
    column = EmbeddedColumn(source="caption", vector="vector", kind="text")
    fields: list[pa.Field[Any]] = [
        pa.field("id", pa.int64()),
        pa.field("caption", pa.string()),
        pa.field("vector", pa.list_(pa.float32(), spec.dim)),
    ]
    schema = pa.schema(fields, metadata=function_metadata([column], spec))

    def batches() -> Iterator[pa.RecordBatch]:
        start = 0
        for vectors in spread(known, rows):
            ids: Any = pa.array(range(start, start + len(vectors)), pa.int64())
            captions: Any = pa.array([f"row {row} of the benchmark" for row in range(start, start + len(vectors))])
            start += len(vectors)
            yield pa.record_batch([ids, captions, vectors], schema=schema)

    lance.write_dataset(batches(), str(folder / "t.lance"), schema=schema, max_rows_per_file=100_000)


def _open(folder: Path) -> Any:
    return lancedb.connect(folder).open_table("t")


def _some_pictures(known: Space) -> Any:
    (vectors,) = spread(known, QUERIES)
    return vectors.flatten().to_numpy().reshape(QUERIES, -1)


def _cold_ms(folder: Path, settings: SearchSettings, vector: Any) -> float:
    """One search by a handle that has read nothing yet; the operating system's cache stays."""
    table = _open(folder)
    started = time.perf_counter()
    settings.apply(table.search(vector)).limit(LIMIT).to_arrow()
    return (time.perf_counter() - started) * 1e3


def _timed(act: Callable[[int], None], number: int, *, rounds: int, forget: bool = False) -> list[float]:
    """Milliseconds of each call, after one of each that is not measured."""
    taken = []
    for each in range(rounds + 1):
        if forget:
            remembered.clear()
        for query in range(number):
            started = time.perf_counter()
            act(query)
            if each:
                taken.append((time.perf_counter() - started) * 1e3)
    return taken


def _line(part: str, name: str, taken: Sequence[float], own: Sequence[float], **notes: float) -> Line:
    """`median` is the 50th of a hundred, the range is the whole; `ratio` is to the encoder's own time."""
    return Line(
        part=part,
        name=name,
        unit="ms",
        median=statistics.median(taken),
        low=min(taken),
        high=max(taken),
        ratio=statistics.median(taken) / statistics.median(own),
        min_cosine=None,
        mean_cosine=None,
        notes={"p99 ms": float(np.percentile(taken, 99)), **notes},
    )


_START = """
import sys, time
started = time.perf_counter()
from lance_align import load_encoder
encoder = load_encoder(sys.argv[1])
from lance_align.benchmarks.processes import own_mb
before = own_mb()
loading = time.perf_counter()
encoder.encode_texts(["a red car"])
done = time.perf_counter()
after = own_mb()
print(done - started, done - loading, before, after, ",".join(sorted(encoder.loaded_towers)))
"""


def _text_tower_alone(directory: Path) -> Line:
    """A new process from its first line to the vector of its first text, and the memory it took."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", _START, str(directory)], capture_output=True, text=True, check=True
    )
    total_s, tower_s, before, after, towers = done.stdout.split()
    if towers != "text":
        raise RuntimeError(f"a text loaded {towers}")
    taken = [float(total_s) * 1e3]
    line = _line("search, start", "a new process to its first text", taken, taken)
    megabytes = {"MiB before": float(before), "MiB after": float(after)}
    return dataclasses.replace(line, notes={"of it the tower s": float(tower_s), **megabytes})
