"""What a describing job says before it changes a table or starts a worker; a column without a text is begun anew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import lance
import lancedb
import pytest
import torch
import transformers

from lance_align import JobReport, describe
from lance_align.cli import run_command
from lance_align.describers.checkpoints import resolve_describer
from lance_align.describers.loading import load_describer
from lance_align.errors import ArgumentError, JobError, ModelError, TableError
from lance_align.tables.descriptions import Description, add_description, read_description
from tests.describer_models import png
from tests.test_describe import photos_of

ASKED = "what is this ?"


def run(directory: Path, model: Path, **options: Any) -> JobReport:
    defaults: dict[str, Any] = {"column": "caption", "max_new_tokens": 6, "device": "cpu", "executor": "local"}
    return describe(db=directory, table="photos", model=str(model), progress=False, **(defaults | options))


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("llava", {"prompt": "USER: <image>\nwhat is this ? ASSISTANT:"}, "the prompt holds '<image>'"),
        ("llava", {"prompt": "what is {title} </s>"}, "the prompt holds '</s>'"),
        ("instructblip", {"prompt": "<image> what ?"}, "the prompt holds '<image>'"),
        ("question", {"prompt": "[SEP]"}, r"the prompt holds '\[SEP\]'"),
        ("llava", {"prompt": "cat " * 90}, "take 117 tokens of 96; shorten the prompt, or give fewer max_new_tokens"),
        ("llava", {"prompt": "{title}" + " cat" * 90}, "tokens of 96"),
        ("llava", {"prompt": ASKED, "max_new_tokens": 96}, "max_new_tokens=96 take 121 tokens of 96"),
        ("llava_next", {"prompt": "cat " * 80}, "tokens of 96"),
        ("instructblip", {"prompt": "cat " * 40}, "tokens of 32"),
        ("question", {"prompt": "cat " * 70}, "tokens of 64"),
        ("caption", {"prompt": "cat " * 60}, "tokens of 64"),
        ("caption", {"max_new_tokens": 64}, "tokens of 64"),
        ("caption", {"embed": "no-such-model"}, "unknown model 'no-such-model'"),
        ("caption", {"device": "gpu"}, "device is 'gpu'; expected 'auto', 'cpu'"),
        ("caption", {"log_file": "FOLDER"}, "log file .* cannot be written: it is a folder"),
        ("caption", {"log_file": "FOLDER/none/log"}, "log file .* cannot be written: there is no folder .*none"),
    ],
)
def test_what_no_row_can_satisfy_is_an_argument(
    family: str, options: dict[str, Any], message: str, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    table = photos_of(tmp_path, range(2))
    if "log_file" in options:
        options = {"log_file": options["log_file"].replace("FOLDER", str(tmp_path))}
    with pytest.raises(ArgumentError, match=message) as said:
        run(tmp_path, checkpoints[family], **options)
    assert "\n" not in str(said.value)
    assert table.checkout_latest() is None
    assert table.version == 1


def test_a_template_that_takes_no_picture_is_said(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    photos_of(tmp_path, range(2))
    model = shutil.copytree(checkpoints["llava"], tmp_path / "model")
    for path in (model / "chat_template.jinja", model / "chat_template.json"):
        if path.exists():
            path.write_text("{{ raise_exception('no pictures here') }}")
    with pytest.raises(ModelError, match=r"cannot be asked 'what is this [?]' .*no pictures here"):
        run(tmp_path, model, prompt=ASKED)


@pytest.mark.parametrize("is_missing", [True, False])
def test_weights_that_cannot_be_read_are_said(is_missing: bool, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    photos_of(tmp_path, range(2))
    model = shutil.copytree(checkpoints["llava"], tmp_path / "model")
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    if not is_missing:
        (model / "model-00002-of-00002.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"lacks a, b, which its index|00002\.safetensors is not a readable"):
        run(tmp_path, model, prompt=ASKED)


def test_prompts_that_some_rows_can_satisfy_are_asked(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    """A row that is too long is that row's reason; a model that shows large pictures more of them is no reason."""
    table = photos_of(tmp_path, range(4))
    report = run(tmp_path, checkpoints["llava"], prompt="{title}" + " cat" * 66)
    assert (report.embedded, report.reasons) == (2, {"null": 1, "too_large": 1})
    assert run(tmp_path, checkpoints["llava_next"], prompt="cat " * 20, column="other").embedded == 4
    table.checkout_latest()
    assert table.to_arrow()["caption_error"].to_pylist()[3].startswith("too_large: the prompt and max_new_tokens=6")


def test_a_column_without_a_text_takes_another_prompt(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    """Nothing is lost: there are reasons of the other prompt at most, which say nothing of this one."""
    table = photos_of(tmp_path, range(4))
    lance.dataset(tmp_path / "photos.lance").update({"title": "'" + "cat " * 90 + "'"})
    for prompt, fts in (("{title}", True), ("{title} ?", False)):
        with pytest.raises(JobError, match=r"none of 4 rows could be described \(too_large 4\)"):
            run(tmp_path, checkpoints["llava"], prompt=prompt, fts=fts)
    assert run(tmp_path, checkpoints["llava"], prompt=ASKED).embedded > 0
    table.checkout_latest()
    recorded = read_description(table.schema, "caption")
    assert recorded is not None
    assert recorded.spec.prompt == ASKED
    assert "too_large" not in str(table.to_arrow()["caption_error"].to_pylist())
    with pytest.raises(TableError, match=r"prompt 'what is this \?' against 'what \?'; choose another column, or drop"):
        run(tmp_path, checkpoints["llava"], prompt="what ?")


def test_a_column_is_begun_anew_after_a_stop_in_between(
    tmp_path: Path, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = photos_of(tmp_path, range(2))
    uri = str(tmp_path / "photos.lance")
    first, second = (
        Description(image="picture", spec=resolve_describer(checkpoints["llava"], prompt=prompt))
        for prompt in ("what ?", ASKED)
    )
    add_description(uri, "caption", first)
    with monkeypatch.context() as stopped:
        stopped.setattr(lance.LanceDataset, "add_columns", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            add_description(uri, "caption", second)
    add_description(uri, "caption", second)
    table.checkout_latest()
    assert table.schema.names == ["number", "picture", "title", "caption", "caption_error"]
    assert read_description(table.schema, "caption") == second
    add_description(uri, "caption", second)
    version = table.version
    table.checkout_latest()
    assert table.version == version


def test_a_report_that_cannot_be_written_is_said_first(
    tmp_path: Path, checkpoints: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    photos_of(tmp_path, range(2))
    words = ["--db", str(tmp_path), "--table", "photos", "--column", "caption", "--model", str(checkpoints["caption"])]
    with pytest.raises(SystemExit) as left:
        run_command("describe", [*words, "--no-progress", "--report-json", str(tmp_path / "none" / "report.json")])
    assert left.value.code == 1
    assert f"error: report {tmp_path}/none/report.json cannot be written: there is no folder" in capfd.readouterr().err
    assert lancedb.connect(tmp_path).open_table("photos").schema.names == ["number", "picture", "title"]


@pytest.mark.parametrize(
    ("family", "kind", "dtype"),
    [
        ("caption", "BlipForConditionalGeneration", torch.float16),
        ("question", "BlipForQuestionAnswering", torch.bfloat16),
        ("instructblip", "InstructBlipForConditionalGeneration", torch.float16),
        ("llava", "LlavaForConditionalGeneration", torch.bfloat16),
    ],
)
def test_half_precision_checkpoints_are_computed_in_float32(
    family: str, kind: str, dtype: torch.dtype, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """As most are published; config.json and its parts then say so."""
    half, whole = (Path(shutil.copytree(checkpoints[family], tmp_path / name)) for name in ("half", "whole"))
    model: Any = getattr(transformers, kind).from_pretrained(checkpoints[family], dtype=dtype)
    model.save_pretrained(half)
    model.float().save_pretrained(whole)
    describers = [load(place) for place in (half, whole)]
    pictures = [png(seed) for seed in range(3)]
    assert describers[0].describe(pictures) == describers[1].describe(pictures)
    assert {weight.dtype for weight in describers[0].model.parameters()} == {torch.float32}
    assert len(load(half, precision="bfloat16").describe(pictures[:1])) == 1


def load(place: Path, **options: Any) -> Any:
    return load_describer(resolve_describer(place, prompt=ASKED, max_new_tokens=4, **options), device="cpu")
