"""Rows that leave a table, found by their ids and named by their addresses: ids are anybody's text, never SQL."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from lance.fragment import FragmentMetadata

from lance_align.tables.layout import ID

BATCH_ROWS = 65_536


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What a version without some rows consists of, for `lance.LanceOperation.Update` or ``Delete``.

    Attributes:
        updated: fragments that lose some of their rows, with their new deletion files.
        removed: ids of fragments that lose all.
        rows: how many rows leave.
    """

    updated: tuple[FragmentMetadata, ...] = ()
    removed: tuple[int, ...] = ()
    rows: int = 0


def plan_removal(dataset: Any, ids: pa.StringArray, *, fragments: Sequence[Any] | None = None) -> Removal:
    """Find rows by id and mark them deleted, in files that no version refers to until a removal is committed.

    The id column is read once, in batches.

    Args:
        dataset: a version of a table; a commit on any other has to plan anew.
        ids: those that leave; unknown ones do no harm.
        fragments: of the dataset, where to look; None for all.
    """
    if len(ids) == 0:
        return Removal()
    addresses: dict[int, list[int]] = defaultdict(list)
    scanner = dataset.scanner(columns=[ID], with_row_address=True, batch_size=BATCH_ROWS, fragments=fragments)
    for batch in scanner.to_batches():
        found = batch.column("_rowaddr").filter(pc.is_in(batch.column(ID), value_set=ids))
        for address in found.to_pylist():
            addresses[address >> 32].append(address)  # Lance: fragment id, then 32 bits of the row's place in it
    updated: list[FragmentMetadata] = []
    removed: list[int] = []
    for fragment_id, rows in addresses.items():
        rest = dataset.get_fragment(fragment_id).delete(f"_rowaddr IN ({', '.join(map(str, rows))})")
        if rest is None:
            removed.append(fragment_id)
        else:
            updated.append(rest)
    return Removal(updated=tuple(updated), removed=tuple(removed), rows=sum(map(len, addresses.values())))
