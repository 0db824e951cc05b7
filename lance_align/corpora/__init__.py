"""Demo corpora: drawn scenes with their ground truth, the OpenMoji pictures, and both as Parquet on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lance_align.corpora.demo import demo_source as demo_source

__all__ = ["demo_source"]


def __getattr__(name: str) -> Any:
    if name != "demo_source":  # imported at first use: it brings pyarrow, the drawings do not need it
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lance_align.corpora.demo import demo_source

    return demo_source
