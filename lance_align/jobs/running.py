"""One run of the embed job, from the driver's side: receipts in, rounds of commits out, and the account at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from datetime import datetime

from ray.exceptions import RayError

from lance_align.errors import JobError
from lance_align.jobs.cluster import Shape
from lance_align.jobs.decode import Reader
from lance_align.jobs.encode import Target
from lance_align.jobs.failures import GO_ON, job_failures
from lance_align.jobs.ledger import Tally
from lance_align.jobs.plan import ReadSplit, RemoteLedger, receipts
from lance_align.jobs.progress import State, reporter
from lance_align.jobs.report import JobReport
from lance_align.jobs.rounds import Rounds
from lance_align.jobs.sources import Source
from lance_align.spec import ModelSpec


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
        with self.rounds.gathering():
            for receipt in receipts(
                self.source.splits, read, self.spec, self.target, shape=self.shape, device=self.device
            ):
                self.rounds.add(receipt)

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
            halved=rounds.halved,
            started_at=started_at,
            finished_at=datetime.now().astimezone(),
        )
        if not report.adds_up:
            raise JobError(f"the account does not add up ({report.to_json()}); {GO_ON}")
        return report
