"""`load_encoder` gives the vectors of transformers' AlignModel and its PIL processor, whatever shares the batch."""

from __future__ import annotations

import dataclasses
import io
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lance_align.benchmarks import weights
from lance_align.encoders import load_encoder, resolve_spec
from lance_align.encoders.checkpoints import BUNDLED
from lance_align.encoders.devices import full_precision
from lance_align.encoders.engines.base import EngineName
from lance_align.encoders.families.align import TextTower
from lance_align.encoders.once import Once
from lance_align.encoders.two_towers import TowerEncoder
from lance_align.errors import ArgumentError, ModelError
from lance_align.images import decode, load, to_pixels
from tests import align_models
from tests.pictures import encoded, every_kind, scene

PICTURES = every_kind()
CAPTIONS = (
    "",
    "a",
    "a red cat on the table",
    "three children playing with a blue ball at night, in the old street!",
    "  spaces \t and\nlines ",
    "Ünïcödé façade 東京 🙂 \x00 \ufffd",
    " ".join(align_models.CAPTION_WORDS.split() * 2),
    "the red house " * 166 + "at night",  # 500 words
)
ENGINE_NAMES: tuple[EngineName, EngineName] = ("torch", "openvino")
MIN_COSINE = 0.99999
MAX_BATCH_EFFECT = 1e-5


@dataclasses.dataclass(frozen=True)
class Case:
    """Our encoders of a checkpoint, by engine, and the reference's vectors."""

    encoders: dict[str, TowerEncoder]
    images: NDArray[np.float32]
    texts: NDArray[np.float32]


@pytest.fixture(scope="module", params=["align-tiny", "small", pytest.param("align-base", marks=pytest.mark.slow)])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """The bundled model, a small one, and one of align-base's own configuration: 172 M parameters at 289 pixels."""
    if request.param == "align-tiny":
        yield _case(BUNDLED / "align-tiny")
        return
    directory = tmp_path_factory.mktemp(request.param)
    if request.param == "small":
        model = weights.build_model(align_models.small_config(), seed=0, warm_up=32)
        align_models.save_checkpoint(model, directory, preprocessor=align_models.SMALL_PREPROCESSOR)
    else:
        model = weights.build_model(weights.base_config(), seed=0, warm_up=6)
        align_models.save_checkpoint(model, directory, preprocessor=weights.BASE_PREPROCESSOR)
    del model
    yield _case(directory)
    shutil.rmtree(directory)  # 0.7 GB, which pytest would keep for three sessions


def _case(directory: Path) -> Case:
    images, texts = _reference(directory)
    spec = resolve_spec(directory)
    encoders = {name: TowerEncoder(spec, directory, device="cpu", engine=name) for name in ENGINE_NAMES}
    return Case(encoders, images, texts)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = weights.build_model(align_models.small_config(), seed=1, warm_up=32)
    directory = tmp_path_factory.mktemp("model")
    return align_models.save_checkpoint(model, directory, preprocessor=align_models.SMALL_PREPROCESSOR)


def _reference(directory: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """transformers alone: processor, tokenizer padded to 64, model; one input at a time."""
    from transformers import AlignModel, AutoTokenizer
    from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil

    model = AlignModel.from_pretrained(directory).eval()
    processor = EfficientNetImageProcessorPil.from_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    images, texts = [], []
    with torch.inference_mode():
        for data in PICTURES.values():
            upright: Any = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
            images.append(model.get_image_features(**processor(upright, return_tensors="pt")).pooler_output[0])
        for text in CAPTIONS:
            tokens = tokenizer(text, padding="max_length", max_length=64, truncation=True, return_tensors="pt")
            texts.append(model.get_text_features(**tokens).pooler_output[0])
    return _unit(images), _unit(texts)


def _unit(rows: list[torch.Tensor]) -> NDArray[np.float32]:
    stacked = torch.stack(rows)
    unit: NDArray[np.float32] = (stacked / stacked.norm(dim=1, keepdim=True)).numpy()
    return unit


def _cosines(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
    cosines: NDArray[np.float64] = (left.astype(np.float64) * right.astype(np.float64)).sum(axis=1)
    return cosines


def _closest_pair(vectors: NDArray[np.float32]) -> float:
    cosines = vectors @ vectors.T
    return float(cosines[~np.eye(len(vectors), dtype=bool)].max())


@pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning")  # Pillow, of the reference's convert
def test_vectors_equal_the_reference_alone_and_in_batches(case: Case) -> None:
    assert _closest_pair(case.images) < 0.999, "the model gives different pictures one vector: the test could not fail"
    assert _closest_pair(case.texts) < 0.999, "the model gives different captions one vector: the test could not fail"
    torch_encoder, openvino_encoder = (case.encoders[name] for name in ENGINE_NAMES)
    # The large JPEG is decoded first, as the reference does: as a file, it would be decoded at a part of its size.
    pictures = [decode(data) if name == "4000 pixels" else data for name, data in PICTURES.items()]
    for encode, inputs, reference in (
        (torch_encoder.encode_images, pictures, case.images),
        (openvino_encoder.encode_images, pictures, case.images),
        (torch_encoder.encode_texts, list(CAPTIONS), case.texts),
    ):
        together = encode([None, *inputs, inputs[0]])
        assert together[0] is None
        assert together.reasons[1:] == (None,) * (len(inputs) + 1)
        alone = np.concatenate([encode([value]).vectors for value in inputs])
        batched = together.vectors[1:-1]
        assert batched.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(batched, axis=1), 1.0, atol=1e-6)
        assert _cosines(batched, reference).min() >= MIN_COSINE
        assert _cosines(alone, reference).min() >= MIN_COSINE
        assert np.abs(batched - alone).max() <= MAX_BATCH_EFFECT


def test_two_encoders_of_one_checkpoint_agree_whatever_their_batch_size(small: Path) -> None:
    spec = resolve_spec(str(small))
    pictures = [scene(80, 60, seed=seed) for seed in range(11)]
    captions = [" ".join(align_models.CAPTION_WORDS.split()[:count]) for count in range(23)]
    one, three = (TowerEncoder(spec, small, device="cpu", batch_size=size) for size in (1, 3))
    whole = TowerEncoder(spec, small, device="cpu")
    for other in (one, three):
        assert np.abs(other.encode_images(pictures).vectors - whole.encode_images(pictures).vectors).max() <= 1e-5
        assert np.abs(other.encode_texts(captions).vectors - whole.encode_texts(captions).vectors).max() <= 1e-5


def test_every_form_of_an_image_has_one_vector(small: Path, tmp_path: Path) -> None:
    picture = scene(120, 80, seed=3)
    data = encoded(picture, "PNG")
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    encoder = load_encoder(str(small), device="cpu")
    forms = [data, bytearray(data), memoryview(data), path, str(path), picture, np.asarray(picture)]
    vectors = encoder.encode_images(forms).vectors
    pixels = to_pixels(load(data), encoder.spec.image)[None]
    np.testing.assert_allclose(vectors, np.repeat(encoder.encode_pixels(pixels), len(forms), axis=0), atol=1e-5)


def test_bad_rows_keep_their_place_and_do_not_touch_the_others(small: Path) -> None:
    encoder = load_encoder(str(small), device="cpu")
    good: Any = scene(50, 50, seed=1)
    found = encoder.encode_images([None, good, b"", b"not a picture", "/no/such/file.png", 5, good])  # type: ignore[list-item]
    kinds = [reason and reason.partition(":")[0] for reason in found.reasons]
    assert kinds == ["null", None, "empty", "format", "missing", "type", None]
    assert [vector is None for vector in found] == [True, False, True, True, True, True, False]
    np.testing.assert_allclose(found.vectors[1], encoder.encode_images([good]).vectors[0], atol=1e-5)

    texts = encoder.encode_texts([None, "a cat", 7, b"bytes", "\ud800", "", "a cat"])  # type: ignore[list-item]
    kinds = [reason and reason.partition(":")[0] for reason in texts.reasons]
    assert kinds == ["null", None, "type", "type", "type", None, None]
    np.testing.assert_allclose(texts.vectors[1], texts.vectors[6], atol=1e-5)
    assert not texts.vectors[0].any()


@given(texts=st.lists(st.one_of(st.none(), st.text(st.characters(), max_size=90)), max_size=6))
@settings(max_examples=40, deadline=None)
def test_any_texts_are_vectors_or_reasons(small: Path, texts: list[str | None]) -> None:
    encoder = load_encoder(str(small), device="cpu")
    found = encoder.encode_texts(texts)
    assert len(found) == len(texts)
    for text, vector, reason in zip(texts, found, found.reasons, strict=True):
        assert (vector is None) == (reason is not None)
        if text is None:
            assert reason == "null: no text"
        if vector is not None:
            np.testing.assert_allclose(vector, encoder.encode_texts([text]).vectors[0], atol=MAX_BATCH_EFFECT)


def test_a_caption_of_megabytes_is_cut(small: Path) -> None:
    encoder = load_encoder(str(small), device="cpu")
    start = "the red house "
    long, short = encoder.encode_texts([start * 300_000, start * 60]).vectors
    np.testing.assert_allclose(long, short, atol=1e-5)


def test_nothing_in_gives_nothing_out(small: Path) -> None:
    encoder = load_encoder(str(small), device="cpu")
    assert encoder.encode_images([]).vectors.shape == (0, 32)
    assert encoder.encode_texts([]).vectors.shape == (0, 32)
    assert encoder.encode_texts([None, None]).reasons == ("null: no text",) * 2
    assert encoder.encode_pixels(np.empty((0, 64, 64, 3), dtype=np.uint8)).shape == (0, 32)


def test_pixels_of_another_shape_or_type_are_refused(small: Path) -> None:
    encoder = load_encoder(str(small), device="cpu")
    for pixels in (np.zeros((1, 64, 63, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)):
        with pytest.raises(ArgumentError, match=r"expected uint8 \(n, 64, 64, 3\)"):
            encoder.encode_pixels(pixels)
    with pytest.raises(ArgumentError, match="float32"):
        encoder.encode_pixels(np.zeros((1, 64, 64, 3), np.float32))  # type: ignore[arg-type]


def test_pixels_may_be_read_only_and_strided(small: Path) -> None:
    encoder = load_encoder(str(small), device="cpu")
    wide = np.random.default_rng(0).integers(0, 256, (2, 64, 128, 3), dtype=np.uint8)
    strided = wide[:, :, ::2]
    strided.flags.writeable = False
    np.testing.assert_allclose(
        encoder.encode_pixels(strided), encoder.encode_pixels(np.ascontiguousarray(strided)), atol=1e-6
    )


def test_a_vector_without_direction_becomes_a_reason(small: Path, tmp_path: Path) -> None:
    directory = _changed(small, tmp_path / "dead", zeroed="encoder.blocks.3.projection.project_bn")
    encoder = load_encoder(str(directory), device="cpu")
    found = encoder.encode_images([scene(50, 50, seed=1), None])
    assert found.reasons[0] is not None
    assert found.reasons[0].startswith("encode: ")
    assert found.reasons[1] == "null: no image"
    assert not found.vectors.any()
    assert np.isnan(encoder.encode_pixels(np.zeros((1, 64, 64, 3), np.uint8))).all()


def _changed(source: Path, directory: Path, *, zeroed: str) -> Path:
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, directory)
    weights = load_file(directory / "model.safetensors")
    for name in weights:
        if zeroed in name and name.endswith(("weight", "bias")):
            weights[name] = torch.zeros_like(weights[name])
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_computed_in_float32(small: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    from safetensors.torch import load_file, save_file

    narrow, wide = tmp_path / "narrow", tmp_path / "wide"
    weights = load_file(small / "model.safetensors")
    halves = {name: value.to(dtype) if value.is_floating_point() else value for name, value in weights.items()}
    for directory, values in ((narrow, halves), (wide, {k: v.to(weights[k].dtype) for k, v in halves.items()})):
        shutil.copytree(small, directory)
        save_file(values, directory / "model.safetensors", metadata={"format": "pt"})
    encoders = [load_encoder(str(directory), device="cpu") for directory in (narrow, wide)]
    picture, caption = scene(90, 70, seed=2), "a red car"
    left, right = (np.stack([e.encode_images([picture])[0], e.encode_texts([caption])[0]]) for e in encoders)  # type: ignore[list-item]
    np.testing.assert_array_equal(left, right)


def test_only_the_tower_that_is_needed_is_loaded(small: Path) -> None:
    spec = resolve_spec(str(small))
    words, pictures = TowerEncoder(spec, small, device="cpu"), TowerEncoder(spec, small, device="cpu")
    assert words.loaded_towers == frozenset()
    words.encode_texts(["a cat"])
    assert words.loaded_towers == {"text"}
    pictures.encode_images([scene(9, 9, seed=1)])
    assert pictures.loaded_towers == {"image"}


def test_threads_share_one_load_and_get_one_answer(small: Path) -> None:
    made = []
    once = Once(lambda: made.append(1) or object())  # type: ignore[func-returns-value]
    with ThreadPoolExecutor(8) as pool:
        assert len({id(value) for value in pool.map(lambda _: once(), range(64))}) == 1
        assert made == [1]
        encoders = set(pool.map(lambda _: load_encoder(str(small), device="cpu"), range(16)))
        assert len(encoders) == 1
        (encoder,) = encoders
        captions = ["a cat", "the old house at night", ""]
        expected = encoder.encode_texts(captions).vectors
        for found in pool.map(lambda _: encoder.encode_texts(captions).vectors, range(32)):
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_temperature_is_the_checkpoints(small: Path) -> None:
    assert load_encoder(str(small), device="cpu").temperature == pytest.approx(0.05)


def test_weights_that_change_under_an_open_encoder_are_noticed(small: Path, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    shutil.copytree(small, directory)
    encoder = load_encoder(str(directory), device="cpu")
    encoder.encode_texts(["a cat"])
    _changed(directory, tmp_path / "new", zeroed="vision_model.embeddings")
    shutil.copy(tmp_path / "new" / "model.safetensors", directory / "model.safetensors")
    with pytest.raises(ModelError, match="has changed since it was opened"):
        encoder.encode_images([scene(9, 9, seed=1)])


def test_devices_that_are_not_here_are_refused(small: Path) -> None:
    others: list[Any] = ["tpu", "cuda:99", "meta", "", None, 0]
    for device in others:
        with pytest.raises(ArgumentError, match="cannot be used here") as refused:
            load_encoder(str(small), device=device)
        assert "\n" not in str(refused.value)
    assert load_encoder(str(small), device="auto").encode_texts(["a cat"])[0] is not None


def test_cuda_convolutions_keep_their_float32() -> None:
    before = torch.backends.cudnn.allow_tf32
    with full_precision(torch.device("cuda:0")):
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before
    with full_precision(torch.device("cpu")):
        assert torch.backends.cudnn.allow_tf32 == before


def test_equal_captions_are_embedded_once() -> None:
    encoder = TowerEncoder(resolve_spec("align-tiny"), BUNDLED / "align-tiny", device="cpu")
    encoder.encode_texts(["loads the tower"])
    rows: list[int] = []

    def count(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, TextTower):
            rows.append(len(inputs[0]))

    texts = ["a cat", "a dog", "a cat", None, "a cat", "a dog"]
    with torch.nn.modules.module.register_module_forward_pre_hook(count):
        found = encoder.encode_texts(texts)
    assert sum(rows) == 2
    alone = encoder.encode_texts(["a cat", "a dog"]).vectors
    np.testing.assert_allclose(found.vectors[[0, 1, 2, 4, 5]], alone[[0, 1, 0, 0, 1]], atol=1e-6)
    assert found[3] is None
