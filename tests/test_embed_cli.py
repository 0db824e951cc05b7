"""The command line of the embed job: one screen out, one line for what is wrong, and a status that tells."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lance
import pytest

from lance_align.cli import run_command
from tests.corpus import parquet, pictures, png, stored

ROOT = Path(__file__).parent.parent


def environment() -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return clean | {"PYTHONPATH": str(ROOT)}


def start(*arguments: object, cwd: Path, **variables: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "pipelines" / "embed.py"), *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=cwd, env=environment() | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(*arguments: object, cwd: Path, **variables: str) -> tuple[int, str, str]:
    with start(*arguments, cwd=cwd, **variables) as process:
        out, err = process.communicate(timeout=180)
        return process.returncode, out, err


def test_one_screen_a_report_and_a_log(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        (tmp_path / "photos" / f"{number}.png").write_bytes(png(number))
    (tmp_path / "photos" / "bad.png").write_bytes(b"bad")
    options = ["--table", "photos", "--model", "fake", "--report-json", "report.json", "--log-file", "job.log"]
    status, out, err = run("photos", *options, cwd=tmp_path)
    assert status == 0, err
    assert "  embedded                  3\n" in out
    assert "    format                  1\n" in out
    assert len(out.splitlines()) < 24
    facts = json.loads((tmp_path / "report.json").read_text())
    assert (facts["rows_read"], facts["embedded"], facts["reasons"]) == (4, 3, {"format": 1})
    assert facts["table_uri"] == str(tmp_path / "lancedb" / "photos.lance")
    for text in (err, (tmp_path / "job.log").read_text()):
        assert "\r" not in text
        assert "\x1b" not in text
        assert "4 rows of 4 (100%)" in text
    assert all(line.startswith("20") for line in err.splitlines()), err  # nothing but our lines with their times

    status, out, err = run("photos", *options, "--max-errors", "0", "--progress", cwd=tmp_path)
    assert status == 0, err  # nothing new failed
    assert "  already there             4\n" in out


@pytest.mark.slow  # a minute; test_kills has the same of the job
def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    rows = 900
    source = parquet(pictures(rows), tmp_path / "in.parquet", group_rows=5)
    options = [source, "--db", tmp_path, "--table", "t", "--model", "fake", "--no-progress"]
    options += ["--commit-rows", "40", "--block-rows", "20", "--report-json", tmp_path / "report.json"]
    with start(*options, cwd=tmp_path) as process:
        while process.poll() is None and count(tmp_path / "t.lance") < 80:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    committed = count(tmp_path / "t.lance")
    assert 80 <= committed < rows
    status, _, err = run(*options, cwd=tmp_path)
    assert status == 0, err
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["already_there"], report["embedded"]) == (committed, rows - committed)
    ids = [row["id"] for row in stored(tmp_path, "t")]
    assert sorted(ids) == sorted(pictures(rows).column("id").to_pylist())


def count(uri: Path) -> int:
    return lance.dataset(uri).count_rows() if (uri / "_versions").exists() and any((uri / "_versions").iterdir()) else 0


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["in.parquet"], 2, "--table"),
        (["in.parquet", "--table", "t", "--keep", "nothing"], 2, "nothing"),
        (["in.parquet", "--table", "t", "--no-such-option"], 2, "--no-such-option"),
        (["nowhere.parquet", "--table", "t", "--model", "fake"], 1, "nowhere.parquet does not exist"),
        (["empty", "--table", "t", "--model", "fake"], 1, "holds no images"),
        (
            ["in.parquet", "--table", "t", "--image", "photo", "--model", "fake"],
            1,
            "has no column 'photo'; its columns are id (string), image",
        ),
        (["in.parquet", "--table", "t", "--model", "no-such-model"], 1, "no-such-model"),
        (["in.parquet", "--table", "t", "--model", "someone/align"], 1, "someone/align"),
        (["in.parquet", "--table", "über uns"], 1, "refused by LanceDB"),
        (["in.parquet", "--table", "t", "--max-errors", "some"], 1, "max_errors='some'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str],
    status: int,
    message: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    parquet(pictures(2), tmp_path / "in.parquet")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    given = [str(tmp_path / text) if (tmp_path / text).exists() else text for text in arguments]
    with pytest.raises(SystemExit) as left:
        run_command("embed", [*given, "--db", str(tmp_path / "db"), "--no-progress"])
    assert left.value.code == status
    lines = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("preparing")]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not (tmp_path / "db").exists()


def test_a_cluster_that_does_not_answer(tmp_path: Path) -> None:
    source = parquet(pictures(2), tmp_path / "in.parquet")
    options = ["--db", tmp_path / "db", "--table", "t", "--model", "fake"]
    status, out, err = run(source, *options, cwd=tmp_path, RAY_ADDRESS="127.0.0.1:1")
    assert (status, out) == (1, "")
    *before, last = err.splitlines()
    assert last == "error: Ray did not start (127.0.0.1:1): [Errno 111] Connection refused"
    assert all(line.startswith("20") for line in before), err  # lines of progress, with their times
    assert before[-1].endswith(" starting Ray")
    assert not (tmp_path / "db").exists()


def test_debug_shows_the_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_command("embed", [str(tmp_path / "nowhere"), "--table", "t", "--debug"])
    err = capfd.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("failing", [False, True])
def test_a_full_or_gone_output_costs_the_screen_alone(failing: bool, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "0.png").write_bytes(b"bad" if failing else png(0))
    command = [sys.executable, str(ROOT / "pipelines" / "embed.py"), "photos", "--table", "photos", "--model", "fake"]
    command += ["--report-json", "report.json", "--no-progress"]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            command, cwd=tmp_path, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, timeout=180
        )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: none of 1 rows" if failing else "error: standard output")
    assert line.endswith("standard output cannot be written: No space left on device; the rows are in")
    assert json.loads((tmp_path / "report.json").read_text())["rows_read"] == 1
