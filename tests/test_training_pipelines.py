"""pipelines/train.py and pipelines/evaluate.py as a user runs them."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lance
import pyarrow as pa
import pytest
from PIL import Image

from lance_align.benchmarks.weights import build_model
from lance_align.corpora.scenes import draw_scene, scenes
from lance_align.encoders import resolve_spec
from lance_align.training.log import read_log
from tests.align_models import SMALL_PREPROCESSOR, save_checkpoint, small_config
from tests.artwork_folders import write_artwork
from tests.family_models import save_family
from tests.scripts import run_here

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "pipelines" / script), *map(str, arguments)]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(script: str, *arguments: object) -> tuple[int, str, str]:
    process = start(script, *arguments)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def wait_for_step(process: subprocess.Popen[str], out: Path, step: int) -> None:
    """Until the log of a run has that step, or a later one."""
    deadline = time.monotonic() + 200
    while not any(line.step >= step for line in read_log(out)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Forty drawn scenes with captions, one damaged picture and one without a caption."""
    rows = []
    for scene in scenes(seed=8, count=40, split="train"):
        out = io.BytesIO()
        Image.fromarray(draw_scene(scene, size_px=96)).save(out, format="PNG")
        rows.append({"photo": out.getvalue(), "words": scene.captions[0]})
    rows += [{"photo": b"damaged", "words": "a red car"}, {"photo": rows[0]["photo"], "words": None}]
    uri = str(tmp_path_factory.mktemp("tables") / "pairs.lance")
    schema = pa.schema([("photo", pa.large_binary()), ("words", pa.string())])
    lance.write_dataset(pa.Table.from_pylist(rows, schema), uri)
    return uri


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("models") / "small"
    return str(
        save_checkpoint(build_model(small_config(), seed=1, warm_up=32), directory, preprocessor=SMALL_PREPROCESSOR)
    )


@pytest.mark.slow  # a minute and a half; test_training_jobs stops and goes on without a process
def test_fine_tuning_survives_a_kill_and_lowers_the_loss(table: str, model: str, tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    arguments = [table, "--image", "photo", "--text", "words", "--model", model, "--out", out, "--batch-size", 42,
                 "--steps", 60, "--learning-rate", 1e-3, "--checkpoint-every-s", 0.01]  # fmt: skip
    first = start("train.py", *arguments)
    wait_for_step(first, out, 40)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert not (out / "model.safetensors").exists()

    status, stdout, stderr = run("train.py", *arguments)
    assert status == 0, stderr
    assert "going on from step" in stderr
    assert stdout.splitlines()[-1] == f"saved {out}; use it with --model {out}"
    lines = read_log(out)
    assert lines[-1].step == 60
    assert [line.step for line in lines] == sorted({line.step for line in lines})
    assert lines[-1].loss is not None
    assert lines[0].loss is not None
    assert lines[-1].loss < lines[0].loss
    assert lines[0].skipped == 2 * lines[0].step  # the two rows that cannot be used, in each step
    assert resolve_spec(str(out)).image == resolve_spec(model).image


@pytest.mark.slow  # Ray Train's processes start twice
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_training_in_several_processes(
    number: signal.Signals, status: int, table: str, tmp_path: Path
) -> None:
    clip, out = save_family("clip", tmp_path / "clip"), tmp_path / "out"
    process = start("train.py", table, "--image", "photo", "--text", "words", "--model", clip, "--out", out,
                    "--batch-size", 8, "--steps", 100_000, "--workers", 2, "--checkpoint-every-s", 1)  # fmt: skip
    wait_for_step(process, out, 20)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == status
    assert stderr.strip().endswith(f"error: stopped by {number.name}; its last checkpoint stays; "
                                   "run the same command again to go on")  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["TABLE", "--text", "caption", "--model", "align-tiny"],
            "has no column 'caption'; it has",
        ),
        (["nowhere.lance"], "nowhere.lance is no Lance table; give the table's own folder"),
        (["--stepps", "3"], "Unknown option: --stepps"),
        ([], "TABLE is missing; expected uri of a Lance table"),
        (["--artwork", "nowhere"], "emojibase"),
        (["TABLE", "--image", "photo", "--text", "words", "--model", "no-such"], "unknown model"),
    ],
)
def test_train_says_in_one_line_what_is_wrong(table: str, tmp_path: Path, arguments: list[str], message: str) -> None:
    given = [table if argument == "TABLE" else argument for argument in arguments]
    status, _, stderr = run_here("train.py", *given, "--out", tmp_path / "out", "--steps", 1)
    assert status != 0
    *progress, said = stderr.strip().splitlines()
    assert message in said
    assert not any("error" in line for line in progress)


def test_align_tiny_is_made_from_artwork(tmp_path: Path) -> None:
    artwork, out = write_artwork(tmp_path / "artwork"), tmp_path / "tiny"
    given = ["--artwork", artwork, "--scenes", 8, "--steps", 1, "--batch-size", 4, "--device", "cpu"]
    status, stdout, stderr = run_here("train.py", *given, "--out", out)
    assert (status, stdout) == (0, f"saved {out}; use it with --model {out}\n"), stderr
    assert resolve_spec(str(out)).family == "align"
    assert (out / "curve.png").is_file()
    assert json.loads((out / "run.json").read_text())["freeze_batch_norm"] is False
    status, _, stderr = run_here("train.py", "table.lance", *given, "--out", out)
    assert status == 2
    assert "'table.lance'" in stderr


@pytest.mark.slow  # a minute and a half
def test_evaluate_prints_figures_beside_chance_and_writes_them(tmp_path: Path) -> None:
    """The bundled model on a part of the pictures; README's figures are of all of them."""
    path = tmp_path / "figures.json"
    status, stdout, stderr = run("evaluate.py", "--scene-count", 1500, "--emoji-count", 300, "--json", path)
    assert status == 0, stderr
    found = json.loads(path.read_text())
    figures = {figure["name"]: figure for figure in found["figures"]}
    assert found["model"]["fingerprint"] == resolve_spec("align-tiny").fingerprint
    assert all(name in stdout for name in figures)
    floors = {"scenes, unseen pairs among all": 0.7, "scenes, seen pairs": 0.85, "OpenMoji by name: recall@10": 0.6}
    for start_of_name, floor in floors.items():
        assert all(figure["value"] > floor for name, figure in figures.items() if name.startswith(start_of_name))
    assert figures["OpenMoji by name: recall@10"]["chance"] == pytest.approx(10 / 300)


def test_the_bundled_model_is_small_safe_and_says_where_it_comes_from() -> None:
    directory = ROOT / "lance_align" / "encoders" / "bundled" / "align-tiny"
    files = {path.name: path.stat().st_size for path in directory.iterdir()}
    assert {name for name in files if not name.endswith(".json")} == {"README.md", "model.safetensors"}
    assert sum(files.values()) <= 20 * 2**20
    card = (directory / "README.md").read_text()
    for source in ("Noto Emoji", "Twemoji", "Fluent Emoji", "emojibase", "CC BY 4.0", "Apache", "MIT", "OpenMoji"):
        assert source in card
