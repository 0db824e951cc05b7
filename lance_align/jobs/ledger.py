"""Who may write which id: the ids of the table and those claimed in this run, remembered by their hashes.

Every id costs 24 bytes (a 128-bit hash and the 64-bit position of the row that claimed it), twice that while two runs
merge: 10^8 ids take 2.4 GB at rest and 4.8 GB at most, in one actor, wherever the input has them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from lance_align.jobs.ids import Hashes, id_hashes

GRANTED, THERE, DUPLICATE = 0, 1, 2  # the answers to a claim
IN_TABLE = -1  # the position of ids that the table holds already

Positions = NDArray[np.int64]
Answers = NDArray[np.uint8]


class IdSet:
    """128-bit hashes, each with the position of its owner, in sorted runs that merge as they grow."""

    def __init__(self) -> None:
        self._runs: list[tuple[Hashes, Positions]] = []

    def __len__(self) -> int:
        return sum(len(owners) for _, owners in self._runs)

    def owners(self, hashes: Hashes) -> tuple[NDArray[np.bool_], Positions]:
        """Which hashes are known, and the owners of those."""
        known = np.zeros(len(hashes), dtype=bool)
        owners = np.zeros(len(hashes), dtype=np.int64)
        for keys, positions in self._runs:
            at = _find(keys, hashes)
            found = at >= 0
            known |= found
            owners[found] = positions[at[found]]
        return known, owners

    def add(self, hashes: Hashes, owners: Positions) -> None:
        """Add hashes that are not known yet, each once."""
        if len(hashes) == 0:
            return
        self._runs.append(_sorted(hashes, owners))
        while len(self._runs) > 1 and len(self._runs[-1][1]) * 2 > len(self._runs[-2][1]):
            (left, left_owners), (right, right_owners) = self._runs[-2:]
            merged = _sorted(np.concatenate([left, right]), np.concatenate([left_owners, right_owners]))
            self._runs[-2:] = [merged]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What the ledger has seen so far. Rows read again after a failure count once.

    Attributes:
        read: rows read from the source.
        granted: rows that someone was told to embed.
        there: rows whose id the table held when the run began.
        duplicates: rows whose id another row of this input claimed first.
        read_s: seconds that tasks spent reading.
    """

    read: int = 0
    granted: int = 0
    there: int = 0
    duplicates: int = 0
    read_s: float = 0.0


class Ledger:
    """Grants each id to one row, known by its position: a task that is run again is granted the same rows."""

    def __init__(self, done: Iterable[list[str]] = ()) -> None:
        self._ids = IdSet()
        self._tallies: dict[int, Tally] = {}
        for ids in done:
            hashes = np.unique(id_hashes(ids), axis=0)
            known, _ = self._ids.owners(hashes)
            self._ids.add(hashes[~known], np.full(int((~known).sum()), IN_TABLE, dtype=np.int64))

    def claim(self, first_position: int, hashes: Hashes, read_s: float) -> Answers:
        """Ask for consecutive rows of the source.

        Args:
            first_position: the position of the first row; unique in the source, the same whenever it is read.
            hashes: ``(n, 2) uint64`` of the rows' ids.
            read_s: the seconds it took to read them.

        Returns:
            ``(n,) uint8`` of `GRANTED`, `THERE` or `DUPLICATE`. The first claim of an id wins.
        """
        positions = np.arange(first_position, first_position + len(hashes), dtype=np.int64)
        known, owners = self._ids.owners(hashes)
        _, first = np.unique(hashes, axis=0, return_index=True)
        is_first = np.zeros(len(hashes), dtype=bool)
        is_first[first] = True
        fresh = ~known & is_first
        self._ids.add(hashes[fresh], positions[fresh])
        answers = np.full(len(hashes), DUPLICATE, dtype=np.uint8)
        answers[fresh | (known & (owners == positions))] = GRANTED
        answers[known & (owners == IN_TABLE)] = THERE
        counts = np.bincount(answers, minlength=3)
        self._tallies[first_position] = Tally(
            read=len(hashes), granted=int(counts[0]), there=int(counts[1]), duplicates=int(counts[2]), read_s=read_s
        )
        return answers

    def tally(self) -> Tally:
        """The sums over all claims."""
        tallies = self._tallies.values()
        return Tally(
            read=sum(tally.read for tally in tallies),
            granted=sum(tally.granted for tally in tallies),
            there=sum(tally.there for tally in tallies),
            duplicates=sum(tally.duplicates for tally in tallies),
            read_s=sum(tally.read_s for tally in tallies),
        )


def _sorted(hashes: Hashes, owners: Positions) -> tuple[Hashes, Positions]:
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))
    return hashes[order], owners[order]


def _find(keys: Hashes, wanted: Hashes) -> NDArray[np.int64]:
    """The index of each wanted hash in sorted keys, -1 where it is not."""
    at = np.searchsorted(keys[:, 0], wanted[:, 0], side="left")
    found = np.full(len(wanted), -1, dtype=np.int64)
    open_ones = np.arange(len(wanted))
    while len(open_ones):  # once, but for hashes that share their first half: one more turn each
        here = at[open_ones]
        inside = here < len(keys)
        open_ones, here = open_ones[inside], here[inside]
        same_half = keys[here, 0] == wanted[open_ones, 0]
        open_ones, here = open_ones[same_half], here[same_half]
        same = keys[here, 1] == wanted[open_ones, 1]
        found[open_ones[same]] = here[same]
        open_ones = open_ones[~same]
        at[open_ones] += 1
    return found
