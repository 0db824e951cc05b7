"""What a version leaves behind in every later one, and what a table that was rolled back or replaced lacks.

A version's transaction says what another writer did, until a clean-up of old versions removes it. What stays then are
the rows. Compaction gives them to other data files, and a delete takes some away; but a table that was restored to an
older version, overwritten, or made anew has none of the newest. One row is therefore proof enough, and no row is
treated as a loss: nobody can tell it from a delete of exactly these rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lance_align.tables.layout import ID

BATCH_ROWS = 65_536


@dataclasses.dataclass(frozen=True, slots=True)
class Trace:
    """Rows that were the newest of a version.

    Attributes:
        files: data files that hold some of them; Lance names each by a random number, so a name stands for its rows.
        ids: of the rows; none where the version had none, and then every version follows it.
    """

    files: frozenset[str]
    ids: pa.StringArray

    @classmethod
    def of(cls, dataset: Any) -> Trace:
        """The trace of a version: rows of its newest fragment, at most `BATCH_ROWS`."""
        newest = max(dataset.get_fragments(), key=lambda fragment: int(fragment.fragment_id), default=None)
        if newest is None:
            return cls.by_ids(pa.array([], pa.string()))
        batch = next(iter(_ids(dataset, newest)), None)
        return cls(_files(newest), pa.array([], pa.string()) if batch is None else batch)

    @classmethod
    def by_ids(cls, ids: pa.StringArray) -> Trace:
        """The trace of rows whose files are not known."""
        return cls(frozenset(), ids)

    def found(self, dataset: Any) -> Trace | None:
        """The same rows in another version, as far as they are there; None where not one of them is.

        Only where the files are gone ids are read, newest fragments first.
        """
        fragments = sorted(dataset.get_fragments(), key=lambda fragment: int(fragment.fragment_id), reverse=True)
        if not len(self.ids) or any(self.files & _files(fragment) for fragment in fragments):
            return self
        for fragment in fragments:
            if any(pc.any(pc.is_in(ids, value_set=self.ids)).as_py() for ids in _ids(dataset, fragment)):
                return dataclasses.replace(self, files=_files(fragment))
        return None


def _ids(dataset: Any, fragment: Any) -> Iterable[pa.StringArray]:
    scanner = dataset.scanner(columns=[ID], fragments=[fragment], batch_size=BATCH_ROWS)
    return (batch.column(ID) for batch in scanner.to_batches())


def _files(fragment: Any) -> frozenset[str]:
    return frozenset(str(file.path) for file in fragment.metadata.files)
