"""Describers write what transformers' own models write, token for token, whatever shares their batch."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from lance_align import images
from lance_align.describers.checkpoints import resolve_describer
from lance_align.describers.loading import load_describer
from lance_align.describers.prompts import Prompt
from lance_align.describers.spec import DescriberSpec
from lance_align.errors import ArgumentError, ModelError, RowError
from tests import describer_models
from tests.describer_models import png

NEW_TOKENS = 10
PICTURES = [png(seed, width=40 + 7 * seed, height=30) for seed in range(9)]
ASKED = ["what is this ?", "describe the small cat on the table .", "how many ?"]


@functools.cache
def model_and_processor(directory: Path, name: str) -> tuple[Any, Any]:
    model = getattr(transformers, name).from_pretrained(directory)
    return model.eval(), transformers.AutoProcessor.from_pretrained(directory, backend="pil")


def reference(family: str, directory: Path, pictures: list[bytes], prompts: list[str] | None) -> list[str | None]:
    """What transformers' own model writes, asked as its documentation asks it, all at once and padded."""
    model, processor = model_and_processor(directory, CLASSES[family])
    texts: Any = prompts
    if family.startswith("llava"):
        contents = [[{"type": "image"}, {"type": "text", "text": prompt}] for prompt in prompts or ()]
        turns = [[{"role": "user", "content": content}] for content in contents]
        texts = [processor.apply_chat_template(turn, add_generation_prompt=True) for turn in turns]
    asked = {} if texts is None else {"text": texts, "padding": True}
    inputs = processor(images=[images.decode(picture) for picture in pictures], **asked, return_tensors="pt")
    starts = {"caption": 0, "question": 1}
    start = starts[family] if family in starts else inputs["input_ids"].shape[1]
    tokens = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False, num_beams=1)
    # A real tokenizer of BLIP does not know the token [DEC] that stands before its captions.
    found = [processor.tokenizer.decode(row[start:], skip_special_tokens=True) for row in tokens]
    return [text.removeprefix("[DEC]").strip() or None for text in found]


CLASSES = {
    "caption": "BlipForConditionalGeneration",
    "question": "BlipForQuestionAnswering",
    "instructblip": "InstructBlipForConditionalGeneration",
    "llava": "LlavaForConditionalGeneration",
    "llava_next": "LlavaNextForConditionalGeneration",
}


@pytest.mark.parametrize("family", CLASSES)
def test_texts_are_those_of_the_reference(family: str, checkpoints: dict[str, Path]) -> None:
    place = checkpoints[family]
    spec = resolve_describer(place, prompt=ASKED[0], max_new_tokens=NEW_TOKENS)
    describer = load_describer(DescriberSpec.from_json(spec.to_json()), device="cpu")
    found = describer.describe(PICTURES)
    assert list(found.texts) == reference(family, place, PICTURES, ASKED[:1] * len(PICTURES))
    assert len(set(found.texts)) > 4, "the pictures decide"
    kinds = {reason and reason.split(":")[0] for reason in found.reasons}
    assert {None, "cut"} <= kinds <= {None, "cut", "empty"}

    prompts = [ASKED[number % 3] for number in range(len(PICTURES))]
    mixed = describer.describe(PICTURES, prompts)
    pairs = list(zip(PICTURES, prompts, strict=True))
    assert list(mixed.texts) == [reference(family, place, [picture], [prompt])[0] for picture, prompt in pairs]
    assert list(mixed.texts) != list(found.texts), "the prompts decide"
    if family.startswith("llava"):  # their own padding changes nothing
        assert list(mixed.texts) == reference(family, place, PICTURES, prompts)
    alone = [describer.describe([picture], [prompt]) for picture, prompt in pairs]
    assert [(each.texts[0], each.reasons[0]) for each in alone] == list(zip(mixed.texts, mixed.reasons, strict=True))

    picture = images.decode(PICTURES[0])
    assert describer.describe([picture, np.asarray(picture)]).texts == (found.texts[0],) * 2
    longer = load_describer(dataclasses.replace(spec, max_new_tokens=NEW_TOKENS + 5), device="cpu").describe(PICTURES)
    for text, reason, more in zip(found.texts, found.reasons, longer.texts, strict=True):
        assert (more == text) if reason is None or text is None else str(more).startswith(text)


def test_a_caption_needs_no_beginning(checkpoints: dict[str, Path]) -> None:
    spec = resolve_describer(checkpoints["caption"], max_new_tokens=NEW_TOKENS)
    assert (spec.family, spec.task, spec.prompt) == ("blip", "caption", None)
    found = load_describer(spec, device="cpu").describe(PICTURES)
    assert list(found.texts) == reference("caption", checkpoints["caption"], PICTURES, None)


def test_bad_rows_are_rows(checkpoints: dict[str, Path]) -> None:
    spec = resolve_describer(checkpoints["llava"], prompt="what is this ?", max_new_tokens=NEW_TOKENS)
    describer = load_describer(spec, device="cpu")
    found = describer.describe(
        [PICTURES[0], None, b"no picture", PICTURES[0], PICTURES[0], png(1, width=1, height=1)],
        ["how many ?", "what ?", "what ?", "a <image> more", "cat " * 90, "what ?"],
    )
    kinds = [reason and reason.split(":")[0] for reason in found.reasons]
    assert kinds[1:5] == ["null", "format", "type", "too_large"]
    assert found.texts[1:5] == (None,) * 4
    assert found.texts[0] == describer.describe([PICTURES[0]], ["how many ?"]).texts[0]
    assert kinds[5] in (None, "cut", "empty")  # one pixel is a picture
    assert "'<image>'" in str(found.reasons[3])
    assert "take 121 tokens of 96" in str(found.reasons[4])
    assert len(describer.describe([])) == 0
    with pytest.raises(ArgumentError, match="1 images but 2 prompts"):
        describer.describe(PICTURES[:1], ["a", "b"])


def test_drawn_tokens_depend_on_seed_picture_and_prompt_alone(checkpoints: dict[str, Path]) -> None:
    def written(seed: int, pictures: list[bytes]) -> list[str | None]:
        spec = resolve_describer(
            checkpoints["llava"], prompt=ASKED[0], max_new_tokens=NEW_TOKENS, temperature=2.0, seed=seed
        )
        return list(load_describer(spec, device="cpu").describe(pictures).texts)

    assert written(1, PICTURES) == [*written(1, PICTURES[:4]), *written(1, PICTURES[4:])]
    assert written(1, PICTURES) == written(1, PICTURES[::-1])[::-1]
    assert written(1, PICTURES) != written(2, PICTURES)


def test_large_pictures_are_reduced(checkpoints: dict[str, Path]) -> None:
    assert images.picture(png(3, width=400, height=300), max_side_px=100).size == (100, 75)
    assert images.picture(png(3, width=99, height=100), max_side_px=100).size == (99, 100)
    assert images.picture(Image.new("RGB", (3000, 2)), max_side_px=100).size == (100, 1)
    spec = resolve_describer(checkpoints["caption"], max_new_tokens=NEW_TOKENS, max_side_px=20)
    small = load_describer(spec, device="cpu").describe(PICTURES)
    assert list(small.texts) != reference("caption", checkpoints["caption"], PICTURES, None)


def test_shards_are_as_good_as_one_file(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    sharded = describer_models.llava(tmp_path / "sharded", shards=True)
    assert not (sharded / "model.safetensors").exists()
    specs = [
        resolve_describer(place, prompt=ASKED[0], max_new_tokens=NEW_TOKENS)
        for place in (checkpoints["llava"], sharded)
    ]
    one, other = (load_describer(spec, device="cpu").describe(PICTURES) for spec in specs)
    assert one == other
    assert specs[0].fingerprint != specs[1].fingerprint
    shard = sorted(sharded.glob("*-of-*.safetensors"))[0]
    weights = load_file(shard)
    save_file({name: weight + 1 for name, weight in weights.items()}, shard, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="another model would write other texts"):
        load_describer(dataclasses.replace(specs[1], precision="bfloat16"), device="cpu")
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(ModelError, match="not a readable safetensors file"):  # before anything is loaded
        resolve_describer(sharded, prompt=ASKED[0])
    shard.unlink()
    with pytest.raises(ModelError, match=r"lacks \S+, .* which its index names"):
        resolve_describer(sharded, prompt=ASKED[0])


def damaged(source: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """A copy of a checkpoint with other weights."""
    shutil.copytree(source, target)
    weights = load_file(target / "model.safetensors")
    change(weights)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_weights_that_do_not_fit_are_an_error(
    checkpoints: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def refused(place: Path, message: str, **options: Any) -> None:
        with pytest.raises(ModelError, match=message) as caught:
            load_describer(resolve_describer(place, **options), device="cpu")
        assert "\n" not in str(caught.value)

    name = "text_decoder.bert.encoder.layer.0.output.dense.weight"
    lacking = damaged(checkpoints["caption"], tmp_path / "lacking", lambda weights: weights.pop(name))  # type: ignore[arg-type]
    refused(lacking, f"not hold a whole BlipForConditionalGeneration: it lacks {name}")

    def cut(weights: dict[str, torch.Tensor]) -> None:
        weights[name] = weights[name][:-1].clone()

    refused(damaged(checkpoints["caption"], tmp_path / "cut", cut), r"shapes differ, .*dense.weight \(31, 48\)")
    refused(checkpoints["caption"], "it lacks text_encoder", task="question", prompt="what ?")
    refused(checkpoints["question"], "another model's weights: text_encoder", task="caption")
    (lacking / "model.safetensors").write_bytes(b"nothing")
    refused(lacking, "not a readable safetensors file")
    assert "LOAD REPORT" not in capfd.readouterr().err


def test_what_cannot_describe_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'align' model \(AlignModel\); expected BLIP, InstructBLIP, LLaVA"):
        resolve_describer(Path(images.__file__).parent / "encoders" / "bundled" / "align-tiny", prompt="what ?")
    with pytest.raises(ModelError, match="without a chat template"):
        resolve_describer(describer_models.llava(tmp_path / "mute", chat_template=None), prompt="what ?")
    with pytest.raises(ModelError, match="no such directory"):
        resolve_describer("nothing-there")
    with pytest.raises(ModelError, match="is not here and the hub cannot be reached"):
        resolve_describer("nobody/has-this-model")
    (tmp_path / "pickled").mkdir()
    shutil.copy(checkpoints["caption"] / "config.json", tmp_path / "pickled")
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="holds no safetensors"):
        resolve_describer(tmp_path / "pickled")
    for options, message in (
        ({}, "follows a prompt"),
        ({"prompt": " "}, "the prompt is blank"),
        ({"prompt": "{a.b!r}"}, "around what is no column's name"),
        ({"prompt": "is {this"}, "write {{ and }} for braces"),
        ({"prompt": "what ?", "max_new_tokens": 0}, "max_new_tokens=0"),
        ({"prompt": "what ?", "temperature": -1.0}, "temperature=-1.0"),
        ({"prompt": "what ?", "task": "caption"}, "does 'instruction'; leave it out"),
        ({"prompt": "what ?", "task": "sing"}, "expected one of caption, question, instruction"),
    ):
        with pytest.raises(ArgumentError, match=message):
            resolve_describer(checkpoints["llava"], **options)  # type: ignore[arg-type]


def test_prompts_name_columns() -> None:
    prompt = Prompt("{{{title}}} of {year}, {title}?")
    assert prompt.columns == ("title", "year")
    assert prompt.fill({"title": "{year}", "year": 1999}) == "{{year}} of 1999, {year}?"
    with pytest.raises(RowError, match="null: no 'year', which the prompt names"):
        prompt.fill({"title": "x", "year": None})


def test_specs_cross_borders_and_say_what_differs(checkpoints: dict[str, Path]) -> None:
    spec = resolve_describer(checkpoints["llava"], prompt=ASKED[0])
    assert DescriberSpec.from_json(spec.to_json()) == spec
    assert spec.differences(dataclasses.replace(spec, name="elsewhere", revision="1")) == ""
    assert spec.differences(dataclasses.replace(spec, seed=1)) == "seed 0 against 1"
    for text in ("", "[]", "{}", spec.to_json().replace('"task": "instruction"', '"task": "sing"')):
        with pytest.raises(ModelError, match="could not be read"):
            DescriberSpec.from_json(text)
