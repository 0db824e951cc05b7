"""What is asked of the decoder's process for a model that looks at whole pictures."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from lance_align import images
from lance_align.sandbox.asking import Asking, Decoded, limits_of


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PictureDecoder(Asking):
    """Decodes images to whole RGB pictures; see `Asking`.

    Attributes:
        max_side_px: the longest side of what comes back; larger pictures are reduced.
    """

    max_side_px: int

    def to_json(self) -> bytes:
        """The settings as JSON; `from_json` gives an equal decoder back."""
        return _json(self)

    @classmethod
    def from_json(cls, text: bytes) -> PictureDecoder:
        """Read what `to_json` wrote."""
        raw: dict[str, Any] = json.loads(text)
        return cls(**{**raw, "limits": limits_of(raw)})

    def answer(self, data: bytes | bytearray) -> tuple[dict[str, Any], bytes]:
        """See `Asking.answer`."""
        picture = images.picture(data, max_side_px=self.max_side_px, limits=self.limits)
        return {"size": picture.size}, picture.tobytes()

    @property
    def pixel_bytes(self) -> int:
        """See `Asking.pixel_bytes`."""
        return 3 * self.max_side_px**2

    def _most_bytes(self) -> int:
        return self.pixel_bytes

    def _read(self, answer: Mapping[str, Any], payload: bytearray) -> Decoded | None:
        size = answer.get("size")
        if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
            return None
        width, height = size
        if len(payload) != 3 * width * height or max(size) > self.max_side_px:
            return None
        return Decoded(pixels=np.frombuffer(payload, dtype=np.uint8).reshape(height, width, 3), thumbnail=None)


@functools.lru_cache(maxsize=8)
def _json(decoder: PictureDecoder) -> bytes:
    return json.dumps(dataclasses.asdict(decoder)).encode()
