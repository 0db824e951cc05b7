"""The digest of a checkpoint directory: equal digests give equal vectors."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

# What a vector depends on; README, licence and training state are left out.
FINGERPRINTED = (
    "added_tokens.json",
    "config.json",
    "merges.txt",
    "model.safetensors",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)


def fingerprint(directory: Path, *, files: Sequence[str] = FINGERPRINTED) -> str:
    """SHA-256 over the names and contents of the files that decide a vector, as 64 hex digits.

    It does not depend on where the directory lies. A file is read again only when its size, time or inode changes,
    so asking twice is cheap (0.7 GB take about a second the first time).

    Args:
        files: their names, in a fixed order; those that are missing do not count.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for name in files:
        path = directory / name
        if path.is_file():
            state = path.stat()
            content = _file_digest(str(path.resolve()), state.st_size, state.st_mtime_ns, state.st_ino)
            digest.update(f"{name} {content}\n".encode())
    return digest.hexdigest()


@functools.lru_cache(maxsize=256)
def _file_digest(path: str, _size: int, _mtime_ns: int, _inode: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
