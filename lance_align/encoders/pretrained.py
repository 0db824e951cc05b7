"""transformers' own way to load a model, for those whose modules bear other names than the tensors of their file."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lance_align.errors import LanceAlignError, ModelError


def load_pretrained(
    kind: Any, directory: Path, *, dtype: Any, name: str | None = None, **options: Any
) -> tuple[Any, Mapping[str, Any]]:
    """A model from safetensors on this machine, and what transformers says of its tensors.

    Args:
        kind: a class of transformers' models.
        directory: the checkpoint, in one file or in shards.
        dtype: what its floats become.
        name: of the class in errors; None for its own.
        options: more arguments of ``from_pretrained``.

    Returns:
        the model, and transformers' ``missing_keys``, ``mismatched_keys``, ``unexpected_keys`` and ``error_msgs``, of
        which nothing is refused here.

    Raises:
        ModelError: the files cannot be read as such a model.
    """
    try:
        with quietly():
            model, seen = kind.from_pretrained(
                directory,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # told with the others; transformers would say only that some are
                output_loading_info=True,
                **options,
            )
    except LanceAlignError:
        raise
    except Exception as error:  # safetensors, JSON and transformers' own, changing, exception classes
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{directory} cannot be loaded as {name or kind.__name__} ({reason})") from error
    return model, seen


@contextmanager
def quietly() -> Iterator[None]:
    """Keep transformers' progress bars and its report of keys, a page long, from the terminal: errors say it."""
    bars: Any = importlib.import_module("transformers.utils.logging")  # not annotated
    logger = logging.getLogger("transformers.modeling_utils")

    def wanted(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)
        if shown:
            bars.enable_progress_bar()
