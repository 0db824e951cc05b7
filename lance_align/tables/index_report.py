"""What was done about the index of a vector column."""

from __future__ import annotations

import dataclasses
from typing import Literal

from lance_align.tables.search_settings import SearchSettings
from lance_align.told import Told

TARGET_RECALL = 0.97

Action = Literal["built", "extended", "kept", "none", "failed"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IndexReport(Told):
    """What was done about the index of a vector column.

    Attributes:
        vector: the column.
        action: it was ``built``, ``extended`` by the rows it lacked, ``kept`` since it lacked none; there is ``none``,
            since exact search is fast enough; or it ``failed``.
        type: LanceDB's name of the kind of index; None where there is none.
        partitions: as it was built; None where that is not known.
        rows: vectors that the index covers, or that there are where it has none.
        added: rows that this call added to an index that was there.
        recall: recall@10 against exact search with `settings`, 0 to 1; None where it was never measured.
        queries: what it was measured with, in words.
        settings: what to write behind ``table.search(...)``.
        build_s: seconds that building or extending took.
        measure_s: seconds that measuring took, exact search included.
        error: why it failed; None where it did not.

    >>> lance_align.build_index(table)._repr_mimebundle_()["text/plain"]  # what a notebook shows
    'index of vector: none, exact search of 60 vectors is fast enough'
    """

    vector: str
    action: Action
    type: str | None = None
    partitions: int | None = None
    rows: int = 0
    added: int = 0
    recall: float | None = None
    queries: str = ""
    settings: SearchSettings = dataclasses.field(default_factory=SearchSettings)
    build_s: float = 0.0
    measure_s: float = 0.0
    error: str | None = None

    def to_text(self) -> str:
        """The lines of `to_lines`."""
        return "\n".join(self.to_lines())

    def to_lines(self) -> list[str]:
        """For people: what was done, and, where LanceDB's defaults do not find enough, what to write."""
        name = f"index of {self.vector}"
        if self.action == "failed":
            return [f"{name}: failed ({self.error}); the rows are in, and searches compare them one by one"]
        if self.action == "none":
            return [f"{name}: none, exact search of {self.rows:,} vectors is fast enough"]
        done = {"built": "built", "extended": f"extended by {self.added:,} rows", "kept": "nothing to add"}
        parts = [str(self.type), *([] if self.partitions is None else [f"{self.partitions:,} partitions"])]
        seconds = f", {self.build_s:.1f} s" if self.build_s else ""
        lines = [f"{name}: {done[self.action]} ({', '.join(parts)}){seconds}"]
        if self.recall is not None:
            lines.append(f"  recall@10 {self.recall:.3f} with {self.queries}")
            if self.recall < TARGET_RECALL:
                lines[-1] += f", below {TARGET_RECALL}"
        if str(self.settings):
            lines.append(f'  search with table.search("…"){self.settings}')
        return lines
