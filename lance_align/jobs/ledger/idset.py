"""Hashes of ids, each with a state and perhaps a content hash, found by binary search in sorted runs."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lance_align.jobs.ids import Hashes

States = NDArray[np.int64]
Half = NDArray[np.uint64]
Places = NDArray[np.int64]  # (n, 2): the run and the row in it, both -1 for an unknown hash


@dataclasses.dataclass(slots=True)
class _Run:
    """Sorted by the first halves of hashes. The halves are apart: a binary search copies what is not contiguous."""

    first: Half
    second: Half
    states: States
    contents: Hashes | None


class IdSet:
    """128-bit hashes and what is known of each, in runs that merge as they grow: at most log2(n) of them.

    Args:
        contents: keep a content hash with each id too, 16 bytes more.
    """

    def __init__(self, *, contents: bool = False) -> None:
        self._contents = contents
        self._runs: list[_Run] = []

    def __len__(self) -> int:
        return sum(len(run.states) for run in self._runs)

    def find(self, hashes: Hashes) -> Places:
        """Where hashes are, ``(n, 2)``; valid until the next `add`."""
        places = np.full((len(hashes), 2), -1, dtype=np.int64)
        for number, run in enumerate(self._runs):
            at = _find(run, hashes)
            found = at >= 0
            places[found, 0], places[found, 1] = number, at[found]
        return places

    def add(self, hashes: Hashes, states: States, contents: Hashes | None = None) -> None:
        """Add hashes that are not known yet, each once."""
        if len(hashes) == 0:
            return
        if self._contents and contents is None:
            contents = np.zeros_like(hashes)
        self._runs.append(_sorted(hashes, states, contents if self._contents else None))
        while len(self._runs) > 1 and len(self._runs[-1].states) * 2 > len(self._runs[-2].states):
            right, left = self._runs.pop(), self._runs.pop()
            self._runs.append(_merged(left, right))

    def states(self, places: Places) -> States:
        """What is known of each, 0 where the place is unknown."""
        states = np.zeros(len(places), dtype=np.int64)
        for number, run in enumerate(self._runs):
            here = places[:, 0] == number
            states[here] = run.states[places[here, 1]]
        return states

    def put(self, places: Places, states: States) -> None:
        """Replace what is known of each; unknown places are left out."""
        for number, run in enumerate(self._runs):
            here = places[:, 0] == number
            run.states[places[here, 1]] = states[here]

    def contents(self, places: Places) -> Hashes:
        """The content hash of each, zero where there is none."""
        contents = np.zeros((len(places), 2), dtype=np.uint64)
        for number, run in enumerate(self._runs):
            if run.contents is not None:
                here = places[:, 0] == number
                contents[here] = run.contents[places[here, 1]]
        return contents

    def all_states(self) -> list[States]:
        """Every state, in arrays that are not to be changed."""
        return [run.states for run in self._runs]


def first_of_each(hashes: Hashes) -> NDArray[np.int64]:
    """For each row, the first row with the same hash."""
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))  # stable: equal hashes keep their order
    ordered = hashes[order]
    starts = np.ones(len(hashes), dtype=bool)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = np.empty(len(hashes), dtype=np.int64)
    first[order] = order[np.flatnonzero(starts)[np.cumsum(starts) - 1]] if len(order) else order
    return first


def _sorted(hashes: Hashes, states: States, contents: Hashes | None) -> _Run:
    order = np.argsort(hashes[:, 0])
    return _Run(
        hashes[order, 0], hashes[order, 1], states[order].copy(), None if contents is None else contents[order].copy()
    )


def _merged(left: _Run, right: _Run) -> _Run:
    """One run of two, which are used up: a column of them at a time is there twice."""
    right_at = np.searchsorted(left.first, right.first) + np.arange(len(right.first))
    left_at = np.ones(len(left.first) + len(right.first), dtype=bool)
    left_at[right_at] = False

    def laid(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
        out = np.empty((len(left_at), *one.shape[1:]), one.dtype)
        out[left_at], out[right_at] = one, other
        return out

    left.first = laid(left.first, right.first)
    left.second = laid(left.second, right.second)
    left.states = laid(left.states, right.states)
    if left.contents is not None and right.contents is not None:
        left.contents = laid(left.contents, right.contents)
    return left


def _find(run: _Run, wanted: Hashes) -> NDArray[np.int64]:
    """The index of each wanted hash in a run, -1 where it is not."""
    at = np.searchsorted(run.first, np.ascontiguousarray(wanted[:, 0]), side="left")
    found = np.full(len(wanted), -1, dtype=np.int64)
    open_ones = np.arange(len(wanted))
    while len(open_ones):  # once, but for hashes that share their first half: one more turn each
        here = at[open_ones]
        inside = here < len(run.first)
        open_ones, here = open_ones[inside], here[inside]
        same_half = run.first[here] == wanted[open_ones, 0]
        open_ones, here = open_ones[same_half], here[same_half]
        same = run.second[here] == wanted[open_ones, 1]
        found[open_ones[same]] = here[same]
        open_ones = open_ones[~same]
        at[open_ones] += 1
    return found
