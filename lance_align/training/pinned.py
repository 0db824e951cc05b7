"""What a run was begun with, kept beside its checkpoint, so that no other run goes on from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lance_align.encoders.checkpoints import read_json
from lance_align.errors import ArgumentError
from lance_align.training.checkpoint import checkpoint_in, writing

RECORD = "run.json"


def pinned(directory: Path) -> dict[str, Any] | None:
    """What the run that a directory holds was begun with, whether it goes on or is finished; None where it holds none.

    Raises:
        ArgumentError: it holds a model or a checkpoint, and nothing says what made them.
        ModelError: the record is damaged.
    """
    if checkpoint_in(directory) is None and not (directory / "model.safetensors").is_file():
        return None
    path = directory / RECORD
    if not path.is_file():
        raise ArgumentError(
            f"{directory} holds a model or a checkpoint, but no record of its run ({RECORD}); train into another "
            "directory"
        )
    return read_json(path)


def pin(directory: Path, terms: Mapping[str, Any]) -> None:
    """Record what a run is begun with; a run that is there must have been begun with the same.

    Args:
        directory: of the run; made if it is missing.
        terms: values that JSON has. Of a mapping with a ``fingerprint``, a model, only that is compared.

    Raises:
        ArgumentError: another run is there; each difference is named. Or as `pinned`.
        ModelError: as `pinned`.
        JobError: the directory cannot be written.
    """
    text = json.dumps(terms, indent=2)
    new: dict[str, Any] = json.loads(text)
    began = pinned(directory)
    if began is not None:
        names = [*new, *(name for name in began if name not in new)]
        unequal = [name for name in names if _compared(began.get(name)) != _compared(new.get(name))]
        if unequal:
            told = "; ".join(f"{name} {_shown(began.get(name))}, not {_shown(new.get(name))}" for name in unequal)
            raise ArgumentError(f"{directory} holds a run on other terms: {told}; train into another directory")
        return
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / RECORD).write_text(text + "\n", encoding="utf-8")


def _compared(value: Any) -> Any:
    return value.get("fingerprint", value) if isinstance(value, dict) else value


def _shown(value: Any) -> str:
    return f"{value.get('name')} ({str(value.get('fingerprint'))[:12]})" if isinstance(value, dict) else str(value)
