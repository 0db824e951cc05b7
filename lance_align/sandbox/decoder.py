"""What is asked of the decoder's process, and what its answers mean."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np

from lance_align import images
from lance_align.errors import ArgumentError, RowError, RowErrorKind
from lance_align.images import DEFAULT_LIMITS, DecodeLimits, Pixels
from lance_align.sandbox.process import Failure, decoder_process
from lance_align.spec import ImageSpec

ATTEMPTS = 2
MIN_MEMORY_MB = 256  # Python, NumPy and Pillow reserve 120 MB before the first image

_KINDS = frozenset(get_args(RowErrorKind))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """One image or video, ready for the model.

    Attributes:
        pixels: uint8 ``ImageSpec.shape``.
        thumbnail: a JPEG, or None when none was asked for.
    """

    pixels: Pixels
    thumbnail: bytes | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """Decodes images, and videos where `image` has frames, in a child of the calling process.

    It holds settings only, so it may be sent anywhere.

    Attributes:
        image: the geometry of the model's input.
        limits: what an image may be.
        thumbnail_px: the longest side of the thumbnail; None for no thumbnail.
        seconds: how long one image may take before its process is killed.
        memory_mb: the child's address space in MiB; what it has in memory is less.

    Raises:
        ArgumentError: `seconds` or `memory_mb` is too small; named as the job's options.
    """

    image: ImageSpec
    limits: DecodeLimits = DEFAULT_LIMITS
    thumbnail_px: int | None = None
    seconds: float = 30.0
    memory_mb: int = 1024

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 0 < self.seconds < float("inf"):
            raise ArgumentError(f"decode_seconds={self.seconds}; expected a number above 0")
        if self.memory_mb < MIN_MEMORY_MB:
            raise ArgumentError(
                f"decode_memory_mb={self.memory_mb}; expected {MIN_MEMORY_MB} or more: the decoder takes 120 by itself"
            )

    def decode(self, data: bytes | bytearray | memoryview) -> Decoded:
        """Decode, squash and crop one image or video; calls of several threads take turns.

        Raises:
            RowError: as `lance_align.visuals.pixels_and_thumbnail`; `crash`, `timeout` or `memory` where two processes
                failed.
            JobError: no process could be started, which is no image's fault.
        """
        images.check_size(data, limits=self.limits)
        failure = Failure("crash", "it was not tried")
        for _ in range(ATTEMPTS):
            try:
                return self._read(*decoder_process.ask(self.to_json(), data, self.seconds, self._most_bytes()))
            except Failure as error:
                failure = error
                decoder_process.end()
        raise RowError(failure.kind, failure.detail)

    def to_json(self) -> bytes:
        """The settings as JSON; `from_json` gives an equal decoder back."""
        return _json(self)

    @classmethod
    def from_json(cls, text: bytes) -> Decoder:
        """Read what `to_json` wrote."""
        raw: dict[str, Any] = json.loads(text)
        image: dict[str, Any] = raw["image"]
        limits: dict[str, Any] = raw["limits"]
        image |= {name: tuple(value) for name, value in image.items() if isinstance(value, list)}
        limits |= {"formats": tuple(limits["formats"])}
        return cls(**{**raw, "image": ImageSpec(**image), "limits": DecodeLimits(**limits)})

    def _most_bytes(self) -> int:
        """Of an answer; a JPEG is smaller than its pixels, but for its tables."""
        return 3 * self.image.pixels + (3 * self.thumbnail_px**2 + 2**16 if self.thumbnail_px else 0)

    def _read(self, answer: Mapping[str, Any], payload: bytearray) -> Decoded:
        """What an answer says. An image may have taken the child over, so nothing is believed unchecked."""
        if "crash" in answer:
            raise Failure("crash", f"the decoder raised {answer['crash']}")
        kind, detail = answer.get("kind"), answer.get("detail")
        if kind == "memory":
            raise Failure("memory", f"it takes more than the {self.memory_mb} MB of decode_memory_mb")
        if kind is not None and kind in _KINDS:
            raise RowError(kind, str(detail))
        size, thumbnail = 3 * self.image.pixels, answer.get("thumbnail")
        length = size + (thumbnail if isinstance(thumbnail, int) else 0)
        if kind is not None or len(payload) != length or (thumbnail is None) != (self.thumbnail_px is None):
            raise Failure("crash", "the decoder's answer makes no sense")
        pixels = np.frombuffer(payload, dtype=np.uint8, count=size).reshape(self.image.shape)
        return Decoded(pixels=pixels, thumbnail=None if thumbnail is None else bytes(payload[size:]))


@functools.lru_cache(maxsize=8)
def _json(decoder: Decoder) -> bytes:
    """Kept, for it is sent with every image: making it takes 90 us, half as long as to decode an icon."""
    return json.dumps(dataclasses.asdict(decoder)).encode()
