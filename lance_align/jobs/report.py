"""What a job did, as one screen of text and as JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from datetime import datetime

from lance_align.errors import ArgumentError

STAGES = ("read", "decode", "encode", "write", "commit")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """The account of one run: every row of the input is in one of `embedded`, `failed`, `already_there`, `duplicates`.

    Attributes:
        source: what was read.
        table_uri: the Lance dataset of the table.
        table_version: its version after the last commit.
        model: the model's name.
        fingerprint: the model's fingerprint.
        rows_read: rows of the input.
        embedded: rows written with every vector they should have.
        failed: rows written with a reason in `error`.
        reasons: how many failed rows have which kind of reason.
        already_there: rows whose id the table held before.
        duplicates: rows whose id another row of the input has; that row was written.
        stage_s: seconds of work in each of `STAGES`, summed over workers, so that they may exceed `elapsed_s`.
        workers: how many tasks or actors could work at once in each stage.
        commits: versions this run made.
        halved: how often a batch did not fit into a worker's memory, and the size of its later batches was halved.
        started_at, finished_at: with time zone.
    """

    source: str
    table_uri: str
    table_version: int
    model: str
    fingerprint: str
    rows_read: int
    embedded: int
    failed: int
    reasons: Mapping[str, int]
    already_there: int
    duplicates: int
    stage_s: Mapping[str, float]
    workers: Mapping[str, int]
    commits: int
    started_at: datetime
    finished_at: datetime
    halved: int = 0

    @property
    def elapsed_s(self) -> float:
        """Wall clock from start to finish."""
        return (self.finished_at - self.started_at).total_seconds()

    @property
    def rows_written(self) -> int:
        """Rows this run added to the table."""
        return self.embedded + self.failed

    @property
    def rows_per_s(self) -> float:
        """Rows written a second of wall clock."""
        return self.rows_written / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def adds_up(self) -> bool:
        """Whether every row read is accounted for."""
        return self.rows_read == self.embedded + self.failed + self.already_there + self.duplicates

    @property
    def bottleneck(self) -> str | None:
        """The stage whose workers were busy for the longest; None if nothing was done."""
        busy = {stage: self.stage_s.get(stage, 0.0) / max(1, self.workers.get(stage, 1)) for stage in STAGES}
        slowest = max(STAGES, key=lambda stage: busy[stage])
        return slowest if busy[slowest] > 0 and self.rows_written else None

    def shares(self) -> dict[str, float]:
        """Each stage's share of all work, 0 to 1."""
        total = sum(self.stage_s.values())
        return {stage: self.stage_s.get(stage, 0.0) / total if total > 0 else 0.0 for stage in STAGES}

    def to_json(self) -> str:
        """Every field, and what follows from them, as indented JSON."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields |= {
            "started_at": self.started_at.isoformat(timespec="milliseconds"),
            "finished_at": self.finished_at.isoformat(timespec="milliseconds"),
            "elapsed_s": self.elapsed_s,
            "rows_per_s": self.rows_per_s,
            "stage_shares": self.shares(),
            "bottleneck": self.bottleneck,
        }
        return json.dumps(fields, indent=2, default=dict)

    def to_text(self) -> str:
        """One screen for people."""
        lines = [
            f"embedded {self.source}",
            f"    into {self.table_uri} (version {self.table_version}, {self.commits} commits)",
            f"    with {self.model} (fingerprint {self.fingerprint})",
            "",
            f"  rows read      {self.rows_read:>12,}",
            f"  embedded       {self.embedded:>12,}",
            f"  already there  {self.already_there:>12,}",
            f"  duplicates     {self.duplicates:>12,}",
            f"  failed         {self.failed:>12,}",
        ]
        lines += [f"    {kind:<13}{count:>12,}" for kind, count in sorted(self.reasons.items(), key=lambda r: -r[1])]
        if self.halved:
            times = "once" if self.halved == 1 else f"{self.halved:,} times"
            lines += ["", f"  memory ran out and batches were halved {times}; every row was tried again"]
        lines += ["", f"  {self.elapsed_s:.1f} s, {self.rows_per_s:,.0f} rows/s", "  work by stage:"]
        for stage, share in self.shares().items():
            mark = "  <- bottleneck" if stage == self.bottleneck else ""
            lines.append(f"    {stage:<8}{self.stage_s.get(stage, 0.0):>10.1f} s {share:>6.0%}{mark}")
        return "\n".join(lines)


def parse_max_errors(text: str | int | float) -> int | float:
    """``10`` and ``"10"`` are a count (int); ``0.01``, ``"0.01"`` and ``"1%"`` a share of the rows written (float).

    Raises:
        ArgumentError: neither.
    """
    number: int | float = -1
    with contextlib.suppress(ValueError):
        if not isinstance(text, str):
            number = text
        elif text.strip().endswith("%"):
            number = float(text.strip()[:-1]) / 100
        else:
            number = float(text) if "." in text else int(text)
    if not (number >= 0 and (isinstance(number, int) or number <= 1)):
        raise ArgumentError(f"max_errors={text!r}; expected a count such as 10, or a share such as 0.01 or '1%'")
    return number


def too_many(report: JobReport, limit: int | float) -> bool:
    """Whether more rows failed than the limit (see `parse_max_errors`) allows."""
    return report.failed > (limit if isinstance(limit, int) else limit * report.rows_written)
