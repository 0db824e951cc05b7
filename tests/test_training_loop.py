"""The loop: loss falls, a killed run goes on as if nothing had happened, and what is saved loads anywhere."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AlignModel
from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil

from lance_align.benchmarks.weights import build_model
from lance_align.corpora.scenes import draw_scene, scene_at
from lance_align.encoders import load_encoder, resolve_spec
from lance_align.errors import ArgumentError, ModelError, SourceError
from lance_align.spec import ImageSpec
from lance_align.training import Batch, LogLine, RowPairs, Trainable, Trainer, TrainOptions, load_trainable, recipe
from lance_align.training.optim import batch_norms, learning_rate
from lance_align.training.sources import ScenePairs, draw_scene_pairs
from tests.align_models import SMALL_PREPROCESSOR, save_checkpoint, small_config
from tests.family_models import save_family

SIDE_PX = 32


@pytest.fixture(scope="module")
def drawn() -> ScenePairs:
    return draw_scene_pairs(seed=1, count=200, side_px=SIDE_PX)


def fresh(drawn: ScenePairs, *, seed: int = 0) -> Trainable:
    """An untrained model of the recipe's classes for 32-pixel pictures, with a third of its layers."""
    tokenizer = recipe.build_tokenizer(caption for scene in drawn.scenes for caption in scene.captions)
    config = recipe.tiny_config(vocabulary_size=len(tokenizer))
    config.vision_config.num_block_repeats = [1, 1, 1, 1, 1]
    config.text_config.num_hidden_layers = 1
    config.text_config.hidden_dropout_prob = 0.1
    model = recipe.build_model(config, seed=seed)
    return Trainable(model, tokenizer, ImageSpec(resize=(SIDE_PX, SIDE_PX), crop=(SIDE_PX, SIDE_PX)), 64)


def options(**changes: object) -> TrainOptions:
    settings = {"steps": 30, "batch_size": 24, "learning_rate": 2e-3, "log_every": 5, "average_decay": 0.9, **changes}
    return TrainOptions(**settings)  # type: ignore[arg-type]


def weights(trainable: Trainable) -> dict[str, torch.Tensor]:
    return dict(trainable.model.state_dict())


def test_the_loss_falls_and_progress_is_reported(drawn: ScenePairs) -> None:
    lines: list[LogLine] = []
    Trainer(fresh(drawn), drawn, options(steps=40), report=lines.append).run()
    assert [line.step for line in lines] == list(range(5, 41, 5))
    assert lines[-1].progress == 1.0
    assert lines[-1].loss < lines[0].loss - 0.3
    assert all(line.pairs_per_s > 0 and line.skipped == 0 for line in lines)


def test_long_steps_are_told_each(drawn: ScenePairs) -> None:
    lines: list[LogLine] = []
    Trainer(fresh(drawn), drawn, options(steps=3, log_every=100, log_every_s=1e-6), report=lines.append).run()
    assert [line.step for line in lines] == [1, 2, 3]


@pytest.mark.parametrize("family", ["align", "clip"])
def test_a_run_that_was_stopped_ends_with_the_same_weights(drawn: ScenePairs, tmp_path: Path, family: str) -> None:
    def start(seed: int = 0) -> Trainable:
        if family == "align":
            return fresh(drawn, seed=seed)
        return load_trainable(str(save_family(family, tmp_path / f"clip-{seed}", seed=seed)))

    whole = Trainer(start(), drawn, options(steps=8)).run()

    class StopError(Exception):
        pass

    def stop(line: LogLine) -> None:
        if line.step == 5:
            raise StopError

    # A checkpoint after each step; the exception ends the run between two of them, as a kill would.
    every_step = options(steps=8, checkpoint_every_s=1e-6)
    with pytest.raises(StopError):
        Trainer(start(), drawn, every_step, directory=tmp_path, report=stop).run()
    resumed = Trainer(start(9), drawn, every_step, directory=tmp_path)  # other first weights: not used
    assert resumed.step == 4
    for name, value in weights(resumed.run()).items():
        torch.testing.assert_close(value, weights(whole)[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_finished_run_is_not_trained_again(drawn: ScenePairs, tmp_path: Path) -> None:
    first = Trainer(fresh(drawn), drawn, options(steps=3), directory=tmp_path).run()
    lines: list[LogLine] = []
    again = Trainer(fresh(drawn), drawn, options(steps=3), directory=tmp_path, report=lines.append).run()
    assert lines == []
    assert all(torch.equal(value, weights(first)[name]) for name, value in weights(again).items())


def test_a_checkpoint_of_another_model_is_refused(drawn: ScenePairs, tmp_path: Path) -> None:
    Trainer(fresh(drawn), drawn, options(steps=1), directory=tmp_path).run()
    other = fresh(drawn)
    other.model.text_projection = torch.nn.Linear(192, 7)
    with pytest.raises(ModelError, match="another model"):
        Trainer(other, drawn, options(steps=1), directory=tmp_path)


def test_a_damaged_checkpoint_is_refused_without_running_it(drawn: ScenePairs, tmp_path: Path) -> None:
    Trainer(fresh(drawn), drawn, options(steps=1), directory=tmp_path).run()
    (tmp_path / "checkpoint" / "optimizer.pt").write_bytes(b"cos\nsystem\n(S'false'\ntR.")  # a pickle that runs code
    with pytest.raises(ModelError, match="cannot be continued"):
        Trainer(fresh(drawn), drawn, options(steps=1), directory=tmp_path)


def test_a_checkpoint_of_a_gpu_goes_on_without_one(
    drawn: ScenePairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as on_a_gpu:
        on_a_gpu.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
        Trainer(fresh(drawn), drawn, options(steps=2), directory=tmp_path).run()
    saved = (tmp_path / "checkpoint" / "optimizer.pt").read_bytes()
    assert b"cuda:0" in saved
    again = Trainer(fresh(drawn), drawn, options(steps=3, device="cpu"), directory=tmp_path)
    assert again.step == 2
    again.run()


def test_the_next_batch_is_drawn_while_the_model_learns(drawn: ScenePairs) -> None:
    steps = 4
    seen: list[int] = []
    drawn_at = [threading.Event() for _ in range(steps)]
    at = threading.Event()  # set where the model has not waited in vain

    class Source:
        def batch(self, size: int, rng: np.random.Generator) -> Batch:
            found = drawn.batch(size, rng)
            seen.append(len(seen))
            drawn_at[seen[-1]].set()
            return found

    trainable = fresh(drawn)

    def learn(*_: Any) -> None:
        if trainable.model.training and (trainer.step == steps - 1 or drawn_at[trainer.step + 1].wait(timeout=20)):
            at.set()

    trainable.model.vision_model.register_forward_pre_hook(learn)
    changes: dict[str, object] = {"steps": steps, "average_decay": 0.0, "freeze_batch_norm": True}
    trainer = Trainer(trainable, Source(), options(**changes))
    done = trainer.run()
    assert at.is_set()
    assert seen == list(range(steps))  # and none for a step that does not come
    plain = Trainer(fresh(drawn), drawn, options(**changes)).run()
    assert all(torch.equal(value, weights(plain)[name]) for name, value in weights(done).items())


def test_an_error_of_a_source_comes_at_its_own_step(drawn: ScenePairs) -> None:
    class Ending:
        calls = 0

        def batch(self, size: int, rng: np.random.Generator) -> Batch:
            self.calls += 1
            if self.calls == 3:
                raise SourceError("no more rows")
            return drawn.batch(size, rng)

    lines: list[LogLine] = []
    with pytest.raises(SourceError, match="no more rows"):
        Trainer(fresh(drawn), Ending(), options(steps=9, log_every=1), report=lines.append).run()
    assert [line.step for line in lines] == [1, 2]


def test_pictures_are_read_by_several_threads() -> None:
    both = threading.Barrier(2, timeout=20)
    picture = np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8)

    def read(value: Any) -> Any:
        both.wait()
        return value

    def fetch(places: Any) -> list[Any]:
        return [(picture, f"text {place}") for place in places]

    image = ImageSpec(resize=(SIDE_PX, SIDE_PX), crop=(SIDE_PX, SIDE_PX))
    batch = RowPairs(fetch, 2, image, read).batch(2, np.random.default_rng(0))
    assert batch.texts == ("text 0", "text 1")


def test_captions_that_are_no_text_are_skipped() -> None:
    image = ImageSpec(resize=(SIDE_PX, SIDE_PX), crop=(SIDE_PX, SIDE_PX))
    picture = np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8)
    rows: list[Any] = [(picture, "a red car"), (picture, ["a", "list"]), (picture, " "), (picture, None), (7, "x")]
    (batch,) = RowPairs(lambda places: [rows[place] for place in places], len(rows), image).batches(9)
    assert (batch.texts, batch.skipped) == (("a red car",), 4)


def test_minutes_end_a_run_too(drawn: ScenePairs) -> None:
    trainer = Trainer(fresh(drawn), drawn, options(steps=None, minutes=1e-4, batch_size=4))
    trainer.run()
    assert 1 <= trainer.step < 50


def test_bfloat16_trains_and_leaves_float32_weights(drawn: ScenePairs) -> None:
    lines: list[LogLine] = []
    done = Trainer(fresh(drawn), drawn, options(steps=12, precision="bfloat16"), report=lines.append).run()
    assert lines[-1].loss < lines[0].loss
    assert {value.dtype for value in weights(done).values() if value.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norm_statistics_are_kept_where_they_are_frozen(drawn: ScenePairs, frozen: bool) -> None:
    trainable = fresh(drawn)
    before = [norm.running_var.clone() for norm in batch_norms(trainable.model) if norm.running_var is not None]
    done = Trainer(trainable, drawn, options(steps=3, freeze_batch_norm=frozen)).run()
    after = [norm.running_var for norm in batch_norms(done.model)]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True)) is frozen


def test_fine_tuning_a_checkpoint_saves_one_that_loads_both_ways(tmp_path: Path) -> None:
    """The source has 64-pixel crops of 76-pixel pictures: geometry must survive too."""
    start = save_checkpoint(
        build_model(small_config(), seed=0, warm_up=32), tmp_path / "start", preprocessor=SMALL_PREPROCESSOR
    )
    pairs = draw_scene_pairs(seed=2, count=64, side_px=64)
    lines: list[LogLine] = []
    tuned = Trainer(
        load_trainable(str(start)),
        pairs,
        options(steps=15, learning_rate=1e-3, freeze_batch_norm=True),
        report=lines.append,
    ).run()
    assert lines[-1].loss < lines[0].loss
    tuned.save(tmp_path / "tuned")

    spec = resolve_spec(str(tmp_path / "tuned"))
    assert spec.image == resolve_spec(str(start)).image
    assert spec.fingerprint != resolve_spec(str(start)).fingerprint
    encoder = load_encoder(str(tmp_path / "tuned"), device="cpu")
    model = AlignModel.from_pretrained(tmp_path / "tuned").eval()
    assert next(model.parameters()).dtype == torch.float32

    pictures = [draw_scene(scene_at(5, index), size_px=100) for index in range(4)]
    captions = ["a red car", "two children playing"]
    pixels = EfficientNetImageProcessorPil.from_pretrained(tmp_path / "tuned")(images=pictures, return_tensors="pt")
    tokens = tuned.tokenizer(captions, padding=True, return_tensors="pt")
    with torch.no_grad():
        images = model.get_image_features(**pixels).pooler_output
        texts = model.get_text_features(**tokens).pooler_output
    for got, expected in (
        (encoder.encode_images(pictures).vectors, images),
        (encoder.encode_texts(captions).vectors, texts),
    ):
        expected = torch.nn.functional.normalize(expected, dim=-1).numpy()
        np.testing.assert_allclose((got * expected).sum(axis=1), 1, atol=1e-5)


def test_a_model_without_weights_cannot_be_trained() -> None:
    with pytest.raises(ModelError, match="no weights"):
        load_trainable("fake")


def test_the_learning_rate_rises_and_falls_to_zero() -> None:
    rates = [learning_rate(progress, peak=1.0, warmup_share=0.1) for progress in np.linspace(0, 1, 101)]
    assert 0 < rates[0] < 0.01
    assert max(rates) == rates[10] == 1.0
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": None}, "neither steps nor minutes"),
        ({"steps": 0}, "steps=0"),
        ({"minutes": -1.0}, "minutes"),
        ({"batch_size": 1}, "2 pairs"),
        ({"precision": "float16"}, "float16"),
        ({"average_decay": 1.0}, "average_decay"),
        ({"learning_rate": 0.0}, "learning_rate"),
    ],
)
def test_options_say_what_is_wrong(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        options(**changes)


def test_a_device_that_is_not_there_is_named(drawn: ScenePairs) -> None:
    with pytest.raises(ArgumentError, match="cuda:99"):
        Trainer(fresh(drawn), drawn, options(device="cuda:99"))


def test_a_loss_that_is_not_finite_ends_the_run(drawn: ScenePairs) -> None:
    trainable = fresh(drawn)
    with torch.no_grad():
        trainable.model.text_projection.weight.fill_(float("nan"))
    with pytest.raises(ArgumentError, match="learning rate"):
        Trainer(trainable, drawn, options(steps=1)).run()
