"""Every family gives the vectors and scores of transformers' own model, on every kind of input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from lance_align import load_encoder
from lance_align.encoders import Encoder, resolve_spec
from lance_align.encoders.families import FAMILIES
from lance_align.encoders.zero_shot import label_probabilities
from tests.family_models import FRAMES, SAMPLES, Reference, save_family, smallest_cosine
from tests.pictures import every_kind, scene

CAPTIONS = [
    "a red car",
    "a photo of a cat sitting under the table",
    "",
    "Ünïcödé — 猫 🚗",
    "two dogs and three children playing with a ball on a hill by the river at night " * 8,
    "dog",
    "a photo of a small blue house with a bright sky",
]
PICTURES = sorted(name for name in SAMPLES if name != "xclip")


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of every family."""
    folder = tmp_path_factory.mktemp("families")
    return {name: save_family(name, folder / name, seed=3) for name in SAMPLES}


@pytest.fixture
def of(checkpoints: dict[str, Path], request: pytest.FixtureRequest) -> tuple[Encoder, Reference]:
    """Ours and theirs of the family that the test is run for."""
    name = request.param
    return load_encoder(checkpoints[name], device="cpu", engine="torch"), Reference(name, checkpoints[name])


def shown(data: bytes) -> Image.Image:
    """The upright RGB picture of a file, decoded by Pillow alone."""
    import io

    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    return image.convert("RGBA").convert("RGB") if image.mode == "P" else image.convert("RGB")


def test_the_table_of_families_is_what_the_tests_go_through() -> None:
    assert set(SAMPLES) == set(FAMILIES)


@pytest.mark.parametrize("of", PICTURES, indirect=True)
def test_image_vectors_are_those_of_transformers(of: tuple[Encoder, Reference]) -> None:
    ours, theirs = of
    files = {name: data for name, data in every_kind().items() if name != "4000 pixels"}  # which is decoded smaller
    found = ours.encode_images([*files.values(), None, b"no picture"])
    assert [reason and reason.split(":")[0] for reason in found.reasons] == [None] * len(files) + ["null", "format"]
    expected = [theirs.image(shown(data)) for data in files.values()]
    assert smallest_cosine(found.vectors[: len(files)], expected) >= 0.9999
    assert _spread(found.vectors[: len(files)]) < 0.99  # or any vector would do


@pytest.mark.parametrize("of", sorted(SAMPLES), indirect=True)
def test_text_vectors_are_those_of_transformers(of: tuple[Encoder, Reference]) -> None:
    ours, theirs = of
    found = ours.encode_texts([*CAPTIONS, None])
    assert found.reasons == (None,) * len(CAPTIONS) + ("null: no text",)
    assert smallest_cosine(found.vectors[:-1], [theirs.text(caption) for caption in CAPTIONS]) >= 0.9999
    assert _spread(found.vectors[:-1]) < 0.99


@pytest.mark.parametrize("of", ["xclip"], indirect=True)
def test_video_vectors_are_those_of_transformers(of: tuple[Encoder, Reference]) -> None:
    ours, theirs = of
    videos = [[scene(60, 44, seed=9 * video + frame) for frame in range(FRAMES)] for video in range(3)]
    pixels = [theirs.pixels(video)[0] for video in videos]  # (frames, 3, height, width), from -1 to 1
    whole = np.stack([((each + 1) * 127.5).round().permute(0, 2, 3, 1).numpy() for each in pixels]).astype(np.uint8)
    assert smallest_cosine(ours.encode_pixels(whole), [theirs.image(video) for video in videos]) >= 0.9999
    assert _spread(ours.encode_pixels(whole)) < 0.99


@pytest.mark.parametrize("of", sorted(SAMPLES), indirect=True)
def test_scores_are_those_of_transformers(of: tuple[Encoder, Reference]) -> None:
    """The logits that transformers' whole model gives for the same pair, and its documented probabilities."""
    ours, theirs = of
    picture = scene(48, 40, seed=1)
    if theirs.name == "xclip":
        return  # its own logits are conditioned on the video; the reranker gives them
    texts = CAPTIONS[:2]
    image, words = ours.encode_images([picture]).vectors, ours.encode_texts(texts).vectors
    logits = ours.score.logits(image @ words.T)[0]
    expected = np.array([_logit(theirs, picture, text) for text in texts])
    if theirs.name == "blip":
        logits = logits * ours.temperature  # transformers gives the cosine itself
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-3 if theirs.name != "blip" else 1e-4)
    shares = label_probabilities(image, texts, encoder=ours, template="{}")[0]
    if theirs.name == "siglip":
        np.testing.assert_allclose(shares, 1 / (1 + np.exp(-expected)), atol=1e-4)
    else:
        assert shares.sum() == pytest.approx(1)
        assert (shares[0] > shares[1]) == (expected[0] > expected[1])


@torch.inference_mode()
def _logit(theirs: Reference, picture: Image.Image, text: str) -> float:
    inputs: dict[str, Any] = {"pixel_values": theirs.pixels(picture), **theirs.tokens(text)}
    if theirs.name == "blip":
        return float(theirs.model(**inputs, use_itm_head=False).itm_score)
    return float(theirs.model(**inputs).logits_per_image)


@pytest.mark.parametrize("of", sorted(SAMPLES), indirect=True)
def test_vectors_do_not_depend_on_the_batch(of: tuple[Encoder, Reference]) -> None:
    ours, _ = of
    shape = ours.spec.image.shape
    pixels = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    alone = np.concatenate([ours.encode_pixels(each[np.newaxis]) for each in pixels])
    np.testing.assert_allclose(ours.encode_pixels(pixels), alone, atol=1e-5)
    texts = CAPTIONS * 2
    one_by_one = np.concatenate([ours.encode_texts([text]).vectors for text in texts])
    np.testing.assert_allclose(ours.encode_texts(texts).vectors, one_by_one, atol=1e-5)
    assert ours.encode_pixels(pixels[:0]).shape == (0, ours.spec.dim)
    assert len(ours.encode_texts([])) == 0


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_openvino_gives_the_same_vectors_or_gives_way(name: str, checkpoints: dict[str, Path]) -> None:
    graph = load_encoder(checkpoints[name], device="cpu", engine="openvino")
    plain = load_encoder(checkpoints[name], device="cpu", engine="torch")
    pixels = np.random.default_rng(1).integers(0, 256, (3, *plain.spec.image.shape), dtype=np.uint8)
    assert float((graph.encode_pixels(pixels) * plain.encode_pixels(pixels)).sum(axis=1).min()) >= 0.9999


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_one_tower_is_loaded_for_one_kind_of_input(name: str, checkpoints: dict[str, Path]) -> None:
    from lance_align.encoders.two_towers import TowerEncoder

    spec = resolve_spec(checkpoints[name])
    words, pictures = (TowerEncoder(spec, checkpoints[name], device="cpu", engine="torch") for _ in range(2))
    words.encode_texts(["a cat"])
    pictures.encode_pixels(np.zeros((1, *spec.image.shape), np.uint8))
    assert (words.loaded_towers, pictures.loaded_towers) == ({"text"}, {"image"})


def _spread(vectors: np.ndarray) -> float:
    """The largest cosine between two different rows, on average over rows."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    return float(np.median(cosines.max(axis=1)))
