"""Rounds of commits: receipts are gathered, and every so many rows or seconds they become a version of the table."""

from __future__ import annotations

import time

import numpy as np

from lance_align import faults
from lance_align.jobs.attempts import attempts
from lance_align.jobs.gathering import Gathering
from lance_align.jobs.ids import Flags, Hashes
from lance_align.jobs.ledger.idset import first_of_each
from lance_align.jobs.ledger.registry import IdRegistry
from lance_align.jobs.receipts import Receipt, unpacked
from lance_align.tables.commits import Committer, Landed


class Rounds(Gathering):
    """Gathers receipts and makes a version of the table every so many rows or seconds.

    Args:
        committer: of the table.
        commit_rows: rows after which a round ends.
        commit_seconds: seconds after which it ends, with or without another receipt.
    """

    def __init__(self, committer: Committer, *, commit_rows: int, commit_seconds: float) -> None:
        super().__init__(commit_rows=commit_rows, commit_seconds=commit_seconds)
        self._committer = committer
        self._registry: IdRegistry | None = None
        self._pending: list[Receipt] = []
        self._round_began = time.monotonic()
        self.rows = 0  # written, committed or not
        self.dropped = 0  # another writer had added their ids meanwhile

    def use(self, registry: IdRegistry) -> None:
        """Ask a registry before each commit which ids may come, and tell it those that have come."""
        self._registry = registry

    @property
    def version(self) -> int:
        """The table's version after the last round."""
        return self._committer.version

    def add(self, receipt: Receipt) -> None:
        """Take a receipt, and end the round if it is time.

        Raises:
            LanceAlignError, OSError: a commit failed; the round's rows are not in the table.
        """
        with self._adding():
            self._pending.append(receipt)
            self.rows += receipt.rows
            self.halved += receipt.halved
            self._see(receipt.choices)
            self.reasons.update(receipt.reasons)
            self._spend(decode=receipt.decode_s, encode=receipt.encode_s, write=receipt.write_s)
            if sum(pending.rows for pending in self._pending) >= self._commit_rows or self._time_is_over():
                self._commit_all()

    def _time_is_over(self) -> bool:
        return time.monotonic() - self._round_began >= self._commit_seconds

    def _commit_all(self) -> None:
        if self._pending:
            started = time.perf_counter()
            with self._committing():
                repeated = self._repeated()
                landed = attempts(lambda: self._land(repeated))
            faults.reach("after_commit", rows=landed.rows)
            if self._registry is not None:
                self._registry.arrive(self._hashes())
            self._pending = []
            self._count(landed)
            self._spend(commit=time.perf_counter() - started)
        self._round_began = time.monotonic()

    def _hashes(self) -> Hashes:
        return np.concatenate([unpacked(receipt.hashes) for receipt in self._pending])

    def _repeated(self) -> Flags | None:
        """Which of the rows that wait have come before: in an earlier commit batch, or in this one."""
        if self._registry is None:
            return None
        hashes = self._hashes()
        repeated: Flags = self._registry.arrived(hashes) | (first_of_each(hashes) != np.arange(len(hashes)))
        return repeated

    def _land(self, repeated: Flags | None) -> Landed:
        """One commit of all that waits; what has landed already does not land again."""
        fragments = [fragment for receipt in self._pending for fragment in receipt.fragments]
        rows = sum(receipt.rows for receipt in self._pending)
        replacing = [name for receipt in self._pending for name in receipt.replacing]
        faults.reach("before_commit", rows=rows)
        learn = None if self._registry is None else self._registry.learn
        return self._committer.commit(fragments, rows=rows, replacing=replacing, learn=learn, repeated=repeated)

    def _count(self, landed: Landed) -> None:
        self.committed += landed.rows
        self.dropped += landed.dropped.rows
        left_out = landed.dropped + landed.repeated
        self.rows -= left_out.rows
        self.reasons.subtract(left_out.reasons)
        self.reasons = +self.reasons
        self.commits += landed.rows > 0
