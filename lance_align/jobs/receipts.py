"""What a worker sends back for a block of rows: the fragments it wrote, counted, small enough for the driver."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """One block written, not yet committed.

    Attributes:
        fragments: JSON of Lance's fragment metadata, as `lance_align.tables.fragments.write_fragments` gives it.
        rows: rows in these fragments, embedded or not.
        reasons: how many rows have which kind of reason; the others are embedded.
        replacing: ids of those rows that take the place of a row in the table.
        decode_s, encode_s, write_s: seconds of work on the block.
        halved: how often a batch of the block did not fit into memory and was halved.
    """

    fragments: tuple[str, ...]
    rows: int
    reasons: Mapping[str, int]
    decode_s: float
    encode_s: float
    write_s: float
    replacing: tuple[str, ...] = ()
    halved: int = 0

    def to_json(self) -> str:
        """One line; `from_json` gives an equal receipt back."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Receipt:
        """Read what `to_json` wrote."""
        raw = json.loads(text)
        return cls(**{**raw, "fragments": tuple(raw["fragments"]), "replacing": tuple(raw["replacing"])})
