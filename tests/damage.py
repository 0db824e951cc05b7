"""Damage done to the files of a table on disk, for tests of what finds it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def data_files(uri: str) -> list[Path]:
    """The data files of all versions of a local table, by name."""
    return sorted(Path(uri, "data").glob("*.lance"))


def place_of(uri: str, wanted: bytes) -> tuple[Path, int]:
    """The file that holds some bytes, and where."""
    for path in data_files(uri):
        at = path.read_bytes().find(wanted)
        if at >= 0:
            return path, at
    raise AssertionError(f"{wanted[:20]!r} is in no data file of {uri}")


def vector_bytes(vector: Sequence[float]) -> bytes:
    """A vector as a data file holds it."""
    return np.asarray(vector, dtype="<f4").tobytes()


def flip(path: Path, at: int, bit: int = 0) -> None:
    """Turn one bit of a file over."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)
