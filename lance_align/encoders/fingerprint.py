"""The digest of a checkpoint directory: equal digests give equal vectors."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lance_align.encoders.engines.store import cache_folder

LARGE_BYTES = 2**24  # smaller files are read in milliseconds
_DIGEST = re.compile("[0-9a-f]{64}")

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

    It does not depend on where the directory lies. A file is read again only when its size, times or inode change.
    Large ones are remembered in the cache, so the workers of a job do not read what its driver has read.

    Args:
        files: their names, in a fixed order; those that are missing do not count.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for name in files:
        path = directory / name
        if path.is_file():
            digest.update(f"{name} {_file_digest(str(path.resolve()), _state(path))}\n".encode())
    return digest.hexdigest()


def _state(path: Path) -> str:
    """What changes when a file does; nobody but root sets the time of the last change of its inode (ctime)."""
    state = path.stat()
    return f"{state.st_dev} {state.st_ino} {state.st_size} {state.st_mtime_ns} {state.st_ctime_ns}"


@functools.lru_cache(maxsize=256)
def _file_digest(path: str, state: str) -> str:
    is_large = int(state.split()[2]) >= LARGE_BYTES
    kept = cache_folder("digests", hashlib.sha256(f"{path} {state}".encode()).hexdigest()) if is_large else None
    with suppress(OSError, UnicodeDecodeError):
        if kept is not None and _DIGEST.fullmatch(found := kept.read_text(encoding="ascii")):
            return found
    with Path(path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if kept is not None:
        with suppress(OSError):  # a cache that cannot be written to costs time alone
            kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = kept.with_name(f"{kept.name}.{os.getpid()}")
            draft.write_text(digest, encoding="ascii")
            draft.replace(kept)
    return digest
