"""Every row of a table: its id, its vectors, its reason and its checksum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lance_align.tables.checksums import vector_block, vector_checksums
from lance_align.tables.metadata import error_column
from lance_align.tables.schema import ERROR, ID, TEXT_VECTOR, VECTOR, VECTOR_CRC32
from lance_align.verification.findings import Collector
from lance_align.verification.reading import read_fragment

NORM_TOLERANCE = 1e-3
MAX_DUPLICATE_HASHES = 1000  # ids read again to tell equal ids from equal hashes

Flags = NDArray[np.bool_]


class RowChecks:
    """Reads the small columns of every fragment once.

    Ids are remembered as 64-bit hashes, 8 bytes a row; ids whose hashes are equal are read again and compared.

    Attributes:
        vectors: vectors seen.
        failed: rows with a reason.
        checksummed: rows whose checksum was compared.
        embedded: positions of some rows with a vector, drawn at random, in scan order: at most `sample_rows`.
        suspects: positions of rows that have another checksum, 8 bytes each.
    """

    def __init__(
        self, dataset: Any, vectors: Sequence[str], collector: Collector, *, sample_rows: int, seed: int
    ) -> None:
        self.vectors = self.failed = self.checksummed = 0
        self.embedded: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self.suspects: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._priorities: NDArray[np.float64] = np.zeros(0)
        self._sample_rows = sample_rows
        self._seed = seed
        self._random = np.random.default_rng(seed)
        self._dataset = dataset
        self._collector = collector
        self._groups = _by_reason(dataset.schema, vectors)
        self._checksummed = _checksummed(dataset.schema, self._groups)
        self._id = ID if ID in dataset.schema.names else None
        # Only tables that the embed job made promise distinct ids; they have a checksum column too.
        self._unique = self._id is not None and VECTOR_CRC32 in dataset.schema.names
        self._hashes: list[NDArray[np.int64]] = []
        self._note_gaps()

    @property
    def suspects_sampled(self) -> NDArray[np.int64]:
        """Some of the `suspects`, at most `sample_rows`, drawn at random."""
        number = min(self._sample_rows, len(self.suspects))
        return np.sort(np.random.default_rng(self._seed).choice(self.suspects, number, replace=False))

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        reasons = [name for name in self._groups if name is not None]
        vectors = [name for group in self._groups.values() for name in group]
        checksums = [VECTOR_CRC32] if self._checksummed else []
        return [*([self._id] if self._id else []), *vectors, *reasons, *checksums]

    def run(self) -> None:
        """Read all fragments."""
        position = 0
        for fragment in self._dataset.get_fragments():
            rows = 0
            for batch in read_fragment(fragment, self.columns, self._collector):
                self._check(batch, position + rows)
                rows += batch.num_rows
            position += int(fragment.metadata.num_rows)
        self._check_duplicates()

    def _note_gaps(self) -> None:
        if not self._unique:
            self._collector.skip("that ids are distinct: the table was not made by lance_align.embed")
        if not self._checksummed:
            self._collector.skip(f"checksums of the vectors: no column {VECTOR_CRC32!r} is about those that are there")
        for vector in self._groups.get(None, ()):
            self._collector.skip(f"reasons of null vectors in {vector}: there is no column for them")

    def _check(self, batch: pa.RecordBatch, position: int) -> None:
        names = _Names(batch, self._id, position)
        if self._unique:
            self._check_ids(batch.column(ID), names)
        seen: Flags = np.zeros(batch.num_rows, dtype=bool)
        for reason, group in self._groups.items():
            valid = [self._check_vectors(batch.column(vector), names) for vector in group]
            seen |= np.any(valid, axis=0)
            if reason is not None:
                self._check_reasons(batch.column(reason), np.all(valid, axis=0), names)
        self._check_checksums(batch, position)
        self._draw(np.flatnonzero(seen) + position)

    def _check_ids(self, column: Any, names: _Names) -> None:
        self._collector.add("null_id", names.where(_flags(column.is_null())))
        self._hashes.append(_hashes(column))

    def _check_vectors(self, column: Any, names: _Names) -> Flags:
        block, valid = vector_block(column)
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.sqrt(np.einsum("ij,ij->i", block, block, dtype=np.float64))
        finite = np.isfinite(norms)
        self.vectors += int(valid.sum())
        self._collector.add("not_finite", names.where(valid & ~finite))
        self._collector.add("norm", names.where(valid & finite & ~(np.abs(norms - 1) <= NORM_TOLERANCE)))
        return valid

    def _check_reasons(self, column: Any, complete: Flags, names: _Names) -> None:
        failed = _flags(column.is_valid())
        self.failed += int(failed.sum())
        self._collector.add("no_reason", names.where(~complete & ~failed))
        self._collector.add("stray_reason", names.where(complete & failed))

    def _check_checksums(self, batch: pa.RecordBatch, position: int) -> None:
        if not self._checksummed:
            return
        stored: Any = batch.column(VECTOR_CRC32)
        known = _flags(stored.is_valid())
        found = vector_checksums([batch.column(name) for name in self._checksummed])
        equal = np.asarray(found.fill_null(0)) == np.asarray(stored.fill_null(0))
        equal &= _flags(found.is_valid())
        self.checksummed += int(known.sum())
        self.suspects = np.concatenate([self.suspects, np.flatnonzero(known & ~equal) + position])

    def _draw(self, positions: NDArray[np.int64]) -> None:
        """Keep the positions with the lowest random numbers: a uniform sample of a stream."""
        priorities = np.concatenate([self._priorities, self._random.random(len(positions))])
        candidates = np.concatenate([self.embedded, positions])
        best = np.argsort(priorities, kind="stable")[: self._sample_rows]
        best = best[np.argsort(candidates[best])]
        self._priorities, self.embedded = priorities[best], candidates[best]

    def _check_duplicates(self) -> None:
        hashes = np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *self._hashes]))
        self._hashes = []
        again = hashes[1:][hashes[1:] == hashes[:-1]]
        if not len(again):
            return
        wanted = np.unique(again)[:MAX_DUPLICATE_HASHES]
        counts: Counter[Any] = Counter()
        for fragment in self._dataset.get_fragments():
            for batch in read_fragment(fragment, [ID], Collector()):  # what cannot be read was found before
                column = batch.column(ID).drop_null()
                counts.update(column.filter(pa.array(np.isin(_hashes(column), wanted))).to_pylist())
        several = {str(name): count for name, count in counts.items() if count > 1}
        # Beyond what was read again, equal hashes stand for equal ids: one error in 2^64 pairs.
        rest = len(again) - int(np.isin(again, wanted).sum())
        self._collector.add("duplicate_id", several, count=sum(several.values()) - len(several) + rest)


class _Names:
    """What a row of a batch is called in a finding: its id, or its place."""

    def __init__(self, batch: pa.RecordBatch, id_column: str | None, position: int) -> None:
        self._ids = None if id_column is None else batch.column(id_column)
        self._position = position

    def where(self, flags: Flags) -> list[str]:
        """The rows that are flagged."""
        return [self._name(int(index)) for index in np.flatnonzero(flags)]

    def _name(self, index: int) -> str:
        name = None if self._ids is None else self._ids[index].as_py()
        return f"row {self._position + index}" if name is None else str(name)


def _by_reason(schema: pa.Schema, vectors: Sequence[str]) -> dict[str | None, tuple[str, ...]]:
    """Vector columns by the column that says why one is null."""
    groups: dict[str | None, tuple[str, ...]] = {}
    for vector in vectors:
        reason = error_column(schema, vector)
        groups[reason] = (*groups.get(reason, ()), vector)
    return groups


def _checksummed(schema: pa.Schema, groups: Mapping[str | None, Sequence[str]]) -> tuple[str, ...]:
    """The vectors that the checksum covers, in its order; vectors that were attached later have other error columns."""
    if VECTOR_CRC32 not in schema.names or schema.field(VECTOR_CRC32).type != pa.uint32():
        return ()
    found = tuple(name for name in (VECTOR, TEXT_VECTOR) if name in groups.get(ERROR, ()))
    return found if VECTOR in found else ()  # one that is gone went into the checksum too


def _hashes(column: Any) -> NDArray[np.int64]:
    """A 64-bit number for each id, equal for equal ids; nulls are left out. Python seeds it anew in each process."""
    return np.fromiter(map(hash, column.drop_null().to_pylist()), dtype=np.int64)


def _flags(column: Any) -> Flags:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=bool)
