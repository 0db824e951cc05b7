"""One job, two executors: the same rows, the same table, the same account; and Ray only where it is needed."""

from __future__ import annotations

import dataclasses
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

import lance_align
from lance_align import embed
from lance_align.cli import run_command
from lance_align.encoders import resolve_spec
from lance_align.errors import ArgumentError, JobError, ModelError
from lance_align.jobs.columns import choose_columns
from lance_align.jobs.executors import choice
from lance_align.jobs.executors.base import blocks
from lance_align.jobs.ids import id_hashes
from lance_align.jobs.ledger.registry import LocalRegistry, TableRegistry
from lance_align.jobs.policy import Policy
from lance_align.jobs.receipts import Receipt
from lance_align.jobs.receipts import packed as packed_hashes
from lance_align.jobs.rounds import Rounds
from lance_align.jobs.sources import open_source
from lance_align.jobs.stages.decode import Reader
from lance_align.jobs.stages.encode import Target
from lance_align.sandbox import Decoder
from lance_align.tables.commits import Committer
from lance_align.tables.fragments import write_fragments
from lance_align.tables.layout import Layout
from lance_align.tables.location import table_location
from tests.corpus import parquet, pictures, png, stored
from tests.fake_tables import photos_schema, rows


def test_an_error_of_ours_while_a_worker_starts_ends_the_job_at_its_first_block() -> None:
    """Ray would start such an actor eleven times over."""
    from lance_align.jobs.executors.ray import WatchedWorker, packed

    starts = []

    def broken() -> Any:
        starts.append(1)
        raise ModelError("these weights are damaged")

    worker = WatchedWorker(broken, (), 60.0)
    for _ in range(2):
        with pytest.raises(ModelError, match="these weights are damaged"):
            worker(packed(pa.table({"n": [1]})))
    assert starts == [1]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            Exception("The current node timed out during startup. This could happen\nbecause"),
            "timed out during startup",
        ),
        (RuntimeError(), "RuntimeError"),
        (None, "within 0.2 s"),
    ],
)
def test_a_ray_that_does_not_start_is_one_line_within_a_bounded_time(
    error: Exception | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lance_align.jobs import cluster

    tries = []

    def start(address: str | None) -> None:
        tries.append(address)
        if error is not None:
            raise error
        threading.Event().wait(5)  # a raylet that is dead

    monkeypatch.setattr(cluster, "_start", start)
    monkeypatch.setattr(cluster, "START_S", 5.0 if error else 0.2)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(JobError, match=said) as caught, cluster.cluster():
        pass
    assert "\n" not in str(caught.value)
    assert "--executor local" in str(caught.value)
    assert len(tries) == (2 if error else 1)


def test_who_listens_to_ray_data_goes_on_hearing_it() -> None:
    from lance_align.jobs import cluster

    mine = logging.StreamHandler()
    log = logging.getLogger("ray.data")
    log.addHandler(mine)
    cluster._quieten()
    log.removeHandler(mine)
    assert mine.level == logging.NOTSET


def refuse_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def ray(_: choice.Executors) -> Any:
        raise JobError("Ray was asked for")

    monkeypatch.setattr(choice.Executors, "ray", ray)


def test_auto_is_local_for_few_rows_and_for_nothing_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_ray(monkeypatch)
    monkeypatch.setattr("lance_align.jobs.running.LOCAL_ROWS", 20)
    options: dict[str, Any] = {"db": tmp_path, "table": "t", "model": "fake", "progress": False}
    with pytest.raises(JobError, match="Ray was asked for"):
        embed(parquet(pictures(21), tmp_path / "a.parquet"), **options)
    assert embed(tmp_path / "a.parquet", **options, executor="local").embedded == 21
    assert embed(tmp_path / "a.parquet", **options).already_there == 21  # more rows than 20, none of them missing
    parquet(pictures(41), tmp_path / "a.parquet")
    report = embed(tmp_path / "a.parquet", **options)
    assert (report.embedded, report.already_there, report.plan["executor"]) == (20, 21, "local")


@pytest.mark.parametrize("kind", ["csv", "tar", "digests", "folder"])
def test_auto_looks_for_what_is_missing_whatever_the_source_is(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the last three no roll call is needed otherwise, and of a CSV file nobody knows the rows."""
    refuse_ray(monkeypatch)
    monkeypatch.setattr("lance_align.jobs.running.LOCAL_ROWS", 5)

    def source(rows: int) -> Path:
        place = tmp_path / "in"
        place.mkdir(exist_ok=True)
        for number in range(rows):
            (place / f"{number}.png").write_bytes(png(number))
        if kind == "folder":
            return place
        if kind == "csv":
            lines = ["id,image"] + [f"{number},in/{number}.png" for number in range(rows)]
            (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
            return tmp_path / "list.csv"
        if kind == "digests":
            return parquet(pictures(rows).drop_columns(["id"]), tmp_path / "in.parquet")
        import tarfile

        with tarfile.open(tmp_path / "in.tar", "w") as archive:
            for number in range(rows):
                archive.add(place / f"{number}.png", arcname=f"{number}.png")
        return tmp_path / "in.tar"

    options: dict[str, Any] = {"db": tmp_path, "table": "t", "model": "fake", "progress": False}
    with pytest.raises(JobError, match="Ray was asked for"):
        embed(source(12), **options)
    assert embed(source(12), **options, executor="local").embedded == 12
    same = embed(source(12), **options)
    assert (same.rows_read, same.already_there, same.embedded) == (12, 12, 0)
    more = embed(source(15), **options)
    assert (more.rows_read, more.already_there, more.embedded) == (15, 12, 3)


def test_a_run_that_finds_nothing_to_do_does_not_import_ray(tmp_path: Path) -> None:
    import subprocess

    parquet(pictures(30), tmp_path / "in.parquet")
    code = (
        "import sys; from lance_align import embed\n"
        "for _ in range(2): embed('in.parquet', db='.', table='t', model='fake', progress=False)\n"
        "assert 'ray' not in sys.modules, 'ray'"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)


def test_what_one_process_cannot_be_is_refused(tmp_path: Path) -> None:
    options: dict[str, Any] = {"db": tmp_path, "table": "t", "model": "fake", "progress": False}
    source = parquet(pictures(2), tmp_path / "in.parquet")
    with pytest.raises(ArgumentError, match="executor='cloud'; expected one of auto, ray, local"):
        embed(source, **options, executor="cloud")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="actors=2, readers=None with executor='local'"):
        embed(source, **options, executor="local", actors=2)


@pytest.mark.parametrize("sign", ["comes", "goes"])
def test_a_task_that_is_executed_again_cuts_its_rows_alike(sign: str, tmp_path: Path) -> None:
    """Forty pictures come, or go, between two executions: a retried task must give the same rows in each table."""
    for number in range(120):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    lines = ["id,image"] + [f"{number},{number}.png" for number in range(120)]
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    source = open_source(tmp_path / "list.csv")
    spec = resolve_spec("fake")
    reader = Reader(
        source=dataclasses.replace(source, splits=()),
        columns=choose_columns(source),
        decoder=Decoder(image=spec.image),
    )
    schema = photos_schema()
    uri = table_location(tmp_path, "t").uri
    Committer.open_or_create(uri, schema)
    registry = LocalRegistry(TableRegistry(Target(uri=uri, schema=schema, layout=Layout()), 1, Policy()))

    def execution() -> Iterator[list[str]]:
        tables = reader.rows(source.splits[0], first_position=0, claims=registry)
        return (table.column("id").to_pylist() for table in blocks(tables, rows=reader.table_rows))

    def hide() -> None:
        for number in range(40):
            (tmp_path / f"{number}.png").rename(tmp_path / f"{number}.later")

    def show() -> None:
        for number in range(40):
            (tmp_path / f"{number}.later").rename(tmp_path / f"{number}.png")

    hide()
    if sign == "goes":
        show()
    first = list(execution())
    if sign == "goes":
        hide()
    else:
        show()
    assert list(execution()) == first
    assert len(first) > 1


@pytest.fixture
def committer(tmp_path: Path) -> Committer:
    return Committer.open_or_create(table_location(tmp_path, "t").uri, photos_schema())


def receipt(committer: Committer, names: list[str]) -> Receipt:
    table = rows(names, images=[png(1)] * len(names), captions=["red"] * len(names))
    return Receipt(
        fragments=tuple(write_fragments(committer.uri, table)),
        rows=len(names),
        reasons={},
        hashes=packed_hashes(id_hashes(names)),
        decode_s=0.0,
        encode_s=0.0,
        write_s=0.0,
    )


def test_rows_that_come_again_are_committed_once(committer: Committer) -> None:
    """Whatever went wrong before: within a commit batch, across two, a whole block or a part of it."""
    target = Target(uri=committer.uri, schema=photos_schema(), layout=Layout())
    registry = LocalRegistry(TableRegistry(target, committer.version, Policy()))
    names = [f"row {number}" for number in range(10)]
    hashes = id_hashes(names)
    registry.claim(0, hashes, np.zeros(10, dtype=bool), 0.0)
    batches = Rounds(committer, commit_rows=1000, commit_seconds=60)
    batches.use(registry)
    batches.add(receipt(committer, names[:6]))
    batches.add(receipt(committer, names[4:8]))  # in part, in the same commit batch
    batches.commit()
    batches.add(receipt(committer, names[:6]))  # whole, in a later one
    batches.add(receipt(committer, names[6:]))
    batches.commit()
    found = lance.dataset(committer.uri).to_table(columns=["id"]).column("id").to_pylist()
    assert sorted(found) == names
    assert (batches.rows, batches.committed, batches.dropped, registry.settled()) == (10, 10, 0, 10)


def test_a_table_that_holds_an_id_twice_is_told(tmp_path: Path) -> None:
    options: dict[str, Any] = {"db": tmp_path, "table": "t", "model": "fake", "progress": False}
    source = parquet(pictures(5), tmp_path / "in.parquet")
    embed(source, **options)
    uri = str(tmp_path / "t.lance")
    dataset = lance.dataset(uri)
    lance.write_dataset(dataset.to_table().slice(0, 2), uri, mode="append")
    with pytest.raises(JobError, match=r"2 rows of .*t\.lance have an id that another row of it has") as caught:
        embed(source, **options)
    assert isinstance(caught.value.report, lance_align.JobReport)
    assert (caught.value.report.already_there, caught.value.report.doubled) == (5, 2)


def test_a_run_in_which_no_row_succeeds_fails(tmp_path: Path) -> None:
    table = pa.table({"id": ["a", "b"], "image": pa.array([b"x", b"y"], pa.binary())})
    source = parquet(table, tmp_path / "in.parquet")
    options: dict[str, Any] = {"db": tmp_path, "table": "t", "model": "fake", "progress": False}
    with pytest.raises(JobError, match=r"none of 2 rows could be embedded \(format 2\)"):
        embed(source, **options)
    assert len(stored(tmp_path, "t")) == 2
    assert embed(source, **options).lacking == 2  # a re-run finds nothing to do, and says what is missing


def test_files_that_could_not_be_written_at_the_end_are_refused_at_the_start(tmp_path: Path) -> None:
    source = parquet(pictures(2), tmp_path / "in.parquet")
    with pytest.raises(ArgumentError, match=r"log file .*nowhere/log cannot be written: there is no folder"):
        embed(source, db=tmp_path, table="t", model="fake", progress=False, log_file=tmp_path / "nowhere" / "log")
    report = tmp_path / "nowhere" / "report.json"
    with pytest.raises(SystemExit) as caught:
        run_command("embed", [str(source), "--db", str(tmp_path), "--table", "t", "--report-json", str(report)])
    assert caught.value.code == 1
    assert not (tmp_path / "t.lance").exists()
