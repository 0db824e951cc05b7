"""What the checks of a row say together: damage, or a row that another program changed and embedded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lance_align.tables.layout import ID
from lance_align.verification.findings import MAX_EXAMPLES, Collector
from lance_align.verification.reading import attempt, row_names
from lance_align.verification.sample import SampleChecks


def judge(
    dataset: Any,
    collector: Collector,
    sample: SampleChecks,
    *,
    suspects: NDArray[np.int64],
    changed: Mapping[int, bool],
) -> None:
    """Turn what was seen of rows into findings.

    A row has another content than was written, and its vector fits that content: somebody gave it both, as LanceDB's
    ``merge_insert`` does. Its old checksum then says nothing. A vector that does not fit, or that differs from the one
    written although the content does not, is no update of that kind.

    Args:
        suspects: positions of rows whose vectors do not have their checksum.
        changed: whether the content of a row is another, of those that were looked at.
    """
    updated = {
        position
        for position, differs in changed.items()
        if differs and position in sample.fitting and position not in sample.misfits
    }
    others = set(suspects.tolist()) - updated
    misfits = [text for position, texts in sample.misfits.items() if position not in others for text in texts]
    collector.add("checksum", _names(dataset, others), count=len(others))
    collector.add("source", [text for texts in sample.broken.values() for text in texts])
    collector.add("different_vector", misfits)
    updated -= set(sample.broken)
    collector.add("changed", _names(dataset, updated), count=len(updated))
    unknown = sum(changed.values()) - len({p for p in changed if changed[p]} & _looked_at(sample))
    if unknown:
        collector.skip(f"{unknown:,} rows of the sample, whose content was changed: whether their vectors fit")


def _looked_at(sample: SampleChecks) -> set[int]:
    return sample.fitting | set(sample.misfits) | set(sample.broken)


def _names(dataset: Any, positions: Iterable[int]) -> list[str]:
    """What the first rows are called."""
    first = sorted(positions)[:MAX_EXAMPLES]
    rows, _ = attempt(dataset.take, first, columns=[ID]) if first and ID in dataset.schema.names else (None, None)
    return row_names(None if rows is None else rows.column(ID), first)
