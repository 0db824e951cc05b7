"""A deterministic encoder without a model, for tests of everything that is not the model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lance_align import images as image_door
from lance_align.encoders.base import Embeddings, Encoder, Vectors
from lance_align.errors import RowError
from lance_align.images import ImageInput
from lance_align.spec import ImageSpec, ModelSpec

FAKE_SPEC = ModelSpec(
    name="fake",
    revision=None,
    family="fake",
    dim=32,
    image=ImageSpec(resize=(16, 16), crop=(16, 16)),
    max_tokens=64,
    fingerprint="fake-encoder-version-1",
)


class FakeEncoder(Encoder):
    """An `Encoder` whose vectors are a hash of the pixels or of the text: equal inputs, equal vectors, everywhere.

    Vectors are bit-equal between processes and machines. A text and a picture never match on purpose.
    Load it by name: ``lance_align.load_encoder("fake")``.
    """

    def __init__(self, spec: ModelSpec = FAKE_SPEC, device: str = "cpu") -> None:
        self.spec = spec
        self.device = device

    @property
    def temperature(self) -> float:
        """1.0: the fake has learnt nothing."""
        return 1.0

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> Vectors:
        """See `Encoder.encode_pixels`."""
        return self._vectors([b"image" + image.tobytes() for image in pixels])

    def encode_images(self, images: Sequence[ImageInput | None]) -> Embeddings:
        """See `Encoder.encode_images`."""
        payloads: list[bytes] = []
        reasons: list[str | None] = []
        for image in images:
            try:
                if image is None:
                    raise RowError("null", "no image")
                pixels = image_door.to_pixels(image_door.load(image), self.spec.image)
                payloads.append(b"image" + pixels.tobytes())
                reasons.append(None)
            except RowError as error:
                payloads.append(b"")
                reasons.append(str(error))
        return self._embeddings(payloads, reasons)

    def encode_texts(self, texts: Sequence[str | None]) -> Embeddings:
        """See `Encoder.encode_texts`."""
        reasons: list[str | None] = []
        for text in texts:
            if text is None:
                reasons.append(str(RowError("null", "no text")))
            elif not isinstance(text, str):
                reasons.append(str(RowError("type", f"{type(text).__name__} cannot be a text; expected str")))
            else:
                reasons.append(None)
        payloads = [
            b"text" + str(text).encode("utf-8", "surrogatepass") if reason is None else b""
            for text, reason in zip(texts, reasons, strict=True)
        ]
        return self._embeddings(payloads, reasons)

    def _embeddings(self, payloads: Sequence[bytes], reasons: Sequence[str | None]) -> Embeddings:
        vectors = self._vectors(payloads)
        vectors[[reason is not None for reason in reasons]] = 0.0
        return Embeddings(vectors, tuple(reasons))

    def _vectors(self, payloads: Sequence[bytes]) -> Vectors:
        """One SHAKE-128 digest of `dim` bytes an input, read as signed numbers and normalised."""
        dim = self.spec.dim
        out = np.empty((len(payloads), dim), dtype=np.float32)
        for row, payload in zip(out, payloads, strict=True):
            digest = np.frombuffer(hashlib.shake_128(payload).digest(dim), dtype=np.uint8).astype(np.float32)
            row[:] = digest - 127.5  # never the zero vector: no byte is 127.5
            row /= np.linalg.norm(row)
        return out
