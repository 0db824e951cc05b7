"""One run of the embed job, from the driver's side: receipts in, rounds of commits out, and the account at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections import Counter
from datetime import datetime

from ray.exceptions import RayError

from lance_align.errors import JobError, LanceAlignError
from lance_align.jobs.cluster import Shape
from lance_align.jobs.decode import Reader
from lance_align.jobs.encode import Target
from lance_align.jobs.failures import GO_ON, job_failures
from lance_align.jobs.ledger import Tally
from lance_align.jobs.plan import ReadSplit, RemoteLedger, receipts
from lance_align.jobs.progress import State, reporter
from lance_align.jobs.receipts import Receipt
from lance_align.jobs.report import JobReport
from lance_align.jobs.sources import Source
from lance_align.spec import ModelSpec
from lance_align.tables.commits import Committer, Landed, Learn


class Rounds:
    """Gathers receipts and makes a version of the table every so many rows or seconds.

    Args:
        committer: of the table.
        commit_rows: rows after which a round ends.
        commit_seconds: seconds after which it ends, looked at whenever a receipt arrives.
    """

    def __init__(self, committer: Committer, *, commit_rows: int, commit_seconds: float) -> None:
        self._committer = committer
        self._commit_rows = commit_rows
        self._commit_seconds = commit_seconds
        self.learn: Learn | None = None  # see `Committer.commit`
        self._pending: list[Receipt] = []
        self._round_began = time.monotonic()
        self.reasons: Counter[str] = Counter()
        self.seconds: dict[str, float] = {}
        self.rows = 0  # written, committed or not
        self.committed = 0
        self.dropped = 0  # another writer had added their ids meanwhile
        self.commits = 0

    @property
    def version(self) -> int:
        """The table's version after the last round."""
        return self._committer.version

    def add(self, receipt: Receipt) -> None:
        """Take a receipt, and end the round if it is time.

        Raises:
            LanceAlignError: the commit failed; the round's rows are not in the table.
        """
        self._pending.append(receipt)
        self.rows += receipt.rows
        self.reasons.update(receipt.reasons)
        self._spend(decode=receipt.decode_s, encode=receipt.encode_s, write=receipt.write_s)
        waiting = sum(pending.rows for pending in self._pending)
        if waiting >= self._commit_rows or time.monotonic() - self._round_began >= self._commit_seconds:
            self.commit()

    def commit(self) -> None:
        """End the round; nothing happens when no receipts wait."""
        if self._pending:
            started = time.perf_counter()
            fragments = [fragment for receipt in self._pending for fragment in receipt.fragments]
            rows = sum(receipt.rows for receipt in self._pending)
            replacing = [name for receipt in self._pending for name in receipt.replacing]
            landed = self._committer.commit(fragments, rows=rows, replacing=replacing, learn=self.learn)
            self._pending = []
            self._count(landed)
            self._spend(commit=time.perf_counter() - started)
        self._round_began = time.monotonic()

    def _count(self, landed: Landed) -> None:
        self.committed += landed.rows
        self.dropped += landed.dropped.rows
        self.rows -= landed.dropped.rows
        self.reasons.subtract(landed.dropped.reasons)
        self.reasons = +self.reasons
        self.commits += landed.rows > 0

    def _spend(self, **seconds: float) -> None:
        for stage, spent in seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything one run needs; see `lance_align.jobs.embed`.

    Attributes:
        source: with its splits.
        reader: what tasks do with a split.
        spec: the model.
        target: the table.
        rounds: its commits.
        shape: how the cluster is used.
        device: where the model runs.
    """

    source: Source
    reader: Reader
    spec: ModelSpec
    target: Target
    rounds: Rounds
    shape: Shape
    device: str

    def run(self, *, started_at: datetime, progress: bool, log_file: str | os.PathLike[str] | None = None) -> JobReport:
        """Embed what the table lacks.

        Raises:
            LanceAlignError: the run ended early; what was written till then is committed where that is possible.
            JobError: rows are missing although every task succeeded.
        """
        rounds = self.rounds
        with job_failures():
            ledger = RemoteLedger.start(self.target, version=rounds.version)
            try:
                with reporter(self.source.rows(), lambda: self._state(ledger), show=progress, log_file=log_file):
                    self._stream(ledger)
                tally = ledger.tally()
            finally:
                ledger.stop()
        if tally.granted != rounds.committed + rounds.dropped:
            raise JobError(f"{tally.granted:,} rows were read to be embedded, {rounds.committed:,} arrived; {GO_ON}")
        return self._report(tally, started_at)

    def _stream(self, ledger: RemoteLedger) -> None:
        read = ReadSplit(reader=self.reader, ledger=ledger)
        try:
            for receipt in receipts(
                self.source.splits, read, self.spec, self.target, shape=self.shape, device=self.device
            ):
                self.rounds.add(receipt)
        except BaseException:
            with contextlib.suppress(LanceAlignError):  # the first error is the one to tell
                self.rounds.commit()
            raise
        self.rounds.commit()

    def _state(self, ledger: RemoteLedger) -> State:
        rounds = self.rounds
        tally = Tally()
        with contextlib.suppress(RayError):  # the job itself is about to say so
            tally = ledger.tally()
        return State(
            rows=rounds.rows,
            failed=rounds.reasons.total(),
            committed=rounds.committed,
            skipped=tally.there + tally.duplicates,
            version=rounds.version,
        )

    def _report(self, tally: Tally, started_at: datetime) -> JobReport:
        rounds, shape = self.rounds, self.shape
        report = JobReport(
            source=self.source.location.uri,
            table_uri=self.target.uri,
            table_version=rounds.version,
            model=self.spec.name,
            fingerprint=self.spec.fingerprint,
            rows_read=tally.read,
            embedded=rounds.rows - rounds.reasons.total(),
            failed=rounds.reasons.total(),
            reasons=dict(rounds.reasons),
            already_there=tally.there + rounds.dropped,
            duplicates=tally.duplicates,
            stage_s={"read": tally.read_s, **rounds.seconds},
            workers={"read": shape.readers, "decode": shape.readers, "encode": shape.actors, "write": shape.actors},
            commits=rounds.commits,
            started_at=started_at,
            finished_at=datetime.now().astimezone(),
        )
        if not report.adds_up:
            raise JobError(f"the account does not add up ({report.to_json()}); {GO_ON}")
        return report
