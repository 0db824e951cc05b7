"""Specs of checkpoints that were looked at before, on disk: to import transformers for them takes seconds.

A spec follows from the checkpoint's files and our code alone, which decide its place.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from contextlib import suppress
from pathlib import Path

from lance_align.encoders.engines.store import cache_folder, cache_key
from lance_align.errors import ModelError
from lance_align.spec import ModelSpec

_LIBRARIES = ("torch", "transformers")


def kept_spec(fingerprint: str) -> ModelSpec | None:
    """The spec of a checkpoint that was found whole, without its name; None where there is none."""
    place = _place(fingerprint)
    with suppress(OSError, UnicodeDecodeError, ModelError):
        if place is not None:
            spec = ModelSpec.from_json(place.read_text(encoding="utf-8"))
            return spec if spec.fingerprint == fingerprint else None
    return None


def keep_spec(spec: ModelSpec) -> None:
    """Remember the spec of a checkpoint that was found whole; a cache that cannot be written to costs time alone."""
    place = _place(spec.fingerprint)
    with suppress(OSError):
        if place is not None and not place.is_file():
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = place.with_name(f"{place.name}.{os.getpid()}")
            draft.write_text(dataclasses.replace(spec, name="", revision=None).to_json(), encoding="utf-8")
            draft.replace(place)


@functools.lru_cache(maxsize=64)
def _place(fingerprint: str) -> Path | None:
    key = cache_key(fingerprint, libraries=_LIBRARIES)
    return None if key is None else cache_folder("specs", f"{key}.json")
