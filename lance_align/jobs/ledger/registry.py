"""The ids of a job: a `Ledger` filled from the table, and how tasks and the driver reach it wherever it runs."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lance_align.jobs.ids import Flags, Hashes, hex_hashes, id_hashes
from lance_align.jobs.ledger.ledger import Answers, Ledger, Noted, Positions, Tally
from lance_align.jobs.policy import Policy
from lance_align.jobs.stages.encode import Target
from lance_align.tables.done import read_content_hashes, read_done_ids, read_failed_ids
from lance_align.tables.gone import Gone, Removed, list_gone, remove_gone


class TableRegistry:
    """A `Ledger`, filled with what a version of the table holds."""

    def __init__(self, target: Target, version: int, policy: Policy) -> None:
        self._target, self._version = target, version
        self._ledger = Ledger(retry_errors=policy.retry_errors, on_changed=policy.on_changed)
        place: dict[str, Any] = {"storage_options": target.storage_options, "version": version}
        if policy.on_changed == "skip":
            for ids in read_done_ids(target.uri, **place):
                self._ledger.hold(_hashes(ids))
        else:
            for ids, contents in read_content_hashes(target.uri, **place):
                hashes, hashed = hex_hashes(contents)
                self._ledger.hold(_hashes(ids), contents=hashes, hashed=hashed)
        if policy.retry_errors:
            vectors = [column.vector for column in target.layout.embedded]
            for ids in read_failed_ids(target.uri, vectors, **place):
                self._ledger.hold_failed(_hashes(ids))

    def ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the `Ledger`."""
        return getattr(self._ledger, method)(*arguments, **options)

    def gone(self, limit: int) -> Gone:
        """See `list_gone`."""
        return list_gone(self._target.uri, self._is_gone, limit=limit, **self._place())

    def remove_gone(self) -> Removed:
        """See `remove_gone`."""
        return remove_gone(self._target.uri, self._is_gone, **self._place())

    def _place(self) -> dict[str, Any]:
        return {"version": self._version, "storage_options": self._target.storage_options}

    def _is_gone(self, ids: pa.StringArray) -> Flags:
        return self._ledger.gone(_hashes(ids))


class IdRegistry(ABC):
    """A `TableRegistry` as tasks and the driver see it; it may live in another process.

    Attributes:
        enrols_all: the roll call enrols every row, those too whose ids are digests.
    """

    enrols_all = False

    @abstractmethod
    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the `TableRegistry`.

        Raises:
            LanceAlignError: it failed, or is not there any more.
        """

    @abstractmethod
    def stop(self) -> None:
        """End it."""

    def enrol(self, first_position: int, hashes: Hashes, named: Flags, read_s: float) -> Positions:
        """See `Ledger.enrol`."""
        losers: Positions = self._ask("enrol", first_position, hashes, named, read_s)
        return losers

    def end_roll_call(self) -> NDArray[np.int64]:
        """See `Ledger.end_roll_call`."""
        numbers: NDArray[np.int64] = self._ask("end_roll_call")
        return numbers

    def claim(self, first_position: int, hashes: Hashes, named: Flags, read_s: float) -> Answers:
        """See `Ledger.claim`."""
        named = np.ones_like(named) if self.enrols_all else named
        answers: Answers = self._ask("claim", first_position, hashes, named, read_s)
        return answers

    def compare(self, hashes: Hashes, contents: Hashes, readable: Flags) -> Answers:
        """See `Ledger.compare`."""
        answers: Answers = self._ask("compare", hashes, contents, readable)
        return answers

    def note(self, what: Noted, ids: Mapping[int, str]) -> None:
        """See `Ledger.note`."""
        self._ask("note", what, ids)

    def notes(self, what: Noted) -> list[tuple[int, str]]:
        """See `Ledger.notes`."""
        notes: list[tuple[int, str]] = self._ask("notes", what)
        return notes

    def leave_out(self, first_position: int, counts: Mapping[str, int]) -> None:
        """See `Ledger.leave_out`."""
        self._ask("leave_out", first_position, counts)

    def left_out(self) -> dict[str, int]:
        """See `Ledger.left_out`."""
        counts: dict[str, int] = self._ask("left_out")
        return counts

    def learn(self, ids: pa.StringArray) -> pa.StringArray:
        """See `Ledger.learn`: ids in, those that are on their way out."""
        coming: Flags = self._ask("learn", _hashes(ids))
        on_their_way: pa.StringArray = ids.filter(pa.array(coming))
        return on_their_way

    def arrive(self, hashes: Hashes) -> None:
        """See `Ledger.arrive`."""
        self._ask("arrive", hashes)

    def arrived(self, hashes: Hashes) -> Flags:
        """See `Ledger.arrived`."""
        arrived: Flags = self._ask("arrived", hashes)
        return arrived

    def settled(self) -> int:
        """See `Ledger.settled`."""
        return int(self._ask("settled"))

    def missing(self, hashes: Hashes) -> int:
        """See `Ledger.missing`."""
        return int(self._ask("missing", hashes))

    def doubled(self) -> int:
        """See `Ledger.doubled`."""
        return int(self._ask("doubled"))

    def advance(self, **counts: int) -> None:
        """See `Ledger.advance`."""
        self._ask("advance", **counts)

    def tally(self) -> Tally:
        """See `Ledger.tally`."""
        tally: Tally = self._ask("tally")
        return tally

    def gone(self, limit: int) -> Gone:
        """Rows that the table held when the run began and that the input does not have; see `list_gone`."""
        gone: Gone = self._call("gone", limit)
        return gone

    def remove_gone(self) -> Removed:
        """Remove them; see `lance_align.tables.gone.remove_gone`."""
        removed: Removed = self._call("remove_gone")
        return removed

    def _ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._call("ask", method, *arguments, **options)


class LocalRegistry(IdRegistry):
    """The registry of a job in this process, whose two threads take turns."""

    def __init__(self, registry: TableRegistry) -> None:
        self.enrols_all = False
        self._registry = registry
        self._turn = threading.Lock()

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        with self._turn:
            return getattr(self._registry, method)(*arguments, **options)

    def stop(self) -> None:
        """There is nothing to end."""


def _hashes(ids: pa.StringArray) -> Hashes:
    texts: list[Any] = ids.to_pylist()
    return id_hashes(texts)
