"""Cleanup removes what nothing needs and nothing else, however the table came about."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lance
import lancedb
import pyarrow as pa
import pytest
from lance.fragment import LanceFragment
from lance.fragment import write_fragments as lance_write_fragments

import lance_align
from lance_align.errors import ArgumentError, TableError
from lance_align.faults import VARIABLE
from lance_align.tables.commits import Committer
from lance_align.tables.fragments import write_fragments
from lance_align.tables.location import TableLocation
from lance_align.testing import Faults
from tests.corpus import parquet, pictures
from tests.fake_tables import BLUE, GREEN, RED, photos_schema, png, rows
from tests.table_files import needed, on_disk, orphans

ROOT = Path(__file__).parent.parent


def opened(uri: str) -> Any:
    return lancedb.connect(Path(uri).parent).open_table(Path(uri).stem)


def leave_orphan(uri: str, name: str = "never") -> str:
    """A data file that is never committed."""
    before = on_disk(uri)
    write_fragments(uri, rows([name], images=[png(RED)], captions=[None]))
    (path,) = on_disk(uri) - before
    return path


def age(uri: str, path: str, *, hours: float) -> None:
    then = time.time() - 3600 * hours
    os.utime(Path(uri, path), (then, then))


def contents(uri: str) -> dict[int, list[dict[str, Any]]]:
    """The rows of every version."""
    numbers = [version["version"] for version in lance.dataset(uri).versions()]
    return {number: lance.dataset(uri, version=number).to_table().to_pylist() for number in numbers}


def fail_a_delete(uri: str) -> None:
    """Two deletes of one fragment at once: the loser leaves a deletion file, and a transaction."""
    stale = lance.dataset(uri)
    lance.dataset(uri).delete(f"id = '{BLUE}'")
    with pytest.raises(OSError, match="concurrent writers"):
        stale.delete(f"id in ('{RED}', '{BLUE}')", conflict_retries=0)


def test_everything_unneeded_goes_and_every_version_stays(place: TableLocation) -> None:
    uri = place.uri
    committer = Committer.open_or_create(uri, photos_schema())
    for name in ("more", "even more"):
        committer.commit(write_fragments(uri, rows([name], images=[png(GREEN)], captions=[None])), rows=1)
    table = opened(uri)
    table.to_lance().create_scalar_index("id", "BTREE")
    table.checkout_latest()
    table.delete(f"id = '{GREEN}'")
    table.add_columns({"length": "length(caption)"})
    table.to_lance().optimize.compact_files()
    table.to_lance().tags.create("kept", 2)
    dataset = lance.dataset(uri).create_branch("work")
    lance.write_dataset(rows(["on the branch"], images=[png(RED)], captions=[None]), dataset, mode="append")
    assert orphans(uri) == set()
    before = contents(uri)
    leftovers = {leave_orphan(uri), "_versions/.tmpX1", "data/.tmpX2", "data/half.lance#1", "_transactions/7-no.txn"}
    leftovers.add("_indices/00000000-0000-0000-0000-000000000000/part.lance")
    for path in leftovers:
        Path(uri, path).parent.mkdir(exist_ok=True)
        Path(uri, path).touch()
    assert orphans(uri) == leftovers

    planned = lance_align.cleanup(opened(uri), min_age_s=0, dry_run=True)
    assert set(planned.paths) == orphans(uri) == leftovers
    done = lance_align.cleanup(opened(uri), min_age_s=0)
    assert (done, done.files, done.kept_files) == (planned, 6, 0)
    assert done.bytes > 1000
    assert orphans(uri) == set()
    assert not Path(uri, "_indices/00000000-0000-0000-0000-000000000000").exists()
    assert contents(uri) == before
    assert lance.dataset(uri).checkout_version(("work", None)).count_rows("id = 'on the branch'") == 1
    assert lance.dataset(uri, version="kept").count_rows() == 4
    again = lance_align.cleanup(opened(uri), min_age_s=0)
    assert (again.files, again.bytes, again.paths) == (0, 0, ())


def test_what_only_a_branch_needs_stays(place: TableLocation) -> None:
    lance.dataset(place.uri).create_branch("work")
    table = opened(place.uri)
    table.delete("id != 'broken'")
    table.to_lance().optimize.compact_files()
    lance.dataset(place.uri).cleanup_old_versions(retain_versions=1)
    Path(place.uri, f"_versions/{2**64 - 3}.manifest").unlink()  # version 2: Lance keeps it, others need not
    assert [version["version"] for version in lance.dataset(place.uri).versions()] == [5]
    lance_align.cleanup(opened(place.uri), min_age_s=0)
    branch = lance.dataset(place.uri).checkout_version(("work", None))
    assert sorted(branch.to_table()["id"].to_pylist()) == [BLUE, "broken", GREEN, RED]


def test_commits_that_lost(place: TableLocation) -> None:
    fail_a_delete(place.uri)
    left = orphans(place.uri)
    assert {path.split("/")[0] for path in left} <= {"_deletions", "_transactions"}
    assert left
    assert lance_align.cleanup(opened(place.uri), min_age_s=0).files == len(left)
    assert orphans(place.uri) == set()
    assert sorted(opened(place.uri).to_arrow()["id"].to_pylist()) == ["broken", GREEN, RED]


def test_young_files_stay_for_the_job_that_wrote_them(place: TableLocation) -> None:
    committer = Committer.open_or_create(place.uri, photos_schema())
    pending = write_fragments(place.uri, rows(["soon"], images=[png(RED)], captions=[None]))
    old, young = leave_orphan(place.uri, "old"), leave_orphan(place.uri, "young")
    age(place.uri, old, hours=25)
    age(place.uri, young, hours=23)
    report = lance_align.cleanup(opened(place.uri))
    assert (report.files, report.paths, report.kept_files) == (1, (old,), 2)
    assert "1 files" in report.to_text()
    assert "2 younger ones" in report.to_text()
    committer.commit(pending, rows=1)
    assert opened(place.uri).count_rows("id = 'soon'") == 1
    report = lance_align.cleanup(opened(place.uri), min_age_s=3600)
    assert report.paths == (young,)


def test_a_handle_of_an_old_version_cleans_up_for_the_latest(place: TableLocation) -> None:
    stale = opened(place.uri)
    opened(place.uri).add([{"id": "later", "image": png(BLUE)}])
    stale.checkout(1)
    assert lance_align.cleanup(stale, min_age_s=0).files == 0
    assert opened(place.uri).count_rows() == 5
    assert stale.count_rows() == 0  # the handle stays where it was


def test_blobs_beside_a_data_file_are_needed(tmp_path: Path) -> None:
    """Lance names them in no list of tracked files (pylance 14)."""
    uri = str(tmp_path / "blobs.lance")
    schema = pa.schema([pa.field("id", pa.int64()), lance.blob_field("clip")])
    clips = [b"x" * 200, b"y" * 200_000, b"z" * 9_000_000]
    made = pa.table({"id": [1, 2, 3], "clip": lance.blob_array(clips)}, schema=schema)
    dataset = lance.write_dataset(made, uri)
    before = on_disk(uri)
    assert any(path.endswith(".blob") for path in before)
    (pending,) = lance_write_fragments(made, dataset, mode="append")
    stem = pending.files[0].path.removesuffix(".lance")
    report = lance_align.cleanup(opened(uri), min_age_s=0)
    assert report.files == 3
    assert all(path.startswith(f"data/{stem}") for path in report.paths)
    assert on_disk(uri) == before
    assert not Path(uri, "data", stem).exists()
    found = lance.dataset(uri).take_blobs("clip", indices=[0, 1, 2])
    assert [len(blob.readall()) for blob in found] == [200, 200_000, 9_000_000]
    assert dataset.version == 1


def test_other_peoples_files_are_left_alone(place: TableLocation) -> None:
    for path in ("README.md", "_mem_wal/1/log", "_versions/notes.txt"):
        Path(place.uri, path).parent.mkdir(parents=True, exist_ok=True)
        Path(place.uri, path).write_text("mine")
    assert lance_align.cleanup(opened(place.uri), min_age_s=0).files == 0
    assert Path(place.uri, "_mem_wal/1/log").read_text() == "mine"


def test_detached_versions_are_refused(place: TableLocation) -> None:
    fragment = LanceFragment.create(place.uri, rows(["z"], images=[png(RED)], captions=[None]))
    append = lance.LanceOperation.Append([fragment])
    detached = lance.LanceDataset.commit(place.uri, append, read_version=2, detached=True)
    with pytest.raises(TableError, match="detached version"):
        lance_align.cleanup(opened(place.uri), min_age_s=0)
    assert detached.count_rows("id = 'z'") == 1


def test_what_is_refused(photos: Any) -> None:
    for bad in (-1, float("nan")):
        with pytest.raises(ArgumentError, match="min_age_s"):
            lance_align.cleanup(photos, min_age_s=bad)
    with pytest.raises(TableError, match="PosixPath is not a table"):
        lance_align.cleanup(Path())


def embed(*options: str, cwd: Path, faults: Faults | None = None) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", VARIABLE)}
    command = [sys.executable, str(ROOT / "pipelines" / "embed.py"), "rows.parquet", "--db", "db", "--table", "t"]
    command += ["--model", "fake", "--block-rows", "16", "--commit-rows", "16", *options]
    armed = {VARIABLE: str(faults.folder)} if faults is not None else {}
    environment = clean | {"PYTHONPATH": str(ROOT)} | armed
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=180)


@pytest.mark.slow  # a minute; test_kills kills jobs at other moments
def test_after_a_job_that_was_killed_before_a_commit(tmp_path: Path) -> None:
    parquet(pictures(64), tmp_path / "rows.parquet")
    uri = str(tmp_path / "db" / "t.lance")
    with Faults(tmp_path / "faults") as faults:
        faults.at("before_commit", "kill", skip=1)
        killed = embed(cwd=tmp_path, faults=faults)
    assert killed.returncode != 0
    time.sleep(1)  # its workers die after it
    left = orphans(uri)
    assert any(path.startswith("data/") for path in left)
    assert 0 < opened(uri).count_rows() < 64

    for path in left:
        age(uri, path, hours=48)
    first = opened(uri).to_arrow()["id"][0].as_py()
    opened(uri).update(where=f"id = '{first}'", values={"error": "odd: both"})
    again = embed("--cleanup", "--verify", cwd=tmp_path)
    assert again.returncode == 1, again.stdout + again.stderr
    assert f"cleaned up {uri}: {len(left)} files (" in again.stdout
    assert "stray_reason (1)" in again.stdout
    assert first in again.stderr.splitlines()[-1]  # one line says what is wrong

    assert opened(uri).count_rows() == 64
    assert lance_align.cleanup(opened(uri), min_age_s=0).files == 0
    assert needed(uri) == on_disk(uri)
    assert len(opened(uri).search([1.0] * 32).limit(3).to_list()) == 3
    opened(uri).update(where=f"id = '{first}'", values={"error": None})
    found = lance_align.verify(opened(uri))
    assert (found.ok, found.rows, found.sampled, found.unchecked) == (True, 64, 64, ())
