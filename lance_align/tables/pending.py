"""Rows in data files that no version of a table has yet: looked into, and some left out, before they are committed."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lance.file import LanceFileReader, LanceFileSession
from lance.fragment import FragmentMetadata
from lance.fragment import write_fragments as lance_write_fragments
from numpy.typing import NDArray

from lance_align.errors import JobError
from lance_align.tables.layout import ERROR, ID
from lance_align.tables.location import join
from lance_align.tables.trace import Trace

BATCH_ROWS = 1024


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """Rows that were left out: how many, and how many of them had which kind of reason."""

    rows: int = 0
    reasons: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __add__(self, other: Dropped) -> Dropped:
        return Dropped(rows=self.rows + other.rows, reasons=Counter(self.reasons) + Counter(other.reasons))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """Uncommitted fragments of one table.

    Attributes:
        uri: the table.
        fragments: Lance's description of them; each was written in one file.
        storage_options: of its object store.
    """

    uri: str
    fragments: tuple[FragmentMetadata, ...]
    storage_options: Mapping[str, str] | None = None

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(int(fragment.num_rows) for fragment in self.fragments)

    @property
    def files(self) -> set[str]:
        """The names of the data files; Lance names each by a random number, so a name stands for its rows."""
        return set(_paths(self.fragments))

    def check_files(self) -> None:
        """Make sure that every data file is there: a version that refers to a missing one cannot be read any more.

        Raises:
            JobError: a file was removed, for example by a clean-up that ran beside the job.
        """
        session = LanceFileSession(join(self.uri, "data"), storage_options=self._options)
        for path in _paths(self.fragments):
            if not session.contains(path):
                raise JobError(
                    f"{path}, written a moment ago, is gone from {self.uri}: was it cleaned up meanwhile? Nothing of "
                    "it was committed; run the same command again to go on"
                )

    def ids(self) -> pa.StringArray:
        """The ids of all rows, in their order."""
        ids: Any = [pa.array([], pa.string())]
        for path in _paths(self.fragments):
            ids += self._read(path, [ID]).column(ID).chunks
        found: pa.StringArray = pa.concat_arrays(ids)
        return found

    def trace(self) -> Trace:
        """What a version that holds these rows leaves behind; read while the files are there for certain."""
        return Trace(frozenset(self.files), self.ids())

    def without(self, ids: pa.StringArray, dataset: Any) -> tuple[Pending, Dropped]:
        """The same rows but for those with one of these ids; see `without_rows`."""
        leaving = pc.is_in(self.ids(), value_set=ids)
        return self.without_rows(np.asarray(leaving.to_numpy(zero_copy_only=False), dtype=np.bool_), dataset)

    def without_rows(self, leaving: NDArray[np.bool_], dataset: Any) -> tuple[Pending, Dropped]:
        """The same rows but for some: fragments that hold one of these are written again, the others stay.

        Args:
            leaving: ``(rows,) bool``, in the order of the fragments and of the rows in each.
            dataset: the table, opened.
        """
        kept: list[FragmentMetadata] = []
        dropped = Dropped()
        start = 0
        for fragment in self.fragments:
            end = start + int(fragment.num_rows)
            here = pa.array(leaving[start:end])
            start = end
            if here.true_count == 0:
                kept.append(fragment)
                continue
            (path,) = _paths([fragment])  # as written: one file holds all its columns
            dropped += _counted(self._read(path, [ERROR]).column(ERROR).filter(here))
            if here.true_count < len(here):
                kept += self._rewritten(path, pc.invert(here), dataset)
        return dataclasses.replace(self, fragments=tuple(kept)), dropped

    def count(self, ids: pa.StringArray) -> Dropped:
        """How many rows have one of these ids, and what their errors are."""
        counted = Dropped()
        for path in _paths(self.fragments):
            rows = self._read(path, [ID, ERROR])
            counted += _counted(rows.column(ERROR).filter(pc.is_in(rows.column(ID), value_set=ids)))
        return counted

    def _rewritten(self, path: str, staying: pa.BooleanArray, dataset: Any) -> list[FragmentMetadata]:
        reader = LanceFileReader(join(join(self.uri, "data"), path), storage_options=self._options)
        batches = reader.read_all(batch_size=BATCH_ROWS).to_batches()
        first = next(batches)

        def filtered() -> Iterator[pa.RecordBatch]:
            start = 0
            for batch in (first, *batches):
                yield batch.filter(staying[start : start + batch.num_rows])
                start += batch.num_rows

        stream = pa.RecordBatchReader.from_batches(first.schema, filtered())
        written: list[FragmentMetadata] = lance_write_fragments(stream, dataset, mode="append")
        return written

    def _read(self, path: str, columns: list[str]) -> pa.Table:
        file = join(join(self.uri, "data"), path)
        rows: pa.Table = LanceFileReader(file, storage_options=self._options, columns=columns).read_all().to_table()
        return rows

    @property
    def _options(self) -> dict[str, str] | None:
        return dict(self.storage_options) if self.storage_options else None


def _counted(errors: pa.ChunkedArray[Any]) -> Dropped:
    texts: list[str | None] = errors.to_pylist()
    return Dropped(rows=len(texts), reasons=Counter(text.split(":", 1)[0] for text in texts if text is not None))


def _paths(fragments: Sequence[FragmentMetadata]) -> list[str]:
    return [str(file.path) for fragment in fragments for file in fragment.files]
