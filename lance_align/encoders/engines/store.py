"""Where compiled towers are kept between processes: a folder of the user's cache."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

VARIABLE = "LANCE_ALIGN_CACHE"

_told: set[Path] = set()


def cache_folder(*names: str) -> Path | None:
    """A folder in what the environment variable LANCE_ALIGN_CACHE names, else in XDG_CACHE_HOME or ~/.cache.

    Args:
        names: of the folder, from the outermost.

    Returns:
        None where nothing is to be kept: the variable is there and empty, or the user has no home.
    """
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named, *names) if named else None
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "lance_align", *names)
    except RuntimeError:  # of Path.home: a container's user without a name, and no HOME
        return None


def cache_key(*parts: str, libraries: Sequence[str]) -> str | None:
    """What something in the cache is made from, as a digest: made anew where any of it, or the encoders' code, changes.

    Args:
        parts: of the data.
        libraries: whose releases count.

    Returns:
        None where a library is not installed.
    """
    try:
        releases = [f"{name} {version(name)}" for name in libraries]
    except PackageNotFoundError:
        return None
    return hashlib.sha256("\n".join((*parts, *releases, _code())).encode()).hexdigest()


@functools.cache
def _code() -> str:
    """Digest of all code of the encoders, which is read in milliseconds, and imported in seconds."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Put a folder into the cache: it is written beside its place, and moved there whole.

    Where that cannot be, a RuntimeWarning says so, once a process and place.

    Args:
        folder: its place; what stands there is replaced.
        write: fills the empty folder that it is given; OSError and RuntimeError are expected.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as drafts:
            draft = Path(drafts, "new")
            draft.mkdir()
            write(draft)
            if folder.exists():  # a damaged one, or one that another process has made meanwhile
                folder.rename(Path(drafts, "old"))
            with suppress(OSError):  # another process was faster
                draft.rename(folder)
    except (OSError, RuntimeError) as error:
        if folder.parent in _told:
            return
        _told.add(folder.parent)
        warnings.warn(
            f"the compiled image tower cannot be kept in {folder.parent} ({error}), so each process compiles it anew; "
            f"name a folder that can be written to in {VARIABLE}, or set it to nothing",
            RuntimeWarning,
            stacklevel=2,
        )
