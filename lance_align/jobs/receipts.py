"""What a worker sends back for a block of rows: the fragments it wrote, counted, small enough for the driver."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping

import numpy as np

from lance_align.jobs.ids import Hashes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """One block written, not yet committed.

    Attributes:
        fragments: JSON of Lance's fragment metadata, as `lance_align.tables.fragments.write_fragments` gives it.
        rows: rows in these fragments, embedded or not.
        reasons: how many rows have which kind of reason; the others are embedded.
        hashes: of the rows' ids: base64 of ``(rows, 2) uint64``, see `lance_align.jobs.ids.id_hashes`.
        replacing: ids of those rows that take the place of a row in the table.
        decode_s, encode_s, write_s: seconds of work on the block.
        halved: how often a batch of the block did not fit into memory and was halved.
        choices: what the worker's model runs on: threads, device, engine and precision.
    """

    fragments: tuple[str, ...]
    rows: int
    reasons: Mapping[str, int]
    decode_s: float
    encode_s: float
    write_s: float
    hashes: str = ""
    replacing: tuple[str, ...] = ()
    halved: int = 0
    choices: Mapping[str, str | int] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        """One line; `from_json` gives an equal receipt back."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Receipt:
        """Read what `to_json` wrote."""
        raw = json.loads(text)
        return cls(**{**raw, "fragments": tuple(raw["fragments"]), "replacing": tuple(raw["replacing"])})


def packed(hashes: Hashes) -> str:
    """Hashes as text: 22 characters each."""
    return base64.b64encode(hashes.astype("<u8").tobytes()).decode()


def unpacked(text: str) -> Hashes:
    """The inverse of `packed`, ``(n, 2) uint64``."""
    return np.frombuffer(base64.b64decode(text), dtype="<u8").reshape(-1, 2)
