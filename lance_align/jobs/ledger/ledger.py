"""Who may write which id: the ids of the table and those of the input, remembered by their hashes.

One id, one row: of the input's rows with one id the first in the input's order is the id's own, the others are
duplicates. Where ids come from a column, a roll call (`rollcall`, beside this) enrols every row before any is claimed,
so that it does not matter which task is first. Ids that are digests of whole rows belong to the first claim: such rows
are equal.

Every id costs 24 bytes: a 128-bit hash and 64 bits of state. With the table's content hashes (`on_changed`) it is 40.
While two runs of ids merge, one column of them is there twice, and each new one has a 64-bit place: 40 and 60 bytes at
most. 10^8 ids of table and input together take 2.4 GB at rest and 4 GB at most (4 and 6 with content hashes), in one
actor; 10^9 on paper ten times as much. Two rows with different ids share a hash with probability n² / 2^129: 10^-21 for
10^9 ids.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lance_align.jobs.ids import Flags, Hashes
from lance_align.jobs.ledger.idset import IdSet, Places, States, first_of_each

# The answers to a claim, and to a comparison.
GRANTED = 0  # the row is to be embedded
THERE = 1  # the table holds it
DUPLICATE = 2  # another row has its id
AGAIN = 3  # the row is to be embedded, and replaces the one in the table
LOOK = 4  # the table holds a row of its id: compare their contents
CHANGED = 5  # the table holds another content, and keeps it

# A state: the owner's position in the input plus one, 0 for an id the input has not shown; above it what is known.
POSITION_BITS = 54
_POSITION = (1 << POSITION_BITS) - 1
_IN_TABLE = 1 << 54  # since before the run
_FAILED = 1 << 55  # in the table, without a vector
_HASHED = 1 << 56  # in the table, with a content hash
_ENROLLED = 1 << 57  # counted by the roll call
_CLAIMED = 1 << 58
_LEARNED = 1 << 59  # another writer added it during the run
_COMPARED = 1 << 60
_CHANGED = 1 << 61  # compared, and different
_ARRIVED = 1 << 62  # in the table by now, or left out of it

SPLIT_BITS = 32  # of a position: the row's number in its split; above them the split's number
MAX_SPLITS = 1 << (POSITION_BITS - SPLIT_BITS)  # 4,194,304

NOTES = 1000  # rows that a report lists
MAX_ID_CHARS = 1000

Answers = NDArray[np.uint8]
Positions = NDArray[np.int64]
OnChanged = Literal["skip", "error", "update"]
Noted = Literal["duplicate", "changed", "unread"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What the ledger has seen so far. Rows read again after a failure count once.

    Attributes:
        read: rows of the source.
        granted: rows that are to be embedded.
        again: those of them that replace one in the table.
        there: rows that the table holds.
        duplicates: rows whose id an earlier row of the input has.
        changed: rows whose id the table holds with another content, which stays.
        read_s: seconds that tasks spent reading.
        decoded, embedded, photographs: rows on their way, for people alone: a task that is run again counts them again.
    """

    read: int = 0
    granted: int = 0
    again: int = 0
    there: int = 0
    duplicates: int = 0
    changed: int = 0
    read_s: float = 0.0
    decoded: int = 0
    embedded: int = 0
    photographs: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(**{name: getattr(self, name) + getattr(other, name) for name in _COUNTS})

    def __sub__(self, other: Tally) -> Tally:
        return Tally(**{name: getattr(self, name) - getattr(other, name) for name in _COUNTS})


_COUNTS = [field.name for field in dataclasses.fields(Tally)]


class Ledger:
    """Grants each id to one row, known by its position: a task that is run again gets the same answers.

    Args:
        retry_errors: rows of the table without a vector are granted again.
        on_changed: what is done about rows whose content is not the table's; ``skip`` does not look.
    """

    def __init__(self, *, retry_errors: bool = False, on_changed: OnChanged = "skip") -> None:
        self._ids = IdSet(contents=on_changed != "skip")
        self._retry_errors = retry_errors
        self._on_changed = on_changed
        self._enrolled: dict[int, tuple[int, int, float]] = {}  # first position: named, unnamed rows, seconds
        self._claims: dict[int, Tally] = {}
        self._called = Tally()  # rows that the roll call counted
        self._total = Tally()  # the other rows, and those that were looked at
        self._notes: dict[Noted, dict[int, str]] = {"duplicate": {}, "changed": {}, "unread": {}}
        self._left_out: dict[int, Mapping[str, int]] = {}
        self._doubled = 0

    def hold(self, hashes: Hashes, *, contents: Hashes | None = None, hashed: Flags | None = None) -> None:
        """Tell ids of the table, before anything else; of equal ones the first counts.

        Args:
            contents: their content hashes, ``(n, 2) uint64``; kept only if they will be compared.
            hashed: which of them have one; None for none.
        """
        fresh = (first_of_each(hashes) == np.arange(len(hashes))) & (self._ids.find(hashes)[:, 0] < 0)
        self._doubled += len(hashes) - int(fresh.sum())
        states = np.full(len(hashes), _IN_TABLE, dtype=np.int64)
        if hashed is not None:
            states[hashed] |= _HASHED
        self._ids.add(hashes[fresh], states[fresh], None if contents is None else contents[fresh])

    def hold_failed(self, hashes: Hashes) -> None:
        """Tell which ids of the table, told before, have no vector."""
        self._mark(hashes, _FAILED)

    def enrol(self, first_position: int, hashes: Hashes, named: Flags, read_s: float) -> Positions:
        """Tell consecutive rows of the source before any row is claimed; told again after a failure they count once.

        Args:
            first_position: of the first row; unique in the source, the same whenever it is read.
            hashes: ``(n, 2)`` of the rows' ids.
            named: ``(n,)``: rows that have one. The others are left to be claimed.
            read_s: seconds it took to read them.

        Returns:
            ``(n,)``: for each row the position that is a duplicate because of it, its own or a later one; -1 for none.
        """
        every = np.full(len(hashes), -1, dtype=np.int64)
        positions, hashes = first_position + np.flatnonzero(named), hashes[named]
        first = first_of_each(hashes)
        places, states = self._look_up(hashes)
        owners = (states & _POSITION) - 1
        owned = owners >= 0
        winners = np.where(owned, np.minimum(owners, positions[first]), positions[first])
        displaced = np.where(owned & (owners > winners), owners, -1)
        every[named] = np.where(positions != winners, positions, displaced)
        self._tell(hashes, places, (states & ~_POSITION) | _ENROLLED | (winners + 1), first)
        self._enrolled[first_position] = (len(positions), len(named) - len(positions), read_s)
        return every

    def end_roll_call(self) -> NDArray[np.int64]:
        """Count what was enrolled.

        Returns:
            The numbers of the splits that hold rows to be claimed; whoever claims the rows of others is told nothing
            new. Ascending.
        """
        counts = np.zeros(5, dtype=np.int64)
        numbers = [np.array([first >> SPLIT_BITS for first, (_, unnamed, _) in self._enrolled.items() if unnamed])]
        for states in self._ids.all_states():
            enrolled = states[states & _ENROLLED != 0]
            answers = self._answers(enrolled)
            counts += np.bincount(answers, minlength=5)
            numbers.append(np.unique(((enrolled[answers != THERE] & _POSITION) - 1) >> SPLIT_BITS))
        rows = sum(named for named, _, _ in self._enrolled.values())
        self._called = Tally(
            read=rows,
            granted=int(counts[GRANTED] + counts[AGAIN]),
            again=int(counts[AGAIN]),
            there=int(counts[THERE]),
            duplicates=rows - int(counts.sum()),
            read_s=sum(read_s for _, _, read_s in self._enrolled.values()),
        )
        return np.unique(np.concatenate(numbers)).astype(np.int64)

    def claim(self, first_position: int, hashes: Hashes, named: Flags, read_s: float) -> Answers:
        """Ask for consecutive rows of the source.

        Args:
            first_position: as in `enrol`.
            hashes: ``(n, 2) uint64`` of the rows' ids.
            named: ``(n,)``: rows whose id is their own and no digest.
            read_s: seconds it took to read them.

        Returns:
            ``(n,) uint8``: `GRANTED`, `AGAIN`, `THERE`, `DUPLICATE`, `LOOK` or, asked again, `CHANGED`.
        """
        positions = np.arange(first_position, first_position + len(hashes), dtype=np.int64)
        first = first_of_each(hashes)
        places, states = self._look_up(hashes)
        owners = (states & _POSITION) - 1
        owners = np.where(owners >= 0, owners, positions[first])
        mine = owners == positions
        claimed = np.zeros(len(hashes), dtype=bool)
        claimed[first[mine]] = True  # of rows with one hash all are told the same
        self._tell(hashes, places, (states & ~_POSITION) | (owners + 1) | np.where(claimed[first], _CLAIMED, 0), first)
        answers = np.where(mine, self._answers(states), DUPLICATE).astype(np.uint8)
        counted = np.where(mine & (states & _COMPARED != 0), LOOK, answers)  # `compare` counts these
        counts = np.bincount(counted[~(named & (states & _ENROLLED != 0))], minlength=6)
        tally = Tally(
            read=int(counts.sum()),
            granted=int(counts[GRANTED] + counts[AGAIN]),
            again=int(counts[AGAIN]),
            there=int(counts[THERE]),
            duplicates=int(counts[DUPLICATE]),
            read_s=read_s,
        )
        self._total += tally - self._claims.get(first_position, Tally())
        self._claims[first_position] = tally
        return answers

    def compare(self, hashes: Hashes, contents: Hashes, readable: Flags) -> Answers:
        """Say what the content is of rows that were to be looked at.

        Args:
            hashes: ``(n, 2)`` of their ids.
            contents: ``(n, 2)`` of their content.
            readable: ``(n,)``: rows whose image could be read; the table's row is not given up for one that is not.

        Returns:
            ``(n,) uint8``: `THERE`, `AGAIN` or `CHANGED`. A row whose content hash the table lacks is `AGAIN`.
        """
        places, states = self._look_up(hashes)
        differs = readable & ((states & _HASHED == 0) | (self._ids.contents(places) != contents).any(axis=1))
        fresh = states & _COMPARED == 0
        states[fresh] |= np.where(differs[fresh], _COMPARED | _CHANGED, _COMPARED)
        self._ids.put(places, states)
        answers = self._answers(states)
        counts = np.bincount(answers[fresh], minlength=6)
        again = int(counts[AGAIN])
        self._total += Tally(granted=again, again=again, there=int(counts[THERE]), changed=int(counts[CHANGED]))
        return answers

    def learn(self, hashes: Hashes) -> Flags:
        """Tell ids that another writer has added meanwhile; rows of theirs that nobody has claimed yet are `THERE`.

        Returns:
            ``(n,) bool``: the ids of rows that this run was granted, which may still arrive at the committer.
        """
        first = first_of_each(hashes)
        places, states = self._look_up(hashes)
        free = states & (_CLAIMED | _IN_TABLE | _LEARNED) == 0
        counted = int((free & (states & _ENROLLED != 0) & (first == np.arange(len(hashes)))).sum())
        self._called += Tally(granted=-counted, there=counted)
        self._tell(hashes, places, np.where(free, states | _LEARNED, states), first)
        coming: Flags = (states & (_CLAIMED | _ARRIVED) == _CLAIMED) & (self._answers(states) != THERE)
        return coming

    def arrive(self, hashes: Hashes) -> None:
        """Tell ids whose rows have come to the table: `learn` names them no more, so what it names stays few."""
        self._mark(hashes, _ARRIVED)

    def arrived(self, hashes: Hashes) -> Flags:
        """Which of these ids `arrive` was told: their rows must not come again."""
        here: Flags = self._look_up(hashes)[1] & _ARRIVED != 0
        return here

    def settled(self) -> int:
        """How many ids `arrive` was told, each counted once."""
        return sum(int((states & _ARRIVED != 0).sum()) for states in self._ids.all_states())

    def missing(self, hashes: Hashes) -> int:
        """How many of these ids have work to do: the table does not hold them, or they are looked at again."""
        first = first_of_each(hashes) == np.arange(len(hashes))
        return int((self._answers(self._look_up(hashes)[1][first]) != THERE).sum())

    def doubled(self) -> int:
        """How many rows of the table have an id that an earlier row of it has."""
        return self._doubled

    def gone(self, hashes: Hashes) -> Flags:
        """Which of these ids the table held when the run began and the input did not show."""
        return _is_gone(self._look_up(hashes)[1])

    def note(self, what: Noted, ids: Mapping[int, str]) -> None:
        """Keep the positions and ids of rows for the report: the first `NOTES` in the input's order.

        Of splits that cannot be read, ``unread``: the position of the first row, and why.
        """
        notes = self._notes[what]
        notes.update({position: text[:MAX_ID_CHARS] for position, text in ids.items()})
        if len(notes) > 2 * NOTES:
            self._notes[what] = dict(self.notes(what))

    def notes(self, what: Noted) -> list[tuple[int, str]]:
        """Positions and ids of noted rows, at most `NOTES`, in the input's order."""
        return sorted(self._notes[what].items())[:NOTES]

    def leave_out(self, first_position: int, counts: Mapping[str, int]) -> None:
        """Tell what stands among rows of the source and is left out, by kind; told again it counts once.

        Args:
            first_position: of the rows; as in `enrol`.
        """
        self._left_out[first_position] = counts

    def left_out(self) -> dict[str, int]:
        """The sums of what was left out, by kind."""
        return dict(sum(map(Counter, self._left_out.values()), Counter()))

    def advance(self, **counts: int) -> None:
        """Tell how far rows have come since the last call: `decoded`, `embedded` and `photographs` of `Tally`."""
        self._total += Tally(**counts)

    def tally(self) -> Tally:
        """The sums over all rows."""
        return self._called + self._total

    def _look_up(self, hashes: Hashes) -> tuple[Places, States]:
        places = self._ids.find(hashes)
        return places, self._ids.states(places)

    def _tell(self, hashes: Hashes, places: Places, states: States, first: Positions) -> None:
        """Store new states; hashes that are equal, told by `first_of_each`, have one state."""
        known = places[:, 0] >= 0
        self._ids.put(places[known], states[known])
        fresh = ~known & (first == np.arange(len(hashes)))
        self._ids.add(hashes[fresh], states[fresh])

    def _mark(self, hashes: Hashes, flag: int) -> None:
        places, states = self._look_up(hashes)
        known = places[:, 0] >= 0
        self._ids.put(places[known], states[known] | flag)

    def _answers(self, states: States) -> Answers:
        """What is done about an id, for the row that owns it."""
        answers = np.full(len(states), GRANTED, dtype=np.uint8)
        answers[states & (_IN_TABLE | _LEARNED) != 0] = THERE
        in_table = states & _IN_TABLE != 0
        if self._on_changed != "skip":
            hashed = states & _HASHED != 0 if self._on_changed == "error" else True
            answers[in_table & hashed & (states & _COMPARED == 0)] = LOOK
            answers[states & _CHANGED != 0] = AGAIN if self._on_changed == "update" else CHANGED
        if self._retry_errors:
            answers[in_table & (states & _FAILED != 0)] = AGAIN
        return answers


def _is_gone(states: States) -> Flags:
    gone: Flags = (states & (_IN_TABLE | _POSITION)) == _IN_TABLE
    return gone
