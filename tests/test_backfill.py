"""The backfill job, end to end on a real Ray: every row of somebody's table has its own vector, or a reason."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import lance
import lancedb
import numpy as np
import pyarrow as pa
import pytest
from lancedb.index import BTree, IvfFlat

import lance_align
from lance_align import JobReport, backfill
from lance_align.cli import run_command
from lance_align.encoders import load_encoder
from lance_align.errors import ArgumentError, JobError, LanceAlignError, ModelError, TableError
from lance_align.tables.metadata import error_column
from lance_align.testing import Faults
from tests.corpus import png

ROOT = Path(__file__).parent.parent


def pictures(numbers: range) -> pa.Table:
    """Rows as other people keep them: one in twenty without a picture, one in twenty with a bad one."""
    cells = [None if n % 20 == 7 else b"bad" if n % 20 == 8 else png(n) for n in numbers]
    return pa.table({"number": pa.array(numbers, pa.int64()), "picture": pa.array(cells, pa.binary())})


def photos_of(directory: Path, *parts: range) -> Any:
    """A table of pictures, a fragment for each range of numbers."""
    table = lancedb.connect(directory).create_table("photos", pictures(parts[0]))
    for part in parts[1:]:
        table.add(pictures(part))
    return table


def run(directory: Path, **options: Any) -> JobReport:
    defaults: dict[str, Any] = {"db": directory, "table": "photos", "progress": False, "block_rows": 10}
    return backfill(**(defaults | options))


def check(table: Any, *, source: str = "picture", vector: str = "vector", model: str = "fake") -> None:
    """Each row has the vector of its own picture or text, bit for bit, or a reason (I1 to I5)."""
    table.checkout_latest()
    rows = table.to_arrow().to_pylist()
    error = error_column(table.schema, vector)
    encoder = load_encoder(model)
    cells = [row[source] for row in rows]
    is_text = pa.types.is_string(table.schema.field(source).type)
    embedded = encoder.encode_texts(cells) if is_text else encoder.encode_images(cells)
    for row, wanted, reason in zip(rows, embedded.vectors, embedded.reasons, strict=True):
        if reason is None:
            assert row[vector] is not None, row
            assert np.array_equal(np.float32(row[vector]), wanted)
            assert row[error] is None
        else:
            assert row[vector] is None
            assert row[error].split(":")[0] == reason.split(":")[0]


def test_somebodys_table_becomes_searchable(tmp_path: Path) -> None:
    table = photos_of(tmp_path, range(40), range(40, 50), range(50, 100))
    table.create_index("number", config=BTree())
    table.delete("number = 3 or number >= 90")
    before, version = table.to_arrow(), table.version
    lance_align.attach(table, image="picture", model="fake")
    table.add([{"number": 200, "picture": png(200)}])  # embeds itself
    table.add(pa.table({"number": [201], "picture": pa.array([b"x"], pa.binary())}), on_bad_vectors="null")

    report = run(tmp_path, commit_rows=30)
    assert (report.rows_read, report.already_there, report.failed) == (91, 1, 11)
    assert report.embedded == 79
    assert report.reasons == {"null": 5, "format": 6}
    assert report.adds_up
    assert report.commits in (2, 3)  # of whole fragments: of 39 and of 40 rows, and two small ones
    check(table)
    assert report.table_version == table.version
    assert table.to_arrow().select(before.schema.names).slice(0, before.num_rows).equals(before)
    assert table.search(png(20)).limit(1).to_list()[0]["number"] == 20
    assert len(table.search("any words").limit(500).to_list()) == 80
    assert "ScalarIndexQuery" in table.to_lance().scanner(filter="number = 5").explain_plan()
    older = lancedb.connect(tmp_path).open_table("photos")
    older.checkout(version)
    assert older.to_arrow().equals(before)

    again = run(tmp_path)
    assert (again.embedded, again.failed, again.already_there, again.commits) == (0, 0, 91, 0)
    assert again.table_version == report.table_version

    table.update(where="number = 8", values={"picture": png(8)})  # a bad picture is mended
    assert run(tmp_path).commits == 0
    retried = run(tmp_path, retry_errors=True)
    assert (retried.embedded, retried.failed, retried.already_there) == (1, 10, 80)
    check(table)
    with pytest.raises(JobError, match="10 of 10 rows could not be embedded") as failed:
        run(tmp_path, retry_errors=True, max_errors=0)
    assert isinstance(failed.value.report, JobReport)


def test_a_stopped_run_goes_on_and_loses_one_round_at_most(tmp_path: Path) -> None:
    table = photos_of(tmp_path, range(50), range(50, 100), range(100, 150))
    lance_align.attach(table, image="picture", model="fake")
    with Faults() as faults:
        faults.at("before_commit", "value_error", skip=1, times=None)
        with pytest.raises((LanceAlignError, ValueError)):
            run(tmp_path, commit_rows=50)
        faults.mend()
        done = table_rows(table, "vector IS NOT NULL OR error IS NOT NULL")
        assert done == 50
        report = run(tmp_path, commit_rows=50)
        assert (report.already_there, report.embedded + report.failed) == (done, 150 - done)
    check(table)


@pytest.mark.parametrize("executor", ["local", pytest.param("ray", marks=pytest.mark.slow)], indirect=True)
def test_passing_faults_everywhere_cost_no_row(executor: str, tmp_path: Path) -> None:
    table = photos_of(tmp_path, range(40), range(40, 80))
    lance_align.attach(table, image="picture", model="fake")
    with Faults() as faults:
        for site, action in (
            ("after_read", "os_error"),
            ("decode", "kill"),
            ("encode", "exit" if executor == "ray" else "os_error"),
            ("after_fragment", "os_error"),
            ("before_commit", "os_error"),  # a third failure of one commit would end the job
        ):
            faults.at(site, action, times=1)  # type: ignore[arg-type]
        report = run(tmp_path, commit_rows=20, executor=executor)
        assert all(faults.fired(site) == 1 for site in ("after_read", "encode", "after_fragment", "before_commit"))
    assert (report.rows_read, report.failed) == (80, 8)
    check(table)


def table_rows(table: Any, condition: str) -> int:
    table.checkout_latest()
    return int(table.count_rows(condition))


def test_a_large_fragment_is_split_when_time_is_over(tmp_path: Path) -> None:
    texts = pa.table({"body": [f"text {number}" for number in range(2500)]})  # one fragment, three tasks
    table = lancedb.connect(tmp_path).create_table("photos", texts)
    lance_align.attach(table, text="body", model="fake")
    with Faults() as faults:
        faults.at("encode", "hang", seconds=1.0)
        report = run(tmp_path, commit_rows=1, commit_seconds=0.3, executor="local", block_rows=1024)
    assert report.commits > 1
    check(table, source="body")


def test_beside_other_writers(tmp_path: Path) -> None:
    table = photos_of(tmp_path, range(200), range(200, 400), range(400, 600))
    lance_align.attach(table, image="picture", model="fake")
    other = lancedb.connect(tmp_path).open_table("photos")
    failures: list[Exception] = []
    with Faults() as faults:
        faults.at("encode", "hang", seconds=0.05)
        thread = threading.Thread(target=outcome, args=(lambda: run(tmp_path, commit_rows=20), failures))
        thread.start()
        while thread.is_alive() and not filled(table):
            time.sleep(0.05)
        steps = 0
        while thread.is_alive() and steps < 12:
            disturb(other, tmp_path, steps)
            steps += 1
        thread.join()
    assert failures == []
    assert steps >= 4
    check(table)  # nothing is empty: the job looked again after the last of them
    numbers = [row["number"] for row in table.to_arrow().to_pylist()]
    assert len(set(numbers)) == len(numbers)
    assert set(range(600)) - set(numbers) == {7 * step for step in range(1, steps, 4)}


def disturb(table: Any, directory: Path, step: int) -> None:
    """One thing another program may do: add, delete, compact, index; then rows without vectors."""
    table.checkout_latest()
    if step % 4 == 0:
        table.add([{"number": 1000 + step, "picture": png(step)}])
    elif step % 4 == 1:
        table.delete(f"number = {7 * step}")
    elif step % 4 == 2:
        table.optimize()
    else:
        lance.write_dataset(pictures(range(2000 + step, 2001 + step)), directory / "photos.lance", mode="append")
        if table.count_rows("vector IS NOT NULL") > 10:
            table.create_index("vector", config=IvfFlat(num_partitions=1), replace=True)


def outcome(act: Any, failures: list[Exception]) -> None:
    try:
        act()
    except Exception as error:  # noqa: BLE001  whatever it is, the test shows it
        failures.append(error)


def test_a_second_model_and_texts_beside_the_first(photos: Any, tmp_path: Path) -> None:
    """In a table of the embed job: what it wrote stays, bit for bit."""
    before = photos.to_arrow()
    lance_align.attach(photos, image="image", vector="my tiny vector", model="align-tiny")
    lance_align.attach(photos, text="caption", vector="words", model="fake")
    first = run(tmp_path / "db", vector="my tiny vector")
    second = run(tmp_path / "db", vector="words")
    assert (first.embedded, first.failed, first.model) == (3, 1, "align-tiny")
    assert (second.embedded, second.failed, second.reasons) == (3, 1, {"null": 1})
    photos.checkout_latest()
    assert photos.to_arrow().select(before.schema.names).equals(before)
    check(photos, source="caption", vector="words")
    tiny = load_encoder("align-tiny").encode_images(photos.to_arrow().column("image").to_pylist())
    for row, wanted in zip(photos.to_arrow().to_pylist(), tiny.vectors, strict=True):
        if row["my tiny vector"] is not None:
            assert float(np.dot(np.float32(row["my tiny vector"]), wanted)) > 0.9999
    found = photos.search("a red square", vector_column_name="words").limit(1).to_list()[0]
    assert found["caption"] == "a red square"
    lance_align.verify(photos).raise_if_bad()


def test_rows_of_the_embed_job_that_table_add_left_without_a_reason(photos: Any, tmp_path: Path) -> None:
    bad = pa.table({"id": ["later"], "image": pa.array([b"nothing"], pa.large_binary())})
    photos.add(bad, on_bad_vectors="null")
    photos.update(where="id = 'broken'", values={"image": png(5)})
    with pytest.raises(JobError, match=r"none of 1 rows could be embedded \(format 1\)") as caught:
        run(tmp_path / "db")
    assert isinstance(caught.value.report, JobReport)
    assert (caught.value.report.failed, caught.value.report.already_there) == (1, 4)
    assert run(tmp_path / "db", retry_errors=True).embedded == 1
    check(photos, source="image")
    lance_align.verify(photos).raise_if_bad()


def test_paths_start_at_the_database_and_stay_inside(tmp_path: Path) -> None:
    database = tmp_path / "db"
    database.mkdir()
    (database / "in.png").write_bytes(png(1))
    (tmp_path / "out.png").write_bytes(png(2))
    places = ["in.png", str(tmp_path / "out.png"), "https://example.com/a.png", None]
    table = lancedb.connect(database).create_table("photos", pa.table({"place": pa.array(places, pa.large_string())}))
    lance_align.attach(table, image="place", model="fake")
    assert run(database).reasons == {"missing": 1, "fetch": 1, "null": 1}
    run(database, allow_outside=True, retry_errors=True)
    table.checkout_latest()
    rows = table.to_arrow().to_pylist()
    wanted = load_encoder("fake").encode_images([png(1), png(2)]).vectors.tolist()
    assert [row["vector"] for row in rows] == [*wanted, None, None]
    assert rows[2]["error"].startswith("fetch: ")


def test_blobs(tmp_path: Path) -> None:
    """Lance keeps large values apart if asked to, and answers with their places."""
    field = pa.field("picture", pa.large_binary(), metadata={"lance-encoding:blob": "true"})
    rows = pa.table({"picture": [png(1), None, png(3)]}, schema=pa.schema([field]))
    lance.write_dataset(rows, tmp_path / "photos.lance", data_storage_version="2.1")
    table = lancedb.connect(tmp_path).open_table("photos")
    lance_align.attach(table, image="picture", model="fake")
    report = run(tmp_path)
    assert (report.embedded, report.reasons) == (2, {"null": 1})
    assert table_rows(table, "vector IS NOT NULL") == 2
    wanted = load_encoder("fake").encode_images([png(1), png(3)]).vectors.tolist()
    assert [row for row in table.to_arrow().column("vector").to_pylist() if row is not None] == wanted


def test_what_is_wrong_is_said_before_ray_starts(tmp_path: Path, photos: Any) -> None:
    plain = photos_of(tmp_path, range(3))
    with pytest.raises(TableError, match="does not say how 'vector' is made"):
        run(tmp_path)
    with pytest.raises(TableError, match="is not there; the database has photos"):
        run(tmp_path, table="nothing")
    lance_align.attach(plain, image="picture", model="fake")
    wrong: list[dict[str, Any]] = [{"commit_rows": 0}, {"commit_rows": "10"}, {"commit_seconds": math.nan}]
    for option in wrong:
        with pytest.raises(ArgumentError, match=r"commit_\w+=.*; expected a number above 0"):
            run(tmp_path, **option)
    with pytest.raises(ArgumentError, match="device is None; expected 'auto'"):
        run(tmp_path, device=None)
    with pytest.raises(TableError, match="table name None"):
        run(tmp_path, table=None)
    with pytest.raises(ArgumentError, match="decode_memory_mb=1"):
        run(tmp_path, decode_memory_mb=1)
    with pytest.raises(TableError, match="does not say how 'number' is made"):
        run(tmp_path, vector="number")
    rename_model(plain, b'"fake"', b'"/somewhere/else"')
    with pytest.raises(ModelError, match="names the model '/somewhere/else', which is not a known checkpoint"):
        run(tmp_path)
    rename_model(photos, b"fake-encoder-version-1", b"fake-encoder-version-2")
    with pytest.raises(ModelError, match=r"with fingerprint fake-encoder-version-2, but the one found here has"):
        run(tmp_path / "db")


def rename_model(table: Any, old: bytes, new: bytes) -> None:
    """The table says something else than the truth, in all its metadata."""
    metadata = table.schema.metadata
    changed = {key.decode(): value.replace(old, new).decode() for key, value in metadata.items()}
    table.to_lance().update_schema_metadata(changed)
    table.checkout_latest()


def command(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    line = [sys.executable, str(ROOT / "pipelines" / "backfill.py"), *map(str, arguments)]
    clean = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(line, cwd=cwd, env=clean, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_the_command_attaches_is_killed_and_goes_on(tmp_path: Path) -> None:
    table = photos_of(tmp_path, *(range(start, start + 100) for start in range(0, 600, 100)))
    options = ["--db", tmp_path, "--table", "photos", "--image", "picture", "--no-progress"]
    options += ["--block-rows", "10", "--commit-rows", "100", "--report-json", tmp_path / "report.json"]
    with command(*options, "--model", "fake", cwd=tmp_path) as process:
        while process.poll() is None and not filled(table):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    done = filled(table)
    assert 0 < done < 600
    with command(*options, cwd=tmp_path) as process:  # the model stands in the table by now
        out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["already_there"], report["rows_read"]) == (done, 600)
    assert f"  already there{done:>14,}\n" in out
    check(table)


def filled(table: Any) -> int:
    table.checkout_latest()
    if "vector" not in table.schema.names:
        return 0
    return int(table.count_rows("vector IS NOT NULL OR error IS NOT NULL"))


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "--table"),
        (["--table", "photos", "--no-such-option"], 2, "--no-such-option"),
        (["--table", "photos"], 1, "does not say how 'vector' is made"),
        (["--table", "photos", "--image", "number"], 1, "'number' of table 'photos' is int64"),
        (["--table", "photos", "--image", "picture", "--model", "no-such-model"], 1, "no-such-model"),
        (["--table", "nothing", "--image", "picture"], 1, "nothing.lance is not there; the database has photos"),
        (["--table", "über uns", "--image", "picture"], 1, "refused by LanceDB"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(
    arguments: list[str], status: int, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    table = photos_of(tmp_path / "db", range(2))
    version = table.version
    with pytest.raises(SystemExit) as left:
        run_command("backfill", [*arguments, "--db", str(tmp_path / "db"), "--no-progress"])
    assert left.value.code == status
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    table.checkout_latest()
    assert table.version == version
