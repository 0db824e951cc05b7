"""What is asked of the decoder's process for a model that takes pixels of one size."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from lance_align import visuals
from lance_align.sandbox.asking import Asking, Decoded, limits_of
from lance_align.spec import ImageSpec


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decoder(Asking):
    """Decodes images to what a model takes, and videos where `image` has frames; see `Asking`.

    Attributes:
        image: the geometry of the model's input.
        thumbnail_px: the longest side of the thumbnail; None for no thumbnail.
    """

    image: ImageSpec
    thumbnail_px: int | None = None

    def to_json(self) -> bytes:
        """The settings as JSON; `from_json` gives an equal decoder back."""
        return _json(self)

    @classmethod
    def from_json(cls, text: bytes) -> Decoder:
        """Read what `to_json` wrote."""
        raw: dict[str, Any] = json.loads(text)
        image: dict[str, Any] = raw["image"]
        image |= {name: tuple(value) for name, value in image.items() if isinstance(value, list)}
        return cls(**{**raw, "image": ImageSpec(**image), "limits": limits_of(raw)})

    def answer(self, data: bytes | bytearray) -> tuple[dict[str, Any], bytes]:
        """See `Asking.answer`."""
        pixels, thumbnail = visuals.pixels_and_thumbnail(
            data, self.image, thumbnail_px=self.thumbnail_px, limits=self.limits
        )
        return {"thumbnail": None if thumbnail is None else len(thumbnail)}, pixels.tobytes() + (thumbnail or b"")

    @property
    def pixel_bytes(self) -> int:
        """See `Asking.pixel_bytes`."""
        return 3 * self.image.pixels

    def _most_bytes(self) -> int:
        """Of an answer; a JPEG is smaller than its pixels, but for its tables."""
        return self.pixel_bytes + (3 * self.thumbnail_px**2 + 2**16 if self.thumbnail_px else 0)

    def _read(self, answer: Mapping[str, Any], payload: bytearray) -> Decoded | None:
        size, thumbnail = self.pixel_bytes, answer.get("thumbnail")
        length = size + (thumbnail if isinstance(thumbnail, int) else 0)
        if len(payload) != length or (thumbnail is None) != (self.thumbnail_px is None):
            return None
        pixels = np.frombuffer(payload, dtype=np.uint8, count=size).reshape(self.image.shape)
        return Decoded(pixels=pixels, thumbnail=None if thumbnail is None else bytes(payload[size:]))


@functools.lru_cache(maxsize=8)
def _json(decoder: Decoder) -> bytes:
    """Kept, for it is sent with every image: making it takes 90 us, half as long as to decode an icon."""
    return json.dumps(dataclasses.asdict(decoder)).encode()
