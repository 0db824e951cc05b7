"""Training on a Lance table: rows held out, what a run is told, and two workers of Ray Train."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import shutil
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import lance
import numpy as np
import psutil
import pyarrow as pa
import pytest
import ray
import torch
from PIL import Image
from safetensors.torch import load_file

import lance_align
from lance_align.corpora.scenes import draw_scene, scene_at
from lance_align.encoders import load_encoder
from lance_align.errors import ArgumentError, JobError, SourceError
from lance_align.jobs.pairs import table_pairs
from lance_align.jobs.training_job import TrainJob
from lance_align.jobs.training_progress import training_progress
from lance_align.jobs.training_report import TrainReport
from lance_align.jobs.training_run import train_on_table
from lance_align.spec import ImageSpec
from lance_align.training import Batch, LogLine, TrainOptions
from lance_align.training.log import logged, read_log
from tests.family_models import save_family
from tests.training_pairs import captions

IMAGE = ImageSpec(resize=(32, 32), crop=(32, 32))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Fourteen scenes."""
    rows = []
    for place, caption in enumerate(captions(14)):
        out = io.BytesIO()
        Image.fromarray(draw_scene(scene_at(7, place), size_px=48)).save(out, format="PNG")
        rows.append({"photo": out.getvalue(), "words": caption})
    uri = str(tmp_path_factory.mktemp("tables") / "pairs.lance")
    lance.write_dataset(pa.Table.from_pylist(rows), uri)
    return uri


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_family("clip", tmp_path_factory.mktemp("models") / "clip"))


@pytest.mark.parametrize("held_out", [0, 1, 5, 12])
def test_rows_held_out_are_all_the_others(table: str, held_out: int) -> None:
    pairs, kept = table_pairs(table, "photo", "words", IMAGE, held_out=held_out, seed=3)
    trained = [text for batch in pairs.batches(4) for text in batch.texts]
    measured = [text for batch in kept.batches(3) for text in batch.texts] if kept else []
    assert len(measured) == held_out
    assert sorted(trained + measured) == sorted(captions(14))
    assert set(pairs.batch(14, np.random.default_rng(0)).texts) == set(trained)


def test_what_is_wrong_is_said_before_anything_starts(table: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="held_out=13 of 14 rows; expected 0 to 12"):
        table_pairs(table, "photo", "words", IMAGE, held_out=13)
    with pytest.raises(SourceError, match="has no column"):
        table_pairs(table, "photo", "caption", IMAGE)
    options = TrainOptions(steps=1)
    for settings in ({}, {"model": "fake", "vision_model": tmp_path}, {"text_model": tmp_path}):
        with pytest.raises(ArgumentError, match="both vision_model and text_model"):
            TrainJob(table=table, image="photo", text="words", out=tmp_path, options=options, **settings)
    job = TrainJob(table=table, image="photo", text="words", out=tmp_path, options=options, model="align-tiny")
    with pytest.raises(ArgumentError, match="workers=0"):
        train_on_table(job, workers=0)


def test_a_run_goes_on_with_the_rows_it_began_with(table: str, clip: str, tmp_path: Path) -> None:
    """Rows that come later would change which are held out, and so let a run be measured on what it has learnt."""
    grown = str(shutil.copytree(table, tmp_path / "pairs.lance"))

    def train(uri: str, *, steps: int) -> list[LogLine]:
        options = TrainOptions(steps=steps, batch_size=8, log_every=1, average_decay=0.0, device="cpu")
        job = TrainJob(
            table=uri, image="photo", text="words", out=tmp_path / "out", options=options, model=clip, held_out=4
        )
        lines: list[LogLine] = []
        train_on_table(job, report=lines.append)
        return lines

    assert [line.step for line in train(grown, steps=1)] == [0, 1]
    damaged = [{"photo": b"damaged", "words": caption} for caption in captions(14) * 6]
    lance.write_dataset(pa.Table.from_pylist(damaged), grown, mode="append")
    assert [(line.step, line.skipped) for line in train(grown, steps=3)] == [(2, 0), (3, 0)]
    with pytest.raises(ArgumentError, match=r"holds a run on .*pairs\.lance; train into another directory"):
        train(table, steps=4)
    lance.dataset(grown).cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)
    with pytest.raises(SourceError, match="has no version 1, which this run began with"):
        train(grown, steps=4)


def fine_tune(table: str, clip: str, out: Path, **changes: Any) -> TrainReport:
    given: dict[str, Any] = {"steps": 2, "batch_size": 8, "held_out": 4, "device": "cpu", "progress": False} | changes
    return lance_align.train(table, out=out, image="photo", text="words", model=clip, **given)


def test_recall_is_told_before_and_after_also_of_a_run_that_went_on(table: str, clip: str, tmp_path: Path) -> None:
    first = fine_tune(table, clip, tmp_path / "out", learning_rate=1e-2)
    again = fine_tune(table, clip, tmp_path / "out", learning_rate=1e-2, steps=60, recall_every=20)
    finished = fine_tune(table, clip, tmp_path / "out", learning_rate=1e-2, steps=60)
    assert (first.steps, again.steps, finished) == (2, 60, again)
    assert first.recall_before == again.recall_before is not None
    assert again.recall_after is not None
    assert again.recall_before["text_to_image@1"] < again.recall_after["text_to_image@1"]
    lines = read_log(tmp_path / "out")
    assert [line.step for line in lines if line.recall] == [0, 2, 20, 40, 60]
    assert lines[0].loss is None
    text = first.to_text()
    assert f"recall@1 words -> image  {first.recall_before['text_to_image@1']:.3f} -> " in text
    assert "2 steps mean next to nothing" in text
    assert "next to nothing" not in again.to_text()
    card = (tmp_path / "out" / "README.md").read_text()
    measured = again.recall_before["image_to_text@1"], again.recall_after["image_to_text@1"]
    for said in (table, "version 1", "14, of which 4", clip, "`photo` (images)", again.fingerprint, "60, of 8 pairs",
                 f"| recall@1 image -> words | {measured[0]:.3f} | {measured[1]:.3f} |"):  # fmt: skip
        assert said in card
    with Image.open(tmp_path / "out" / "curve.png") as curve:
        assert curve.format == "PNG"
    assert load_encoder(str(tmp_path / "out"), device="cpu").encode_texts(["a red car"]).reasons == (None,)


def test_without_matplotlib_the_curve_is_left_out_in_one_line(
    table: str, clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    report = fine_tune(table, clip, tmp_path / "out", held_out=0, steps=1)
    assert report.curve is None
    assert report.recall_before is report.recall_after is None
    said = [line for line in report.to_text().splitlines() if "curve" in line]
    assert said == ["  no curve was drawn, for matplotlib is missing: pip install 'lance-align[plots]'"]
    assert not (tmp_path / "out" / "curve.png").exists()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "curve.png" not in card
    assert "Not measured" in card


def test_files_of_a_run_obey_the_umask_and_a_card_of_ones_own_is_kept(table: str, clip: str, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        fine_tune(table, clip, tmp_path / "out", held_out=0, steps=1)
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"model.safetensors", "average.safetensors", "optimizer.pt", "README.md"}
    assert {path.name: f"{path.stat().st_mode & 0o777:o}" for path in files} == {path.name: "640" for path in files}
    (tmp_path / "out" / "README.md").write_text("mine\n")
    fine_tune(table, clip, tmp_path / "out", held_out=0, steps=1)
    assert (tmp_path / "out" / "README.md").read_text() == "mine\n"


def test_progress_begins_at_once_and_no_line_comes_twice(
    table: str, clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SourceError, match="no Lance table"):
        fine_tune("nowhere.lance", clip, tmp_path / "none", progress=True)
    assert capsys.readouterr().err.endswith(f" training {clip} on nowhere.lance into {tmp_path / 'none'}\n")
    assert not (tmp_path / "none").exists()
    fine_tune(table, clip, tmp_path / "out", progress=True)
    printed, said = capsys.readouterr()
    lines = [line.partition(" ")[2] for line in said.splitlines() if line[:2] == "20"]  # transformers has a bar too
    assert len(set(lines)) == len(lines)
    assert [line[:20] for line in lines[1:4]] == ["loading the model", "measuring recall on ", "step 0 of 2 (0%), re"]
    assert lines[-1].startswith("step 2 of 2 (100%), loss ")
    assert printed == ""


def test_a_terminal_gets_a_bar_with_loss_and_recall() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    recall = {"text_to_image@1": 0.125, "image_to_text@1": 0.25}
    line = LogLine(step=3, progress=0.25, loss=1.5, temperature=0.07, learning_rate=1e-4, pairs_per_s=40.0, skipped=0,
                   elapsed_s=30.0, recall=recall)  # fmt: skip
    screen = Terminal()
    with contextlib.redirect_stderr(screen), training_progress(12) as view:
        view.say("loading the model")
        view.show(line)
        view.show(dataclasses.replace(line, step=6, progress=0.5, elapsed_s=60.0, recall=None))
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert "loading the model" in shown
    assert "step 3/12" in shown
    *_, last = (part for part in re.split(r"[\r\n]+", shown) if part.strip())
    for said in ("step 6/12", "loss 1.500", "recall@1 0.125/0.250", "1 min 0 s left"):
        assert said in last


def test_a_log_counts_what_was_done_again_once(tmp_path: Path) -> None:
    line = LogLine(step=0, progress=0.0, loss=None, temperature=0.07, learning_rate=0.0, pairs_per_s=0.0, skipped=0,
                   elapsed_s=0.0)  # fmt: skip
    with logged(tmp_path) as log:
        for step in (0, 20, 40):
            log(dataclasses.replace(line, step=step))
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write('{"step": 60, "progr\n')  # a kill
    with logged(tmp_path) as log:
        log(dataclasses.replace(line, step=30, loss=1.0))
    assert [(found.step, found.loss) for found in read_log(tmp_path)] == [(0, None), (20, None), (30, 1.0)]
    assert read_log(tmp_path / "nothing") == []


OTHER_TERMS: list[tuple[dict[str, Any], str]] = [
    ({"text": "more words"}, "text words, not more words"),
    ({"image": "again"}, "image photo, not again"),
    ({"held_out": 5}, "held_out 4, not 5"),
    ({"version": 2}, "version 1, not 2"),
    ({"model": "align-tiny"}, r"model .*clip \(\w{12}\), not align-tiny \(\w{12}\)"),
    (
        {"model": None, "vision_model": "CLIP", "text_model": "CLIP"},
        r"model .*, not None; vision_model None, not .*clip .*; projection_dim None, not 512",
    ),
    ({"options": {"batch_size": 6}}, "batch_size 8, not 6"),
    ({"options": {"seed": 1}}, "seed 0, not 1"),
    ({"options": {"freeze_text_tower": True}}, "freeze_text_tower False, not True"),
    ({"options": {"seed": 1, "batch_size": 6}}, "batch_size 8, not 6; seed 0, not 1"),
]


@pytest.mark.parametrize("is_finished", [False, True])
def test_a_run_on_other_terms_is_refused_by_name(table: str, clip: str, tmp_path: Path, is_finished: bool) -> None:
    """Weights of the same shapes would be taken over without a word, and held-out rows be learnt from."""
    lance.dataset(str(shutil.copytree(table, tmp_path / "pairs.lance"))).add_columns(
        {"again": "photo", "more words": "words"}
    )
    first: dict[str, Any] = {"steps": 2, "batch_size": 8, "average_decay": 0.0, "device": "cpu"}
    begun: dict[str, Any] = {
        "table": str(tmp_path / "pairs.lance"),
        "image": "photo",
        "text": "words",
        "out": tmp_path / "out",
        "model": clip,
        "held_out": 4,
        "version": 1,
    }

    def train(changes: dict[str, Any]) -> None:
        options = TrainOptions(**first | changes.get("options", {}))
        given = {name: clip if value == "CLIP" else value for name, value in changes.items()}
        train_on_table(TrainJob(**begun | given | {"options": options}))

    train({})
    if not is_finished:
        (tmp_path / "out" / "model.safetensors").unlink()
    trained = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    for changes, told in OTHER_TERMS:
        with pytest.raises(ArgumentError, match=f"holds a run on other terms: {told}; train into another directory"):
            train(changes)
    assert trained == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    train({"options": {"steps": 3, "learning_rate": 1e-4, "pairs_per_pass": 4}})
    moved = shutil.copytree(clip, tmp_path / "the same model elsewhere")
    train({"model": str(moved), "version": None, "options": {"steps": 3}})


def test_a_model_is_not_written_over(table: str, clip: str, tmp_path: Path) -> None:
    mine = shutil.copytree(clip, tmp_path / "mine")
    job = TrainJob(
        table=table, image="photo", text="words", out=mine, options=TrainOptions(steps=1, batch_size=8), model=clip
    )
    with pytest.raises(ArgumentError, match="mine holds a model or a checkpoint, but no record of its run"):
        train_on_table(job)


def test_what_cells_name_is_read_below_the_database_alone(table: str, tmp_path: Path) -> None:
    pictures = lance.dataset(table).to_table()["photo"].to_pylist()
    database = tmp_path / "db"
    (database / "photos").mkdir(parents=True)
    for folder in (tmp_path, database / "photos"):
        for place, picture in enumerate(pictures[:2]):
            (folder / f"{place}.png").write_bytes(picture)
    (database / "link.png").symlink_to(tmp_path / "0.png")
    inside = ["photos/0.png", str(database / "photos" / "1.png")]
    outside = [str(tmp_path / "0.png"), "../1.png", "link.png", f"file://{tmp_path}/0.png", "http://127.0.0.1:9/0.png"]
    cells = pa.table({"photo": [*inside, *outside], "words": captions(len(inside) + len(outside))})
    lance.write_dataset(cells, database / "pairs.lance")

    def read(**allowed: bool) -> Batch:
        pairs, _ = table_pairs(str(database / "pairs.lance"), "photo", "words", IMAGE, **allowed)
        return pairs.batch(len(cells), np.random.default_rng(0))

    assert read().texts == tuple(captions(2))
    assert (read().skipped, read().problem[:5]) == (5, "fetch")
    assert len(read(allow_outside=True)) == len(cells) - 1  # URLs need hosts


def test_columns_that_hold_no_pairs_are_refused(table: str, tmp_path: Path) -> None:
    rows = lance.dataset(table).to_table()
    lists = pa.array([[caption] * 5 for caption in captions(14)])
    number = pa.array(range(14))
    uri = str(tmp_path / "lists.lance")
    lance.write_dataset(rows.append_column("lists", lists).append_column("number", number), uri)
    for image, text, message in (
        ("photo", "lists", "'lists' is list<item: string>; expected captions as strings; give each caption a row"),
        ("photo", "number", "'number' is int64; expected captions as strings"),
        ("number", "words", "'number' is int64; expected encoded images as binary, or paths"),
    ):
        with pytest.raises(SourceError, match=message):
            table_pairs(uri, image, text, IMAGE)
    (tmp_path / "train.json").write_text('{"image_path": "0.png", "caption": "a red car"}\n')
    with pytest.raises(SourceError, match=r"train\.json is a file; expected a Lance table .*with embed first"):
        table_pairs(str(tmp_path / "train.json"), "image_path", "caption", IMAGE)


def test_no_picture_is_in_both_parts(table: str, tmp_path: Path) -> None:
    """Five captions a picture, as in COCO, a row for each."""
    rows = lance.dataset(table).to_table().to_pylist()[:12]
    many = [{"photo": row["photo"], "words": f"{row['words']} {n}"} for n in range(5) for row in rows]
    uri = str(tmp_path / "coco.lance")
    lance.write_dataset(pa.Table.from_pylist(many), uri)
    pairs, kept = table_pairs(uri, "photo", "words", IMAGE, held_out=4, seed=1)
    assert kept is not None
    trained = pairs.batch(60, np.random.default_rng(0))
    assert len(trained) + trained.skipped == 56
    assert len(trained) == 60 - 5 * len(kept.pictures()) < 56
    assert not {picture for _, picture in trained.identities} & kept.pictures()
    assert trained.problem == "null: its picture is held out"


@pytest.mark.slow  # half a minute; test_training_workers compares the workers' gradients without Ray
@pytest.mark.usefixtures("ray_session")
def test_two_workers_of_ray_train_make_the_model_of_one(table: str, clip: str, tmp_path: Path) -> None:
    found: dict[int, list[LogLine]] = {1: [], 2: []}
    for workers, lines in found.items():
        options = TrainOptions(
            steps=3, batch_size=8, learning_rate=1e-3, log_every=1, recall_every=3, average_decay=0.0, device="cpu"
        )
        out = tmp_path / str(workers)
        job = TrainJob(table=table, image="photo", text="words", out=out, options=options, model=clip, held_out=4)
        train_on_table(job, workers=workers, report=lines.append)
    assert [line.step for line in found[2]] == [0, 1, 2, 3]
    assert [line.loss for line in found[2][1:]] == pytest.approx([line.loss for line in found[1][1:]], abs=1e-4)
    assert found[2][0].recall == found[1][0].recall is not None
    assert found[2][-1].recall == found[1][-1].recall is not None
    one, two = (load_file(tmp_path / workers / "model.safetensors") for workers in "12")
    for name, value in two.items():
        if not name.endswith("k_proj.bias"):  # see tests/test_training_workers.py
            torch.testing.assert_close(value, one[name], rtol=1e-3, atol=2e-5, msg=name)
    assert load_encoder(str(tmp_path / "2"), device="cpu").encode_texts(["a red car"]).reasons == (None,)
    assert not (tmp_path / "2" / "ray").exists()


@pytest.mark.slow  # each start of Ray Train's processes takes ten seconds
@pytest.mark.usefixtures("ray_session")
def test_an_error_of_a_worker_is_told_as_it_is(clip: str, tmp_path: Path) -> None:
    rows = [{"photo": b"damaged", "words": caption} for caption in captions(14)]
    uri = str(tmp_path / "damaged.lance")
    lance.write_dataset(pa.Table.from_pylist(rows), uri)
    options = TrainOptions(steps=1, batch_size=8, device="cpu")
    job = TrainJob(table=uri, image="photo", text="words", out=tmp_path / "out", options=options, model=clip)
    with pytest.raises(SourceError, match=r"0 of the rows drawn can be trained on \(format"):
        train_on_table(job, workers=2)


@pytest.mark.slow  # two starts of Ray Train's processes
@pytest.mark.usefixtures("ray_session")
def test_a_worker_that_is_killed_costs_the_steps_since_the_checkpoint(table: str, clip: str, tmp_path: Path) -> None:
    """The others wait for it in a collective, and are started again with it."""
    killed: list[int] = []
    lines: list[LogLine] = []

    def report(line: LogLine) -> None:
        lines.append(line)
        if line.step >= 20 and not killed:
            found = [process for process in psutil.process_iter(["cmdline"]) if _is_worker(process)]
            killed.append(found[-1].pid)
            found[-1].kill()

    options = TrainOptions(
        steps=200, batch_size=8, log_every=10, average_decay=0.0, device="cpu", checkpoint_every_s=0.5
    )
    job = TrainJob(table=table, image="photo", text="words", out=tmp_path, options=options, model=clip)
    train_on_table(job, workers=2, report=report)
    assert killed
    assert lines[-1].step == 200
    assert load_encoder(str(tmp_path), device="cpu").encode_texts(["a red car"]).reasons == (None,)


def _is_worker(process: psutil.Process) -> bool:
    return any("RayTrainWorker" in part for part in process.info["cmdline"] or ())


@pytest.mark.slow  # as above
@pytest.mark.usefixtures("ray_session")
def test_a_worker_that_fails_alone_ends_the_others(table: str, clip: str, tmp_path: Path) -> None:
    """The first cannot write its checkpoint, while the second waits for it."""
    (tmp_path / "checkpoint.new").write_text("in the way")
    options = TrainOptions(steps=400, batch_size=8, device="cpu", checkpoint_every_s=0.01)
    job = TrainJob(table=table, image="photo", text="words", out=tmp_path, options=options, model=clip)
    with pytest.raises(JobError, match=r"cannot be written \(FileExistsError"):
        train_on_table(job, workers=2)


@pytest.mark.slow  # Ray Train's controller starts
@pytest.mark.usefixtures("ray_session")
def test_workers_without_a_place_are_not_waited_for_without_end(
    table: str, clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "3")
    cpus = int(ray.cluster_resources()["CPU"])
    busy = ray.util.placement_group([{"CPU": 1}])
    try:
        assert busy.wait(30)
        options = TrainOptions(steps=1, batch_size=8, device="cpu")
        job = TrainJob(table=table, image="photo", text="words", out=tmp_path, options=options, model=clip)
        with pytest.raises(
            JobError, match=rf"{cpus} workers with 1 CPUs each did not start in 3 s; .* 0 GPUs; {cpus - 1}"
        ):
            train_on_table(job, workers=cpus)
    finally:
        ray.util.remove_placement_group(busy)


def test_a_directory_that_cannot_be_written_is_said(table: str, clip: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.new").write_text("in the way")
    options = TrainOptions(steps=1, batch_size=8, device="cpu")
    job = TrainJob(table=table, image="photo", text="words", out=tmp_path, options=options, model=clip)
    with pytest.raises(JobError, match=r"cannot be written \(FileExistsError.*go on from the last checkpoint"):
        train_on_table(job)
    with pytest.raises(JobError, match="cannot be written"), logged(tmp_path / "checkpoint.new"):
        raise AssertionError("not reached")
