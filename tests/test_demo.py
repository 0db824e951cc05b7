"""From nothing to pictures found by words: the demo as a user runs it, and the bundled model's answers checked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import lance_align
from lance_align import Query
from lance_align.cli import run_command
from lance_align.corpora import demo_source, scenes
from lance_align.corpora.grammar import an

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """1,500 drawn scenes, embedded by the job with the bundled model."""
    folder = tmp_path_factory.mktemp("scenes")
    source = demo_source("scenes", directory=folder, rows=1500, seed=11)
    report = lance_align.embed(source, db=folder, table="scenes", model="align-tiny", progress=False)
    assert (report.embedded, report.failed) == (1500, 0)
    return lancedb.connect(folder).open_table("scenes")


def shows(row: dict[str, Any], name: str, colour: str) -> bool:
    return {"name": name, "colour": colour} in row["objects"]


def test_words_find_what_is_drawn(table: Any) -> None:
    """Over every pair of object and colour, seen in training or not; chance is 0.7 %."""
    right = [
        shows(row, name, colour)
        for name, colour in scenes.pairs("all")
        for row in table.search(an(f"{colour} {name}")).limit(3).to_list()
    ]
    assert np.mean(right) > 0.8


def test_a_composed_query_changes_what_it_names(table: Any) -> None:
    """This red thing, but blue: more of the results are blue things of that kind than without the change."""
    before, after = [], []
    for name in scenes.OBJECTS:
        picture = scenes.draw_scene(one_object(name, "red"), size_px=128)
        changed = Query(picture) + f"a blue {name}" - f"a red {name}"
        before += [shows(row, name, "blue") for row in table.search(Query(picture)).limit(3).to_list()]
        after += [shows(row, name, "blue") for row in table.search(changed).limit(3).to_list()]
    assert np.mean(before) < 0.2
    assert np.mean(after) > 0.7


def one_object(name: str, colour: str) -> scenes.Scene:
    """The first scene of another seed that shows this and nothing else."""
    drawn = scenes.scenes(seed=99, count=20_000, two_object_share=0.0)
    return next(scene for scene in drawn if scene.shows(name, colour))


def test_zero_shot_names_the_colour(table: Any) -> None:
    rows = [row for row in table.search().limit(300).to_list() if len(row["objects"]) == 1][:100]
    colours = sorted(scenes.COLOURS)
    found = lance_align.zero_shot([row["image"] for row in rows], colours, template="a {} thing", model="align-tiny")
    right = [colours[best] == row["objects"][0]["colour"] for best, row in zip(found.argmax(axis=1), rows, strict=True)]
    assert np.mean(right) > 0.6  # chance is 8 %


def run_pipeline(*arguments: str, cwd: Path) -> str:
    command = [sys.executable, str(ROOT / "pipelines" / "embed.py"), *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=1500)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_demo_ends_with_answers_and_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run_command("demo", ["--rows", "80", "--report-json", "report.json", "--no-progress"])
    assert json.loads((tmp_path / "report.json").read_text())["embedded"] == 80
    answers = [line for line in capsys.readouterr().out.splitlines() if line.startswith("'")]
    assert len(answers) == 4
    with Image.open(tmp_path / "demo.png") as sheet:
        assert sheet.width > 800
        assert np.asarray(sheet.convert("L")).std() > 20
    assert lancedb.connect(tmp_path / "lancedb").open_table("demo").count_rows() == 80


def test_a_demo_of_no_rows_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_command("demo", ["scenes", "--rows", "0", "--db", str(tmp_path / "db")])
    assert caught.value.code == 1
    assert "rows=0" in capsys.readouterr().err
    assert not (tmp_path / "db").exists()


@pytest.mark.slow
def test_twenty_thousand_scenes(tmp_path: Path) -> None:
    """As many rows as asked for, each with the bundled model's vector: norm 1, and equal to the encoder's own."""
    out = run_pipeline("--demo", "scenes", "--rows", "20000", "--table", "scenes", cwd=tmp_path)
    assert "embedded             20,000" in out
    dataset = lancedb.connect(tmp_path / "lancedb").open_table("scenes").to_lance()
    assert dataset.count_rows() == 20_000
    found: pa.Table = dataset.to_table(columns=["id", "vector"])
    assert len(set(found["id"].to_pylist())) == 20_000
    vectors = np.stack(found["vector"].to_numpy(zero_copy_only=False))
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-3
    places = np.linspace(0, 19_999, 64).astype(int).tolist()
    sample = dataset.take(places, columns=["image", "vector"]).to_pylist()
    own = lance_align.load_encoder("align-tiny").encode_images([row["image"] for row in sample]).vectors
    assert np.abs(own - np.array([row["vector"] for row in sample])).max() < 1e-5


@pytest.mark.slow
def test_the_bundled_model_reaches_what_it_was_trained_for(tmp_path: Path) -> None:
    """The figures of the README's table, as pipelines/evaluate.py measures them on data the recipe never saw."""
    command = [sys.executable, str(ROOT / "pipelines" / "evaluate.py"), "--json", str(tmp_path / "figures.json")]
    subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=900)
    figures = {item["name"]: item["value"] for item in json.loads((tmp_path / "figures.json").read_text())["figures"]}
    assert figures["OpenMoji by name: recall@10"] >= 0.70
    assert figures["OpenMoji by name: recall@1"] >= 0.38
    assert figures["scenes, unseen pairs alone: precision@10"] >= 0.95
    assert figures["scenes, unseen pairs among all: precision@10"] >= 0.90
