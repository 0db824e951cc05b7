"""The benchmark compares what gives the same vectors; how fast it is here is nobody's business."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lance_align.benchmarks.decoding import decoding_lines
from lance_align.benchmarks.gpu import gpu_lines
from lance_align.benchmarks.growth import growth_lines
from lance_align.benchmarks.inputs import caption_mixes, scene_pictures
from lance_align.benchmarks.jobs import job_lines, ways
from lance_align.benchmarks.measuring import Contender, side_by_side
from lance_align.benchmarks.photographs import photo_files
from lance_align.benchmarks.processes import measure
from lance_align.benchmarks.search import search_lines
from lance_align.benchmarks.weights import build_model
from lance_align.encoders.checkpoints import BUNDLED
from lance_align.errors import ArgumentError, JobError
from pipelines.benchmark import benchmark
from tests.align_models import SMALL_PREPROCESSOR, save_checkpoint, small_config
from tests.scripts import run_here

PIPELINE = Path(__file__).parent.parent / "pipelines" / "benchmark.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PIPELINE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint that transformers loads too."""
    place = tmp_path_factory.mktemp("benchmark") / "model"
    return save_checkpoint(build_model(small_config(), seed=0, warm_up=32), place, preprocessor=SMALL_PREPROCESSOR)


@pytest.mark.slow  # half a minute
def test_every_way_is_measured_and_gives_the_references_vectors(model: Path, tmp_path: Path) -> None:
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


@pytest.mark.slow
@pytest.mark.parametrize("others", [("Daft embed_image",), ("Ray Data, map_batches",)])
def test_whole_jobs_give_the_loops_vectors(others: tuple[str, ...], model: Path) -> None:
    taken = ("ours, openvino", *others, "loop, table.add")
    contenders = [way for way in ways(daft_python=Path(sys.executable)) if way.name in taken]
    notes: list[str] = []
    pictures = scene_pictures(3, size_px=800)
    # Rows enough that the work takes longer than the start of a job varies, on a busy machine too.
    found = list(job_lines(model, pictures, 400, rounds=1, contenders=contenders, note=notes.append))
    alone = [line.name for line in found if line.ratio is None]
    assert alone == ["encoder, openvino", "decoder, openvino, one core", "ideal, openvino"]
    whole = [line for line in found if line.ratio is not None]
    assert [line.name for line in whole] == [name for name in taken if not name.startswith("Daft")]
    assert all(line.min_cosine > 0.9999 for line in whole), whole
    assert all(line.notes["start s"] > 0 for line in whole)
    assert whole[0].notes["percent of ideal"] > 0
    # What cannot run is left out, and said.
    said = [note.rsplit("failed: ", 1)[-1] for note in notes]
    assert said == ["ModuleNotFoundError: No module named 'daft'"] * others.count("Daft embed_image")


@pytest.mark.slow  # a minute
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_job_grows() -> None:
    (line,) = growth_lines([40], kinds=["texts"])
    assert (line.part, line.name, line.ratio) == ("growth, texts", "40", 1.0)
    notes = line.notes
    assert 0 < notes["first commit s"] < notes["all s"]
    assert min(notes["driver MiB"], notes["ledger MiB"], notes["worker MiB"]) > 10
    assert 0 < notes["table MB"] < 1


@pytest.mark.slow
def test_pictures_grow_too() -> None:
    (line,) = growth_lines([300], kinds=["pictures"])
    assert line.notes["table MB"] > 0.3


def test_a_program_is_measured_with_what_it_starts() -> None:
    burn = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); print('done')"
    used = measure([sys.executable, "-c", code], timeout_s=60)
    assert used.output == "done\n"
    assert sys.platform != "linux" or 0.2 < used.cpu_s < used.wall_s * 2
    with pytest.raises(JobError, match="failed: no"):
        measure([sys.executable, "-c", "raise SystemExit('no')"], timeout_s=60)


def test_decoding_is_measured_on_made_pictures_and_on_the_users(tmp_path: Path) -> None:
    model = save_checkpoint(
        build_model(small_config(), seed=0, warm_up=32), tmp_path / "model", preprocessor=SMALL_PREPROCESSOR
    )
    sizes = {"small": (90, 60), "large": (1100, 1030)}
    made = {name: list(photo_files(1, None, sizes_px=size)) for name, size in _each(sizes)}
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    (photographs / "a.jpg").write_bytes(made["large"][0][0])
    (photographs / "b.png").write_bytes(b"not a picture")
    brought = list(photo_files(3, photographs, sizes_px={"small": (90, 60)}))
    assert [Image.open(io.BytesIO(data)).format for (data,) in brought] == ["JPEG", "PNG", "WEBP"]
    assert [Image.open(io.BytesIO(data)).size for (data,) in made["large"]] == [(1100, 1030)] * 3
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArgumentError, match="holds no picture"):
        list(photo_files(1, tmp_path / "empty", sizes_px=sizes))

    lines = list(decoding_lines(model, number=1, folder=None, rounds=1, sizes_px=sizes))
    ways = {line.name for line in lines} - {"simplejpeg"}
    assert ways == {"ours", "ours, in the job's decoder process", "Pillow, transformers' processor"}
    assert [line.part for line in lines if line.name == "ours"] == [
        f"decode, {name} {size}" for size in sizes for name in ("JPEG", "PNG", "WEBP")
    ]
    for line in lines:
        scaled = line.part == "decode, JPEG large" and not line.name.startswith("Pillow")
        assert (0.99 if scaled else 0.9999) < line.min_cosine, line
        assert scaled == (line.min_cosine < 0.9999999), line


def _each(sizes: dict[str, tuple[int, int]]) -> list[tuple[str, dict[str, tuple[int, int]]]]:
    return [(name, {name: size}) for name, size in sizes.items()]


@pytest.mark.slow  # a quarter of a minute
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_gpus_part_needs_one() -> None:
    command = [sys.executable, "-m", "lance_align.benchmarks.gpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: torch sees no GPU here; the other parts of the benchmark run on the CPU\n"
    assert run_here("benchmark.py", "--parts", "gpu")[2].endswith(done.stderr)


@pytest.mark.slow  # 40 s: the whole of it, on the CPU
def test_the_gpus_lines_are_there_as_they_are_made() -> None:
    """Rehearsed on the CPU: the first line comes before anything else is measured, and no time leaves all out."""
    coming = gpu_lines(BUNDLED / "align-tiny", rounds=1, device="cpu")
    first = next(coming)
    coming.close()
    assert (first.part, first.name, first.ratio) == ("GPU, images", "ours, torch, bfloat16", 1.0)
    assert first.min_cosine is not None
    assert first.min_cosine > 0.999
    notes: list[str] = []
    assert not list(gpu_lines(BUNDLED / "align-tiny", rounds=1, device="cpu", budget_s=0, note=notes.append))
    assert notes[0] == "ours, torch, bfloat16: left out, it may take 45 s and 0 are left"
    assert len(notes) == 11


@pytest.mark.slow
def test_the_gpus_benchmark_rehearsed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lance_align.benchmarks.gpu", "--device", "cpu", "--rounds", "1"]
    command += ["--model", str(BUNDLED / "align-tiny"), "--json", str(tmp_path / "gpu.json")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=560, env=environment)
    lines = json.loads((tmp_path / "gpu.json").read_text())
    assert {line["part"] for line in lines} == {"GPU, images", "GPU, captions"}
    assert all(line["ratio"] > 0 for line in lines)
    assert min(line["min_cosine"] for line in lines if line["min_cosine"] is not None) > 0.999
    assert len(done.stdout.splitlines()) >= len(lines)


def test_what_is_wrong_is_said_in_a_line(tmp_path: Path) -> None:
    status, _, said = run_here("benchmark.py", "--model", tmp_path)
    assert status != 0
    assert said.startswith(f"error: {tmp_path} is not a checkpoint")
    assert said.count("\n") == 1
    with pytest.raises(ArgumentError, match="rounds=0; expected a number above 0"):
        benchmark(rounds=0)


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
