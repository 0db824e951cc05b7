"""Training of CLIP and VisionTextDualEncoder: what learns, with which gradients, whole and in parts; what is saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

from lance_align.corpora.scenes import draw_scene, scene_at
from lance_align.encoders import load_encoder, resolve_spec
from lance_align.errors import ArgumentError, ModelError
from lance_align.training import LogLine, RowPairs, Trainable, Trainer, TrainOptions, load_trainable, pair_towers
from lance_align.training.contrast import contrast
from lance_align.training.losses import align_loss
from lance_align.training.optim import batch_norms
from lance_align.training.pairs import identity_matches
from lance_align.training.temperature import Temperature
from lance_align.training.towers import Towers
from lance_align.training.workers import ALONE
from tests.family_models import EYE, LAYERS, Reference, bert_tokenizer, save_family, smallest_cosine
from tests.training_pairs import gradients, row_pairs, without_dropout

FAMILIES = ["clip", "vision-text-dual-encoder"]
EVERY = ["align", *FAMILIES]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {name: save_family(name, root / name) for name in EVERY}


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of single towers: a ViT, and a BERT whose pooler was never saved."""
    root = tmp_path_factory.mktemp("towers")
    torch.manual_seed(3)
    ViTModel(ViTConfig(**EYE)).save_pretrained(root / "vit")
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    (root / "vit" / "preprocessor_config.json").write_text(json.dumps(processor))
    (root / "bert").mkdir()
    words = bert_tokenizer(root / "bert")
    config = BertConfig(**LAYERS, vocab_size=words, max_position_embeddings=48)
    BertModel(config, add_pooling_layer=False).save_pretrained(root / "bert")
    return {"vit": root / "vit", "bert": root / "bert"}


def options(**changes: object) -> TrainOptions:
    settings = {
        "steps": 12, "batch_size": 8, "learning_rate": 1e-3, "log_every": 3, "average_decay": 0.0,
        "freeze_batch_norm": True, "device": "cpu", **changes,
    }  # fmt: skip
    return TrainOptions(**settings)  # type: ignore[arg-type]


def trainer(checkpoint: Path, **changes: Any) -> tuple[Trainer, Trainable, RowPairs]:
    """Without dropout, so that parts and wholes can be compared."""
    trainable = without_dropout(load_trainable(str(checkpoint)))
    pairs = row_pairs(trainable.image)
    return Trainer(trainable, pairs, options(**changes)), trainable, pairs


def state(trainable: Trainable) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainable.model.state_dict().items()}


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_trained_is_saved_as_a_checkpoint_of_its_family(
    name: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    trainable = load_trainable(str(checkpoints[name]))
    lines: list[LogLine] = []
    done = Trainer(trainable, row_pairs(trainable.image), options(), report=lines.append).run()
    assert lines[-1].loss < lines[0].loss - 0.1
    done.save(tmp_path / "tuned")
    spec, before = resolve_spec(str(tmp_path / "tuned")), resolve_spec(str(checkpoints[name]))
    assert (spec.family, spec.image, spec.max_tokens) == (name, before.image, before.max_tokens)
    assert spec.fingerprint != before.fingerprint
    pictures = [draw_scene(scene_at(5, place), size_px=90)[:, :70] for place in range(3)]
    texts = ["a red car", "two children playing at night"]
    encoder, reference = load_encoder(str(tmp_path / "tuned"), device="cpu"), Reference(name, tmp_path / "tuned")
    shown = [reference.image(Image.fromarray(picture)) for picture in pictures]
    assert smallest_cosine(encoder.encode_images(pictures).vectors, shown) > 1 - 1e-5
    assert smallest_cosine(encoder.encode_texts(texts).vectors, [reference.text(text) for text in texts]) > 1 - 1e-5


def test_the_loss_of_clip_is_that_of_transformers(checkpoints: dict[str, Path]) -> None:
    found, trainable, pairs = trainer(checkpoints["clip"])
    batch = pairs.batch(6, np.random.default_rng(0))
    assert batch.matches.sum() == 6
    loss, got = found.backward(batch), gradients(trainable)
    model = trainable.model
    model.zero_grad(set_to_none=True)
    tokens = trainable.tokenizer(list(batch.texts), padding=True, return_tensors="pt")
    pixels = Towers(trainable, model, options()).pixels(batch)
    reference = model(**tokens, pixel_values=pixels, return_loss=True).loss
    reference.backward()
    assert loss == pytest.approx(reference.item(), rel=1e-5)
    assert got["logit_scale"].abs() > 1e-4
    for name, value in gradients(trainable).items():
        torch.testing.assert_close(got[name], value, rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize("name", EVERY)
def test_parts_give_the_loss_and_the_gradients_of_the_whole_batch(name: str, checkpoints: dict[str, Path]) -> None:
    whole, trainable, pairs = trainer(checkpoints[name])
    batch = pairs.batch(8, np.random.default_rng(1))
    loss, expected = whole.backward(batch), gradients(trainable)
    parts, in_parts, _ = trainer(checkpoints[name], pairs_per_pass=3)  # 3, 3 and 2
    assert parts.backward(batch) == pytest.approx(loss, rel=1e-5)
    found = gradients(in_parts)
    assert found.keys() == expected.keys()
    for parameter, value in expected.items():
        torch.testing.assert_close(found[parameter], value, rtol=2e-3, atol=2e-6, msg=parameter)


def test_both_passes_of_a_part_drop_the_same(checkpoints: dict[str, Path]) -> None:
    """With BERT's dropout on, the gradient is that of one graph over all parts."""
    trainable = load_trainable(str(checkpoints["vision-text-dual-encoder"]))
    towers = Towers(trainable, trainable.model, options())
    towers.train()
    batch = row_pairs(trainable.image).batch(6, np.random.default_rng(1))
    loss = contrast(towers, batch, label_smoothing=0.0, seed=5, pairs_per_pass=2, workers=ALONE)
    found = gradients(trainable)
    trainable.model.zero_grad(set_to_none=True)
    features = []
    for number, start in enumerate(range(0, 6, 2)):
        torch.manual_seed(5 + 2**40 * number)
        features.append(towers.encode(batch.part(start, start + 2)))
    images, texts = (torch.cat(side) for side in zip(*features, strict=True))
    expected = align_loss(images, texts, Temperature(trainable.model).value(), batch.matches, label_smoothing=0.0)
    expected.backward()  # type: ignore[no-untyped-call]
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    for name, value in gradients(trainable).items():
        torch.testing.assert_close(found[name], value, rtol=2e-3, atol=2e-6, msg=name)


@pytest.mark.parametrize("name", ["align", "clip"])
def test_recomputed_activations_give_the_same_gradients(name: str, checkpoints: dict[str, Path]) -> None:
    plain, trainable, pairs = trainer(checkpoints[name])
    batch = pairs.batch(6, np.random.default_rng(2))
    loss, expected = plain.backward(batch), gradients(trainable)
    saving, recomputed, _ = trainer(checkpoints[name], gradient_checkpointing=True)
    assert any(getattr(module, "gradient_checkpointing", False) for module in recomputed.model.text_model.modules())
    assert saving.backward(batch) == pytest.approx(loss, rel=1e-6)
    for parameter, value in expected.items():
        torch.testing.assert_close(gradients(recomputed)[parameter], value, rtol=1e-3, atol=1e-6, msg=parameter)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("side", ["image", "text"])
def test_a_frozen_tower_stays_and_the_rest_learns(name: str, side: str, checkpoints: dict[str, Path]) -> None:
    trainable = load_trainable(str(checkpoints[name]))
    before = state(trainable)
    frozen = {"image": "vision_model.", "text": "text_model."}[side]
    changes = {f"freeze_{side}_tower": True, "freeze_batch_norm": side == "text", "steps": 2}
    run = Trainer(trainable, row_pairs(trainable.image), options(**changes))
    after = state(run.run())
    moved = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert not {key for key in moved if key.startswith(frozen)}
    other = {"image": "text_model.", "text": "vision_model."}[side]
    assert any(key.startswith(other) for key in moved)
    assert {"temperature", "logit_scale"} & moved
    assert any("projection" in key and not key.startswith(("vision_model", "text_model")) for key in moved)
    if name == "align" and side == "image":
        assert not any(norm.training for norm in batch_norms(trainable.model))  # in evaluation mode without being told


def test_the_head_has_its_own_learning_rate(checkpoints: dict[str, Path]) -> None:
    trainable = load_trainable(str(checkpoints["clip"]))
    before = state(trainable)
    settings = options(steps=2, learning_rate=1e-9, head_learning_rate=1e-2, weight_decay=0.0)
    after = state(Trainer(trainable, row_pairs(trainable.image), settings).run())
    for key, value in after.items():
        difference = (value - before[key]).abs().max()
        assert (
            difference > 1e-4
            if key in ("logit_scale", "visual_projection.weight", "text_projection.weight")
            else (difference < 1e-6)
        )


@pytest.mark.parametrize("name", ["align", "clip"])
def test_the_temperature_stays_within_its_bounds(name: str, checkpoints: dict[str, Path]) -> None:
    def end(**bounds: float) -> float:
        trainable = load_trainable(str(checkpoints[name]))
        settings = options(steps=1, head_learning_rate=1e-6, **bounds)
        return Temperature(Trainer(trainable, row_pairs(trainable.image), settings).run().model).value().item()

    free = end()
    assert 0.04 < free < 0.06
    assert end(min_temperature=0.2) == pytest.approx(0.2)
    assert end(max_temperature=0.02) == pytest.approx(0.02)


def test_warm_up_may_be_given_in_steps() -> None:
    assert options(steps=200, warmup_steps=50).warmup == 0.25
    assert options(steps=200).warmup == 0.03


def test_a_caption_or_a_picture_that_occurs_twice_is_no_negative() -> None:
    found = identity_matches([("a", "p"), ("b", "q"), ("a", "r"), ("c", "q")])
    assert found.int().tolist() == [[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]]


def test_recall_is_measured_on_held_out_pairs(checkpoints: dict[str, Path]) -> None:
    """Held out and trained on at once, to see that it rises; a doubled pair counts as neither right nor wrong."""
    trainable = load_trainable(str(checkpoints["clip"]))
    pairs = row_pairs(trainable.image, doubled=True)
    lines: list[LogLine] = []
    settings = options(steps=60, batch_size=10, log_every=7, recall_every=30, learning_rate=2e-3, label_smoothing=0.0)
    Trainer(trainable, pairs, settings, held_out=pairs, report=lines.append).run()
    recalls = {line.step: line.recall for line in lines}
    assert {step for step, recall in recalls.items() if recall is not None} == {0, 30, 60}
    last = recalls[60]
    assert last is not None
    assert set(last) == {f"{way}@{k}" for way in ("text_to_image", "image_to_text") for k in (1, 5, 10)}
    assert last["text_to_image@1"] == last["image_to_text@1"] == 1.0


def test_two_towers_are_paired_and_trained(towers: dict[str, Path], tmp_path: Path) -> None:
    paired = pair_towers(towers["vit"], towers["bert"], projection_dim=20, seed=1)
    vit = ViTModel.from_pretrained(towers["vit"]).state_dict()
    assert all(torch.equal(paired.model.vision_model.state_dict()[key], value) for key, value in vit.items())
    again = pair_towers(towers["vit"], towers["bert"], projection_dim=20, seed=1)
    assert all(torch.equal(value, state(again)[key]) for key, value in state(paired).items())
    assert paired.fresh == {"text_model.pooler.dense.weight", "text_model.pooler.dense.bias"}
    # Whether projections are untrained is seen in many numbers, as published models have.
    pair_towers(towers["vit"], towers["bert"], projection_dim=512, seed=1).save(tmp_path / "untrained")
    with pytest.raises(ModelError, match="train the model first"):
        load_encoder(str(tmp_path / "untrained"), device="cpu")
    assert load_trainable(str(tmp_path / "untrained")).max_tokens == 48

    before = state(paired)
    settings = options(steps=15, freeze_text_tower=True, freeze_image_tower=True, head_learning_rate=1e-2)
    done = Trainer(paired, row_pairs(paired.image), settings).run()
    moved = {key for key, value in state(done).items() if not torch.equal(value, before[key])}
    assert moved == {*paired.fresh, "visual_projection.weight", "text_projection.weight", "logit_scale"}
    done.save(tmp_path / "trained")
    encoder = load_encoder(str(tmp_path / "trained"), device="cpu")
    assert encoder.encode_texts(["a red car"]).vectors.shape == (1, 20)
    assert encoder.spec.image.crop == (32, 32)


def test_both_halves_of_two_clips_can_be_paired(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    paired = pair_towers(checkpoints["clip"], checkpoints["clip"], projection_dim=16, seed=0)
    paired.save(tmp_path / "pair")
    spec = resolve_spec(str(tmp_path / "pair"))
    assert (spec.dim, spec.image, spec.max_tokens) == (16, resolve_spec(str(checkpoints["clip"])).image, 77)
    assert not paired.fresh


@pytest.fixture
def broken(checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    """A CLIP that lacks one matrix."""
    directory = tmp_path / "broken"
    directory.mkdir()
    for path in checkpoints["clip"].iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    tensors = load_file(directory / "model.safetensors")
    del tensors["vision_model.encoder.layers.1.mlp.fc1.weight"]
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def test_weights_that_are_missing_are_named_and_not_drawn(broken: Path, towers: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match=r"lacks .*layers\.1\.mlp\.fc1\.weight"):
        load_trainable(str(broken))
    with pytest.raises(ModelError, match=r"lacks .*layers\.1\.mlp\.fc1\.weight"):
        pair_towers(broken, towers["bert"], projection_dim=8, seed=0)
    with pytest.raises(ModelError, match="'bert' model"):
        pair_towers(towers["bert"], towers["bert"], projection_dim=8, seed=0)
    with pytest.raises(ModelError, match="unknown model 'no such'"):
        pair_towers(towers["vit"], "no such", projection_dim=8, seed=0)
    with pytest.raises(ModelError, match="'someone/vit' is not here and the hub cannot be reached"):
        pair_towers("someone/vit", towers["bert"], projection_dim=8, seed=0)
    with pytest.raises(ArgumentError, match="projection_dim"):
        pair_towers(towers["vit"], towers["bert"], projection_dim=0, seed=0)


def test_a_family_that_is_not_trained_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="'blip'"):
        load_trainable(str(save_family("blip", tmp_path / "blip")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairs_per_pass": 4, "freeze_batch_norm": False}, "BatchNorm"),
        ({"gradient_checkpointing": True, "freeze_text_tower": True}, "image tower cannot"),
    ],
)
def test_what_a_model_cannot_do_is_said(checkpoints: dict[str, Path], changes: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        trainer(checkpoints["align"], **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warmup_steps": 12}, "warmup_steps"),
        ({"steps": None, "minutes": 1.0, "warmup_steps": 2}, "warmup_steps"),
        ({"min_temperature": 0.0}, "min_temperature"),
        ({"min_temperature": 0.5, "max_temperature": 0.1}, "below"),
        ({"pairs_per_pass": 0}, "pairs_per_pass"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
    ],
)
def test_options_say_what_is_wrong(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        options(**changes)


def test_a_batch_that_does_not_fit_says_what_to_set(checkpoints: dict[str, Path]) -> None:
    """A device that has room for four pictures."""

    def room(_module: torch.nn.Module, _given: tuple[object, ...], named: dict[str, torch.Tensor]) -> None:
        if len(named["pixel_values"]) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    large, trainable, _ = trainer(checkpoints["clip"], steps=1)
    trainable.model.vision_model.register_forward_pre_hook(room, with_kwargs=True)
    with pytest.raises(ArgumentError, match="8 pairs at once do not fit the memory of cpu; set pairs_per_pass"):
        large.run()
    small, trainable, _ = trainer(checkpoints["clip"], steps=1, pairs_per_pass=4)
    trainable.model.vision_model.register_forward_pre_hook(room, with_kwargs=True)
    small.run()
