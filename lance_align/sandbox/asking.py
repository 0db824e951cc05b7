"""Asking the decoder's process, whatever for: the checks before, the second attempt, and what failures mean."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, get_args

from lance_align import images
from lance_align.errors import ArgumentError, RowError, RowErrorKind
from lance_align.images import DEFAULT_LIMITS, DecodeLimits, Pixels
from lance_align.sandbox.process import Failure, decoder_process

ATTEMPTS = 2
MIN_MEMORY_MB = 256  # Python, NumPy and Pillow reserve 120 MB before the first image

_KINDS = frozenset(get_args(RowErrorKind))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """One image or video, ready for the model.

    Attributes:
        pixels: uint8: ``ImageSpec.shape``, or ``(height, width, 3)`` of the picture.
        thumbnail: a JPEG, or None when none was asked for.
    """

    pixels: Pixels
    thumbnail: bytes | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asking(ABC):
    """Decodes images in a child of the calling process. It holds settings only, so it may be sent anywhere.

    Attributes:
        limits: what an image may be.
        seconds: how long one image may take before its process is killed.
        memory_mb: the child's address space in MiB; what it has in memory is less.

    Raises:
        ArgumentError: `seconds` or `memory_mb` is too small; named as the job's options.
    """

    limits: DecodeLimits = DEFAULT_LIMITS
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
        """Decode one image; calls of several threads take turns.

        Raises:
            RowError: as `lance_align.images.decode`; `crash`, `timeout` or `memory` where two processes failed.
            JobError: no process could be started, which is no image's fault.
        """
        images.check_size(data, limits=self.limits)
        failure = Failure("crash", "it was not tried")
        for _ in range(ATTEMPTS):
            try:
                answer, payload = decoder_process.ask(self.to_json(), data, self.seconds, self._most_bytes())
                self._check(answer)
                decoded = self._read(answer, payload)
                if decoded is None:
                    raise Failure("crash", "the decoder's answer makes no sense")
                return decoded
            except Failure as error:
                failure = error
                decoder_process.end()
        raise RowError(failure.kind, failure.detail)

    @abstractmethod
    def to_json(self) -> bytes:
        """The settings as JSON."""

    @abstractmethod
    def answer(self, data: bytes | bytearray) -> tuple[dict[str, Any], bytes]:
        """What the child answers: JSON and bytes.

        Raises:
            RowError: as `lance_align.images.decode`.
        """

    @property
    @abstractmethod
    def pixel_bytes(self) -> int:
        """Of one image's pixels, at most."""

    @abstractmethod
    def _most_bytes(self) -> int:
        """Most bytes after the JSON of an answer."""

    @abstractmethod
    def _read(self, answer: Mapping[str, Any], payload: bytearray) -> Decoded | None:
        """What an answer says; None where it makes no sense."""

    def _check(self, answer: Mapping[str, Any]) -> None:
        """Raise what an answer says went wrong. An image may have taken the child over, so nothing is just believed."""
        if "crash" in answer:
            raise Failure("crash", f"the decoder raised {answer['crash']}")
        kind, detail = answer.get("kind"), answer.get("detail")
        if kind == "memory":
            raise Failure("memory", f"it takes more than the {self.memory_mb} MB of decode_memory_mb")
        if kind is not None:
            raise (
                RowError(kind, str(detail))
                if kind in _KINDS
                else Failure("crash", "the decoder's answer makes no sense")
            )


def limits_of(raw: Mapping[str, Any]) -> DecodeLimits:
    """The limits of settings that were JSON."""
    return DecodeLimits(**{**raw["limits"], "formats": tuple(raw["limits"]["formats"])})
