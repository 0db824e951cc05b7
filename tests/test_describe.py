"""The describing job, end to end on a real Ray: every row of somebody's table has its own text, or a reason."""

from __future__ import annotations

import json
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
from lancedb.index import BTree

import lance_align
from lance_align import JobReport, describe
from lance_align.cli import run_command
from lance_align.describers.checkpoints import resolve_describer
from lance_align.describers.loading import load_describer
from lance_align.describers.prompts import Prompt
from lance_align.encoders import load_encoder
from lance_align.errors import ArgumentError, LanceAlignError, ModelError, RowError, TableError
from lance_align.tables.descriptions import DESCRIPTION_KEY, Description, add_description, read_description
from lance_align.tables.filling import Filler
from lance_align.testing import Faults
from tests.describer_models import png

ROOT = Path(__file__).parent.parent
NEW_TOKENS = 6
TITLES = ["cat", "the small dog", None, "red car on the street"]


def pictures(numbers: range) -> pa.Table:
    """Rows as other people keep them: one in ten without a picture, one in ten with a bad one, some without a title."""
    cells = [None if n % 10 == 7 else b"bad" if n % 10 == 8 else png(n) for n in numbers]
    return pa.table(
        {
            "number": pa.array(numbers, pa.int64()),
            "picture": pa.array(cells, pa.binary()),
            "title": pa.array([TITLES[n % len(TITLES)] for n in numbers], pa.string()),
        }
    )


def photos_of(directory: Path, *parts: range) -> Any:
    """A table of pictures, a fragment for each range of numbers."""
    table = lancedb.connect(directory).create_table("photos", pictures(parts[0]))
    for part in parts[1:]:
        table.add(pictures(part))
    return table


def run(directory: Path, model: Path, **options: Any) -> JobReport:
    defaults: dict[str, Any] = {
        "db": directory,
        "table": "photos",
        "column": "caption",
        "progress": False,
        "block_rows": 8,
        "device": "cpu",
        "max_new_tokens": NEW_TOKENS,
    }
    return describe(model=str(model), **(defaults | options))


def check(table: Any, model: Path, *, column: str = "caption", prompt: str | None = None) -> None:
    """Each row has the text of its own picture and prompt, or a reason."""
    table.checkout_latest()
    rows = table.to_arrow().to_pylist()
    describer = load_describer(resolve_describer(model, prompt=prompt, max_new_tokens=NEW_TOKENS), device="cpu")
    for row in rows:
        if row["picture"] is not None and row["picture"] != b"bad":
            try:
                filled = Prompt(prompt).fill(row) if prompt is not None else None
                wanted = describer.describe([row["picture"]], [filled])
                text, reason = wanted.texts[0], wanted.reasons[0]
            except RowError as error:
                text, reason = None, str(error)
        else:
            text, reason = None, "null: no image" if row["picture"] is None else "format: "
        assert row[column] == text, row
        assert (row[f"{column}_error"] or "")[: len(reason or "")] == (reason or ""), row


def test_somebodys_table_gets_captions_and_is_searched_by_them(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    model, prompt = checkpoints["caption"], "a photo of"
    options: dict[str, Any] = {"prompt": prompt, "fts": True, "embed": "fake"}
    table = photos_of(tmp_path, range(20), range(20, 30))
    table.create_index("number", config=BTree())
    table.delete("number = 3")
    before, version = table.to_arrow(), table.version
    report = run(tmp_path, model, **options)
    assert (report.rows_read, report.already_there, report.work) == (29, 0, "described")
    assert report.reasons["null"] == report.reasons["format"] == 3
    assert report.adds_up
    check(table, model, prompt=prompt)
    rows = table.to_arrow()
    cut = [row for row in rows.to_pylist() if str(row["caption_error"]).startswith("cut: ")]
    assert report.cut == len(cut) > 0
    assert all(row["caption"] for row in cut)
    assert report.embedded == len(rows) - rows["caption"].null_count
    assert f"  cut, of these     {report.cut:>9,}\n" in report.to_text()
    assert report.to_text().startswith("described column 'picture', into 'caption',\n")
    assert rows.select(before.schema.names).equals(before)
    assert "ScalarIndexQuery" in table.to_lance().scanner(filter="number = 5").explain_plan()
    older = lancedb.connect(tmp_path).open_table("photos")
    older.checkout(version)
    assert older.to_arrow().equals(before)

    recorded = read_description(table.schema, "caption")
    assert recorded is not None
    assert (recorded.image, recorded.sources) == ("picture", ("picture",))
    assert recorded.spec == resolve_describer(model, prompt=prompt, max_new_tokens=NEW_TOKENS)

    assert (report.indexes[0].action, report.indexes[0].vector) == ("built", "caption")
    assert report.then is not None
    assert report.then.embedded == report.embedded
    assert json.loads(report.to_json())["then"]["embedded"] == report.embedded
    assert "\nembedded column 'caption', into 'caption_vector',\n" in report.to_text()
    assert report.then.table_version == report.table_version == table.version
    first = max((str(row["caption"] or "") for row in rows.to_pylist()), key=len)
    meant = table.search(first, vector_column_name="caption_vector").limit(1).to_list()[0]
    assert meant["caption"] == first
    wanted = load_encoder("fake").encode_texts([first]).vectors[0]
    assert np.array_equal(np.float32(meant["caption_vector"]), wanted)
    check_words(table)

    again = run(tmp_path, model, **options)
    assert (again.embedded, again.failed, again.already_there, again.commits) == (0, 0, 29, 0)
    assert (again.indexes[0].action, again.table_version) == ("kept", report.table_version)

    lance.write_dataset(pictures(range(30, 36)), tmp_path / "photos.lance", mode="append")
    table.checkout_latest()
    table.update(where="number = 8", values={"picture": png(8)})
    more = run(tmp_path, model, **options, retry_errors=True)
    assert (more.already_there, more.rows_read) == (29 - report.failed, 35)
    assert more.indexes[0].action == "extended"
    assert more.then is not None
    assert more.then.embedded == more.embedded > 6
    check(table, model, prompt=prompt)
    check_words(table)
    lance_align.verify(table).raise_if_bad()

    for other, message in (
        ({"prompt": None}, "prompt 'a photo of' against None; choose another column, or drop"),
        ({"max_new_tokens": 9}, "max_new_tokens 6 against 9"),
        ({"image": "title"}, "describes 'picture', not 'title'"),
    ):
        with pytest.raises(TableError, match=message):
            run(tmp_path, model, **(options | other))
    with pytest.raises(TableError, match=r"was written by '.*caption', not as '.*question' would now: name .* against"):
        run(tmp_path, checkpoints["question"], prompt="what ?")
    with pytest.raises(TableError, match="is described, not embedded; run describe again"):
        lance_align.backfill(db=tmp_path, table="photos", vector="caption", progress=False)


def check_words(table: Any) -> None:
    """Full-text search finds every caption by a word of its beginning."""
    found = table.search("photo", query_type="fts", fts_columns="caption").limit(100).to_list()
    assert len(found) == table.count_rows("caption IS NOT NULL") > 20


@pytest.mark.parametrize("family", ["question", "instructblip", "llava"])
def test_answers_to_prompts_that_name_columns(tmp_path: Path, family: str, checkpoints: dict[str, Path]) -> None:
    table = photos_of(tmp_path, range(24))
    prompt = "what is the colour of {title} {number} ?"
    report = run(tmp_path, checkpoints[family], column="answer", prompt=prompt)
    assert report.reasons["null"] >= 6
    check(table, checkpoints[family], column="answer", prompt=prompt)
    reasons = table.to_arrow()["answer_error"].to_pylist()
    assert "null: no 'title', which the prompt names" in reasons
    assert report.embedded > 3
    recorded = read_description(table.schema, "answer")
    assert recorded is not None
    assert (recorded.spec.prompt, recorded.sources) == (prompt, ("picture", "title", "number"))


def test_faults_and_stops_cost_no_row(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    table = photos_of(tmp_path, range(16), range(16, 32), range(32, 48))
    model = checkpoints["caption"]
    with Faults() as faults:
        faults.at("before_commit", "value_error", skip=1, times=None)
        with pytest.raises((LanceAlignError, ValueError)):
            run(tmp_path, model, commit_rows=16)
    assert done(table) == 16
    with Faults() as faults:
        faults.at("decode", "kill", times=1)
        faults.at("encode", "cuda_memory", more_than_rows=3)
        report = run(tmp_path, model, commit_rows=16)
        assert faults.fired("decode") == 1
        assert faults.fired("encode") > 0
    assert (report.already_there, report.rows_read) == (16, 48)
    assert report.halved > 0
    check(table, model)


@pytest.mark.slow
def test_beside_other_writers(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    table = photos_of(tmp_path, range(40), range(40, 80), range(80, 120))
    other = lancedb.connect(tmp_path).open_table("photos")
    failures: list[Exception] = []

    def work() -> None:
        try:
            run(tmp_path, checkpoints["caption"], commit_rows=8, commit_seconds=0.5)
        except Exception as error:  # noqa: BLE001  whatever it is, the test shows it
            failures.append(error)

    with Faults() as faults:
        faults.at("encode", "hang", seconds=0.1)
        thread = threading.Thread(target=work)
        thread.start()
        while thread.is_alive() and not done(table):
            time.sleep(0.05)
        steps = 0
        while thread.is_alive() and steps < 8:
            other.checkout_latest()
            if steps % 4 == 0:
                lance.write_dataset(
                    pictures(range(1000 + steps, 1002 + steps)), tmp_path / "photos.lance", mode="append"
                )
            elif steps % 4 == 1:
                other.delete(f"number = {9 * steps}")
            elif steps % 4 == 2:
                other.optimize()
            else:
                other.update(where=f"number = {100 + steps}", values={"title": "changed"})
            steps += 1
        thread.join()
    assert failures == []
    assert steps >= 4
    check(table, checkpoints["caption"])


def done(table: Any) -> int:
    table.checkout_latest()
    if "caption" not in table.schema.names:
        return 0
    return int(table.count_rows("caption IS NOT NULL OR caption_error IS NOT NULL"))


def test_a_model_that_lacks_weights_ends_the_job(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    table = photos_of(tmp_path, range(3))
    with pytest.raises(ModelError, match="BlipForQuestionAnswering: it lacks text_encoder") as failed:
        run(tmp_path, checkpoints["caption"], task="question", prompt="what ?")
    assert "\n" not in str(failed.value)
    assert done(table) == 0


def test_what_is_wrong_is_said_before_ray_starts(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    table = photos_of(tmp_path, range(3))
    version = table.version
    model = checkpoints["llava"]
    for options, kind, message in (
        (
            {"prompt": "{titel} ?"},
            ArgumentError,
            r"names 'titel', which .* does not have; its columns are number \(int64\)",
        ),
        ({"prompt": "{picture} ?"}, ArgumentError, "names 'picture', which is binary"),
        ({}, ArgumentError, "follows a prompt"),
        ({"prompt": "what ?", "image": "number"}, TableError, "'number' of .* is int64"),
        ({"prompt": "what ?", "image": "none"}, TableError, "has no column 'none'"),
        ({"prompt": "what ?", "column": "title"}, TableError, "'title' that was not made by a describer"),
        ({"prompt": "what ?", "column": "a.b"}, ArgumentError, "column='a.b' cannot be"),
        ({"prompt": "what ?", "table": "nothing"}, ArgumentError, "nothing.lance is not there"),
        ({"prompt": "what ?", "block_rows": 0}, ArgumentError, "block_rows=0"),
        ({"prompt": "what ?", "precision": "half"}, ArgumentError, "precision is 'half'"),
    ):
        with pytest.raises(kind, match=message):
            run(tmp_path, model, **options)
    table.checkout_latest()
    assert table.version == version


def test_texts_about_what_a_row_was_before_are_left_out(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    """Another program rewrites a column that the prompt names, between reading and writing."""
    table = photos_of(tmp_path, range(5), range(5, 10))
    uri = str(tmp_path / "photos.lance")
    spec = resolve_describer(checkpoints["llava"], prompt="what is {title} ?")
    add_description(uri, "caption", Description(image="picture", spec=spec))
    filler = Filler(uri, "caption")
    survey = filler.survey()
    assert (survey.empty, filler.filling.sources) == (10, ("picture", "title"))
    dataset = lance.dataset(uri)
    rows = {
        fragment.fragment_id: dataset.scanner(columns=[], fragments=[fragment], with_row_address=True).to_table()
        for fragment in dataset.get_fragments()
    }
    titles = rows[0].append_column("title", pa.array(["changed"] * 5))
    changed, fields = dataset.get_fragment(0).update_columns(titles, left_on="_rowaddr")
    update = lance.LanceOperation.Update(
        updated_fragments=[changed], fields_modified=fields, update_mode="rewrite_columns"
    )
    lance.LanceDataset.commit(uri, update, read_version=dataset.version)
    texts = {
        key: each.append_column("caption", pa.array(["a text"] * 5)).append_column(
            "caption_error", pa.array([None] * 4 + ["cut: it ended"], pa.string())
        )
        for key, each in rows.items()
    }
    filled = filler.fill(texts)
    assert (filled.rows, filled.left, filled.reasons) == (5, 5, {"cut": 1})
    table.checkout_latest()
    assert [row["caption"] for row in table.to_arrow().to_pylist()] == [None] * 5 + ["a text"] * 5
    assert filler.survey().empty == 5


@pytest.mark.parametrize("record", [b"", b"[]", b'{"image": "picture"}', b'{"image": "picture", "spec": {}}', b"\xff"])
def test_a_damaged_record_is_said(record: bytes) -> None:
    field: Any = pa.field("caption", pa.string(), metadata={DESCRIPTION_KEY: record})
    with pytest.raises(TableError, match="the record of what described 'caption' is damaged"):
        read_description(pa.schema([field]), "caption")


def command(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    line = [sys.executable, str(ROOT / "pipelines" / "describe.py"), *map(str, arguments)]
    clean = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(line, cwd=cwd, env=clean, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_the_command_is_killed_and_goes_on(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    table = photos_of(tmp_path, *(range(start, start + 40) for start in range(0, 400, 40)))
    options = ["--db", tmp_path, "--table", "photos", "--column", "caption", "--model", checkpoints["caption"]]
    options += ["--block-rows", "8", "--commit-rows", "40", "--max-new-tokens", NEW_TOKENS, "--no-progress"]
    options += ["--report-json", tmp_path / "report.json"]
    with command(*options, cwd=tmp_path) as process:
        while process.poll() is None and not done(table):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    before = done(table)
    assert 0 < before < 400
    with command(*options, cwd=tmp_path) as process:
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["already_there"], report["rows_read"]) == (before, 400)
    assert f"  already there{before:>14,}\n" in out
    check(table, checkpoints["caption"])


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "--table"),
        (["--table", "photos", "--column", "caption", "--model", "no-such-model"], 1, "no-such-model"),
        (["--table", "photos", "--column", "caption", "--model", "align-tiny"], 1, "unknown model 'align-tiny'"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(
    arguments: list[str], status: int, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    photos_of(tmp_path / "db", range(2))
    with pytest.raises(SystemExit) as left:
        run_command("describe", [*arguments, "--db", str(tmp_path / "db"), "--no-progress"])
    assert left.value.code == status
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
