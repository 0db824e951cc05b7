"""Published checkpoints give the numbers of transformers' own slow tests. Run with: pytest -m hub

They are those of ``tests/models/*/test_modeling_*.py`` (``test_inference``, ``test_inference_itm``) of transformers. A
checkpoint that is neither in the Hugging Face cache nor can be fetched is skipped, with the reason.
"""

from __future__ import annotations

import io
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lance_align import load_encoder
from lance_align.describers.checkpoints import resolve_describer
from lance_align.describers.loading import load_describer
from lance_align.encoders import Encoder
from lance_align.encoders.pairs import load_pair_model
from lance_align.errors import ModelError
from lance_align.images import read_pixels

pytestmark = pytest.mark.hub

CATS = "http://images.cocodataset.org/val2017/000000039769.jpg"
BEACH = "https://huggingface.co/hf-internal-testing/blip-test-image/resolve/main/demo.jpg"
ENGLISH = ("a photo of a cat", "a photo of a dog")


def picture(url: str) -> Image.Image:
    """Fetched; whole, for a large JPEG file is decoded smaller than the reference decodes it."""
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 - the two addresses above
            return Image.open(io.BytesIO(answer.read())).convert("RGB")
    except OSError as error:
        pytest.skip(f"{url} cannot be fetched: {error}")


def encoder(name: str) -> Encoder:
    try:
        return load_encoder(name, device="cpu", engine="torch")
    except ModelError as error:
        pytest.skip(f"{name}: {error}")


@pytest.mark.parametrize(
    ("name", "texts", "logits"),
    [
        ("kakaobrain/align-base", ENGLISH, [9.7093, 3.4679]),
        ("openai/clip-vit-base-patch32", ENGLISH, [24.5701, 19.3049]),
        ("google/siglip-base-patch16-224", ("a photo of 2 cats", "a photo of 2 dogs"), [-0.7567, -10.3354]),
        ("nvidia/groupvit-gcc-yfcc", ENGLISH, [13.3523, 6.3629]),
    ],
)
def test_logits_of_the_cats(name: str, texts: tuple[str, str], logits: list[float]) -> None:
    found = encoder(name)
    cosines = found.encode_images([picture(CATS)]).vectors @ found.encode_texts(texts).vectors.T
    np.testing.assert_allclose(found.score.logits(cosines)[0], logits, atol=1e-2)


def test_cosines_of_the_italian_cats() -> None:
    """transformers' test multiplies by e, for the checkpoint holds no scale."""
    found = encoder("clip-italian/clip-italian")
    texts = ["una foto di un gatto", "una foto di un cane"]
    cosines = found.encode_images([picture(CATS)]).vectors @ found.encode_texts(texts).vectors.T
    np.testing.assert_allclose(cosines[0] * np.e, [1.2284727, 0.3104122], atol=1e-2)


def test_blip_on_the_beach() -> None:
    """The cosine, and the probability of a match."""
    found = encoder("Salesforce/blip-itm-base-coco")
    image, text = picture(BEACH), "A woman and her dog sitting in a beach"
    cosine = found.encode_images([image]).vectors @ found.encode_texts([text]).vectors.T
    assert cosine[0, 0] == pytest.approx(0.5162, abs=2e-3)
    matching = load_pair_model("Salesforce/blip-itm-base-coco", part="matcher", device="cpu")
    score = matching.scores(text, read_pixels(image, matching.spec.image)[np.newaxis])
    assert score[0] == pytest.approx(0.9971, abs=2e-3)


def test_xclip_on_spaghetti() -> None:
    """Logits conditioned on eight frames of a video."""
    from huggingface_hub import hf_hub_download

    name = "microsoft/xclip-base-patch32"
    spec = encoder(name).spec
    try:
        path = hf_hub_download(
            "hf-internal-testing/spaghetti-video", "eating_spaghetti_8_frames.npy", repo_type="dataset"
        )
    except OSError as error:
        pytest.skip(f"the frames cannot be fetched: {error}")
    frames = [read_pixels(frame, spec.image) for frame in np.load(Path(path))]
    matching = load_pair_model(name, part="matcher", device="cpu")
    texts = ("playing sports", "eating spaghetti", "go shopping")
    found = [float(matching.scores(text, np.stack(frames)[np.newaxis])[0]) for text in texts]
    np.testing.assert_allclose(found, [14.0181, 20.2771, 14.4776], atol=1e-2)


@pytest.mark.parametrize(
    ("name", "prompt", "text"),
    [
        ("Salesforce/blip-image-captioning-base", None, "a woman sitting on the beach with her dog"),
        ("Salesforce/blip-vqa-base", "how many dogs are in the picture?", "1"),
    ],
)
def test_blips_words_on_the_beach(name: str, prompt: str | None, text: str) -> None:
    try:
        spec = resolve_describer(name, prompt=prompt)
        found = load_describer(spec, device="cpu").describe([picture(BEACH)])
    except ModelError as error:
        pytest.skip(f"{name}: {error}")
    assert (found.texts, found.reasons) == ((text,), (None,))
