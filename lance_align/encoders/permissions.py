"""Which models may be loaded because table metadata names them.

A model the user names in code or on a command line needs no permission: naming it is the permission.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from lance_align.errors import ModelError
from lance_align.spec import KNOWN_CHECKPOINTS

ENV_ALLOW_MODELS = "LANCE_ALIGN_ALLOW_MODELS"

_allowed: set[str] = set()

# What a table may say beside a name. Anyone can offer a hub repository new weights, which then lie under refs/pr/1; and
# huggingface_hub looks a reference up as a file, so that "../.." would lead out of its cache.
_REVISION = re.compile(r"main|[0-9a-f]{40}")


def allow_models(*names_or_paths: str | Path) -> None:
    """Let tables name these models, for the life of this process.

    The environment variable ``LANCE_ALIGN_ALLOW_MODELS`` does the same for a list separated by ``os.pathsep``.

    Args:
        names_or_paths: hub ids or local directories; a directory stands for itself, not for what lies below it.

    Raises:
        ModelError: a name is empty.

    >>> lance_align.allow_models("openai/clip-vit-base-patch32")
    """
    for name in names_or_paths:
        if not str(name).strip():
            raise ModelError(f"{name!r} is not a model's name; expected a hub id or a directory")
        _allowed.update(_spellings(str(name)))


def is_allowed(name: str, revision: str | None = None) -> bool:
    """Whether table metadata may name this model: a known checkpoint, or one the user allowed.

    Args:
        name: as the table has it.
        revision: none, ``main`` or a commit's 40 hexadecimal digits; no other branch, tag or reference.
    """
    if revision is not None and _REVISION.fullmatch(revision) is None:
        return False
    if name in KNOWN_CHECKPOINTS:
        return True
    from_environment = (entry for entry in os.environ.get(ENV_ALLOW_MODELS, "").split(os.pathsep) if entry.strip())
    allowed = _allowed.union(*map(_spellings, from_environment))
    return not allowed.isdisjoint(_spellings(name))


def _spellings(name: str) -> set[str]:
    """A relative name is a hub id as well as a path below the working directory; an absolute one is a path only."""
    try:
        path = Path(name).expanduser()
        resolved = str(path.resolve())
    except (OSError, ValueError, RuntimeError):  # ~name of nobody here, NUL, a circle of links: no path of this machine
        return {name}
    return {resolved} if path.is_absolute() else {name, resolved}
