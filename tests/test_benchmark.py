"""The benchmark compares what gives the same vectors; how fast it is here is nobody's business."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lance_align.benchmarks.inputs import caption_mixes, scene_pictures
from lance_align.benchmarks.measuring import Contender, side_by_side
from lance_align.benchmarks.search import search_lines
from lance_align.benchmarks.weights import build_model
from lance_align.encoders.checkpoints import BUNDLED
from tests.align_models import SMALL_PREPROCESSOR, save_checkpoint, small_config

PIPELINE = Path(__file__).parent.parent / "pipelines" / "benchmark.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PIPELINE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_every_way_is_measured_and_gives_the_references_vectors(tmp_path: Path) -> None:
    model = save_checkpoint(
        build_model(small_config(), seed=0, warm_up=32), tmp_path / "model", preprocessor=SMALL_PREPROCESSOR
    )
    figures = tmp_path / "figures.json"
    parts = ("--parts", "image", "--parts", "text")
    done = run("--model", model, *parts, "--rounds", 2, "--pictures", 5, "--captions", 40, "--json", figures)
    assert done.returncode == 0, done.stderr
    lines = json.loads(figures.read_text())
    assert [line["name"] for line in lines if line["part"] == "image tower"] == [
        "ours, openvino",
        "ours, torch",
        "LanceDB's way",
        "transformers, batch 32",
        "transformers, batch 1",
    ]
    assert {line["part"] for line in lines} == {
        "image tower",
        *(f"text tower, {name}" for name in ("emoji names", "scene captions", "1-60 words")),
    }
    for line in lines:
        assert line["min_cosine"] > 0.9999, line
        assert 0 < line["low"] <= line["median"] <= line["high"]
    assert [line["ratio"] for line in lines if line["name"].startswith("ours, openvino")] == [1.0]
    assert "images/s" in done.stdout


def test_searches_are_measured_with_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"vectors.SCENES": 30, "vectors.EMOJI": 10, "search.QUERIES": 5}.items():
        monkeypatch.setattr(f"lance_align.benchmarks.{name}", value)
    monkeypatch.setattr("lance_align.tables.index_plan.EXACT_BYTES", 0)
    captions = caption_mixes(20)["scene captions"]
    lines = list(search_lines(BUNDLED / "align-tiny", sizes=[400], rounds=1, captions=captions, cache=tmp_path))
    assert lines[0].part == "search, start"
    assert {line.part for line in lines[1:]} == {"search, 400 rows"}
    by_name = {line.name: line for line in lines}
    assert by_name["the encoder alone"].ratio == 1.0
    assert by_name["ours, exact"].notes["recall"] == 1.0
    assert by_name["ours, exact"].notes["of pictures"] == 1.0
    assert by_name["ours, IVF_SQ 16"].notes["recall"] > 0.5
    assert all(0 < line.low <= line.median <= line.high for line in lines)
    json.dumps([dataclasses.asdict(line) for line in lines], allow_nan=False)


def test_what_is_wrong_is_said_in_a_line(tmp_path: Path) -> None:
    for arguments, said in (
        (["--rounds", 0], "error: rounds=0; expected a number above 0"),
        (["--model", tmp_path], "error: "),
    ):
        done = run(*arguments)
        assert done.returncode != 0
        assert done.stderr.startswith(said)
        assert done.stderr.count("\n") == 1


def test_contenders_take_turns_and_a_wrong_one_shows() -> None:
    order: list[str] = []

    def way(name: str, sign: float) -> Contender:
        def work() -> np.ndarray:
            order.append(name)
            return np.array([[sign * 3.0, 4.0]], np.float32)

        return Contender(name, work)

    lines = side_by_side("part", [way("ours", 1), way("wrong", -1), way("reference", 1)], rounds=2, unit="rows/s")
    assert order == ["ours", "wrong", "reference"] * 3
    assert [line.min_cosine for line in lines] == pytest.approx([1.0, 0.28, 1.0])
    assert lines[0].ratio == 1.0


def test_inputs_are_the_same_each_time() -> None:
    assert caption_mixes(9) == caption_mixes(9)
    assert {len(captions) for captions in caption_mixes(9).values()} == {9}
    (picture,) = scene_pictures(1, size_px=80)
    assert picture.size == (80, 80)
    assert picture == scene_pictures(1, size_px=80)[0]
