"""Zero-shot labels: probabilities from the checkpoint's own temperature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lance_align
from lance_align.benchmarks import weights
from lance_align.encoders import load_encoder
from lance_align.encoders.zero_shot import label_probabilities
from lance_align.errors import ArgumentError
from tests import align_models
from tests.pictures import scene

LABELS = ["red cat", "blue car", "old house at night"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = weights.build_model(align_models.small_config(), seed=3, warm_up=8)
    directory = tmp_path_factory.mktemp("checkpoint")
    return align_models.save_checkpoint(built, directory, preprocessor=align_models.SMALL_PREPROCESSOR)


def test_probabilities_are_transformers_own(model: Path) -> None:
    from transformers import AlignModel, AlignProcessor, AutoTokenizer
    from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil

    pictures = [scene(90, 60, seed=seed) for seed in range(4)]
    processor = AlignProcessor(
        EfficientNetImageProcessorPil.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    )
    inputs = processor(images=pictures, text=[f"a photo of a {label}" for label in LABELS], return_tensors="pt")
    expected = AlignModel.from_pretrained(model).eval()(**inputs).logits_per_image.softmax(1).detach().numpy()

    found = lance_align.zero_shot(pictures, LABELS, model=str(model), device="cpu")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-6)
    assert np.ptp(found, axis=0).max() > 0.05, "the model gives every picture one answer: the test could not fail"


def test_template_and_stored_vectors(model: Path) -> None:
    encoder = load_encoder(str(model), device="cpu")
    pictures = [scene(90, 60, seed=seed) for seed in range(2)]
    direct = lance_align.zero_shot(pictures, LABELS, template="the {} in the {}", model=str(model), device="cpu")
    vectors = encoder.encode_images(pictures).vectors
    sentences = [f"the {label} in the {label}" for label in LABELS]
    stored = label_probabilities(vectors, sentences, encoder=encoder, template="{}")
    np.testing.assert_allclose(direct, stored, atol=1e-5)


def test_pictures_without_a_vector_have_no_probabilities_and_a_reason(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = [None, scene(9, 9, seed=1), b"junk", "https://example.org/cat.jpg"]
    found = lance_align.zero_shot(images, LABELS, model=str(model), device="cpu")
    assert np.isnan(found).all(axis=1).tolist() == [True, False, True, True]
    assert [reason and reason.split(":")[0] for reason in found.reasons] == ["null", None, "format", "fetch"]
    assert found.reasons[3] is not None
    assert "https://example.org/cat.jpg: nothing is fetched here" in found.reasons[3]
    assert "3 of 4 images have no probabilities; the first is image 0: null" in caplog.text
    assert found[1:2].reasons == ()
    assert lance_align.zero_shot([], LABELS, model=str(model), device="cpu").shape == (0, 3)


def test_wrong_labels_are_refused(model: Path) -> None:
    for labels in ([], "cat", ["cat", None], ["cat", "\ud800"]):
        with pytest.raises(ArgumentError, match="label"):
            lance_align.zero_shot([], labels, model=str(model), device="cpu")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"expected a sentence with \{\}"):
        lance_align.zero_shot([], ["cat"], template="a photo", model=str(model))
    encoder = load_encoder(str(model), device="cpu")
    with pytest.raises(ArgumentError, match=r"makes \(n, 32\)"):
        label_probabilities(np.zeros((2, 31), np.float32), ["cat"], encoder=encoder)
