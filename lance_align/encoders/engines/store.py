"""Where compiled towers are kept between processes: a folder of the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "LANCE_ALIGN_CACHE"


def cache_folder(*names: str) -> Path | None:
    """A folder in what the environment variable LANCE_ALIGN_CACHE names, else in XDG_CACHE_HOME or ~/.cache.

    Args:
        names: of the folder, from the outermost.

    Returns:
        None where nothing is to be kept: the variable is there and empty.
    """
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named, *names) if named else None
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "lance_align", *names)
