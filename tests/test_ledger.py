"""The ledger: the first row of the input with an id is the id's own, in whatever order tasks ask, and ask again."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lance_align.jobs.ids import id_hashes
from lance_align.jobs.ledger.idset import IdSet, first_of_each
from lance_align.jobs.ledger.ledger import (
    AGAIN,
    CHANGED,
    DUPLICATE,
    GRANTED,
    LOOK,
    NOTES,
    SPLIT_BITS,
    THERE,
    Ledger,
    OnChanged,
    Tally,
)

ANSWERS = {GRANTED, AGAIN, THERE, DUPLICATE, CHANGED}


@dataclasses.dataclass(frozen=True)
class Held:
    """A row of the table: whether it failed, and its content or None for no hash."""

    failed: bool
    content: int | None


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the input: its id or None for a digest, its content, whether its image can be read."""

    name: str | None
    content: int
    readable: bool

    @property
    def known_as(self) -> str:
        return self.name if self.name is not None else f"digest {self.content}"


names = st.sampled_from("abcdefgh")
inputs = st.lists(
    st.lists(st.builds(Row, st.none() | names, st.integers(0, 2), st.booleans()), max_size=6), min_size=1, max_size=6
)
tables = st.dictionaries(
    names | st.sampled_from(["digest 0", "digest 1", "gone"]),
    st.builds(Held, st.booleans(), st.none() | st.integers(0, 2)),
)


def hashes_of(contents: list[int]) -> Any:
    return np.array([[content + 1, 7] for content in contents], dtype=np.uint64).reshape(-1, 2)


def filled(table: dict[str, Held], *, retry_errors: bool, on_changed: OnChanged) -> Ledger:
    ledger = Ledger(retry_errors=retry_errors, on_changed=on_changed)
    ledger.hold(
        id_hashes(list(table)),
        contents=hashes_of([held.content or 0 for held in table.values()]),
        hashed=np.array([held.content is not None for held in table.values()], dtype=bool),
    )
    ledger.hold_failed(id_hashes([name for name, held in table.items() if held.failed]))
    return ledger


def named(rows: list[Row]) -> Any:
    return np.array([row.name is not None for row in rows], dtype=bool)


def enrol(ledger: Ledger, number: int, rows: list[Row]) -> None:
    position = number << SPLIT_BITS
    losers = ledger.enrol(position, id_hashes([row.name or "" for row in rows]), named(rows), 0.0)
    ledger.note("duplicate", {int(at): rows[row].known_as for row, at in enumerate(losers) if at >= 0})


def claim(ledger: Ledger, number: int, rows: list[Row]) -> list[int]:
    """As `Reader.rows` does."""
    hashes = id_hashes([row.known_as for row in rows])
    answers = ledger.claim(number << SPLIT_BITS, hashes, named(rows), 0.0).copy()
    looked_at = answers == LOOK
    contents = hashes_of([row.content for row in rows])
    readable = np.array([row.readable for row in rows], dtype=bool)
    answers[looked_at] = ledger.compare(hashes[looked_at], contents[looked_at], readable[looked_at])
    return [int(answer) for answer in answers]


def expected(row: Row, held: Held | None, *, retry_errors: bool, on_changed: OnChanged) -> int:
    """For the row that owns its id."""
    if held is None:
        return GRANTED
    if retry_errors and held.failed:
        return AGAIN
    if on_changed == "skip" or not row.readable or held.content == row.content:
        return THERE
    if held.content is None:
        return AGAIN if on_changed == "update" else THERE
    return AGAIN if on_changed == "update" else CHANGED


@settings(max_examples=100, deadline=None)
@given(
    given_input=inputs,
    table=tables,
    retry_errors=st.booleans(),
    on_changed=st.sampled_from(["skip", "error", "update"]),
    rolled=st.booleans(),
    random=st.randoms(use_true_random=False),
)
def test_whatever_the_order_and_however_often_tasks_run(
    given_input: list[list[Row]],
    table: dict[str, Held],
    retry_errors: bool,
    on_changed: OnChanged,
    rolled: bool,
    random: Any,
) -> None:
    ledger = filled(table, retry_errors=retry_errors, on_changed=on_changed)
    numbers = list(range(len(given_input)))
    order = random.choices(numbers, k=4) + random.sample(numbers, len(numbers))  # some are run more than once
    asked = numbers
    if rolled:
        for number in order:
            enrol(ledger, number, given_input[number])
        asked = ledger.end_roll_call().tolist()
    answers: dict[int, list[int]] = {}
    for number in [number for number in order if number in asked]:
        found = claim(ledger, number, given_input[number])
        assert answers.setdefault(number, found) == found  # again, and again the same
    for number in reversed([number for number in order if number in asked]):
        assert claim(ledger, number, given_input[number]) == answers[number]

    rows = {(number, at): row for number, split in enumerate(given_input) for at, row in enumerate(split)}
    first: dict[str, tuple[int, int]] = {}
    for place, row in rows.items():
        first.setdefault(row.known_as, place)
    counts: Counter[int] = Counter()
    granted: Counter[str] = Counter()
    for place, row in rows.items():
        number, at = place
        answer = answers[number][at] if number in asked else None
        wanted = DUPLICATE
        if first[row.known_as] == place:
            wanted = expected(row, table.get(row.known_as), retry_errors=retry_errors, on_changed=on_changed)
        if answer is None:
            assert wanted in (THERE, DUPLICATE)  # a split that nobody needs to read again
        elif rolled and row.name is not None:
            assert answer == wanted  # the first wins, whoever asked first
        counts[wanted if answer is None else answer] += 1
        granted[row.known_as] += answer in (GRANTED, AGAIN)
    assert set(counts) <= ANSWERS
    assert max(granted.values(), default=0) <= 1
    assert ledger.tally() == Tally(
        read=len(rows),
        granted=counts[GRANTED] + counts[AGAIN],
        again=counts[AGAIN],
        there=counts[THERE],
        duplicates=counts[DUPLICATE],
        changed=counts[CHANGED],
    )
    gone = [name for name in table if name not in {row.known_as for row in rows.values()}]
    assert ledger.gone(id_hashes(list(table))).tolist() == [name in gone for name in table]
    if rolled:
        losers = [place for place, row in rows.items() if row.name is not None and first[row.name] != place]
        assert [(at >> SPLIT_BITS, at & 0xFFFFFFFF) for at, _ in ledger.notes("duplicate")] == losers


def test_what_others_add_meanwhile_is_there_for_rows_that_nobody_has_yet() -> None:
    ledger = Ledger()
    every = id_hashes(["a", "b", "c"])
    ledger.enrol(0, every, np.ones(3, dtype=bool), 0.0)
    assert ledger.end_roll_call().tolist() == [0]
    assert ledger.claim(0, every[:1], np.ones(1, dtype=bool), 0.0).tolist() == [GRANTED]
    assert ledger.learn(id_hashes(["a", "b", "x", "x"])).tolist() == [True, False, False, False]
    assert ledger.learn(id_hashes(["b"])).tolist() == [False]
    ledger.arrive(every[:1])
    assert ledger.learn(id_hashes(["a"])).tolist() == [False]  # its row is in the table, or was left to theirs
    assert ledger.claim(0, every, np.ones(3, dtype=bool), 0.0).tolist() == [GRANTED, THERE, GRANTED]
    assert ledger.tally() == Tally(read=3, granted=2, there=1)
    assert not ledger.gone(id_hashes(["x"])).any()
    fresh = ledger.claim(9, id_hashes(["x", "x"]), np.zeros(2, dtype=bool), 0.5).tolist()
    assert fresh == [THERE, DUPLICATE]
    assert ledger.tally() == Tally(read=5, granted=2, there=2, duplicates=1, read_s=0.5)


def test_notes_are_the_first_of_the_input_and_bounded() -> None:
    ledger = Ledger()
    for start in reversed(range(0, 10_000, 100)):
        ledger.note("changed", dict.fromkeys(range(start, start + 100), "x" * 5000))
    notes = ledger.notes("changed")
    assert [at for at, _ in notes] == list(range(NOTES))
    assert {len(text) for _, text in notes} == {1000}
    assert ledger.notes("duplicate") == []


def pairs(*numbers: int) -> Any:
    return np.array([[number >> 1, number & 1] for number in numbers], dtype=np.uint64).reshape(-1, 2)  # shared halves


@pytest.mark.parametrize("contents", [False, True])
def test_an_id_set_finds_all_of_many(contents: bool) -> None:
    numbers = np.random.default_rng(0).permutation(20_000)
    ids = IdSet(contents=contents)
    for start in range(0, 20_000, 700):
        part = numbers[start : start + 700]
        ids.add(pairs(*part.tolist()), part.astype(np.int64), pairs(*(part + 1).tolist()))
    places = ids.find(pairs(*range(20_000)))
    assert len(ids) == 20_000
    assert (places >= 0).all()
    assert ids.states(places).tolist() == list(range(20_000))
    assert (ids.contents(places) == (pairs(*range(1, 20_001)) if contents else 0)).all()
    ids.put(places[7:9], np.array([-7, -8]))
    assert ids.states(places[6:10]).tolist() == [6, -7, -8, 9]
    unknown = ids.find(pairs(20_000, 20_001))
    assert (unknown == -1).all()
    assert ids.states(unknown).tolist() == [0, 0]


@given(st.lists(st.integers(0, 9)))
def test_the_first_of_each(numbers: list[int]) -> None:
    assert first_of_each(pairs(*numbers)).tolist() == [numbers.index(number) for number in numbers]
