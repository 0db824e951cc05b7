"""One run of the embed job, from the driver's side: receipts in, rounds of commits out, and the account at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections import Counter
from datetime import datetime
from typing import Any

from ray.exceptions import RayError

from lance_align.errors import JobError, SourceError
from lance_align.jobs.failures import GO_ON, job_failures
from lance_align.jobs.ledger.actor import RemoteLedger
from lance_align.jobs.ledger.ledger import MAX_SPLITS, NOTES, SPLIT_BITS, Noted, Tally
from lance_align.jobs.ledger.rollcall import call_the_roll, is_needed
from lance_align.jobs.plan import ReadSplits, receipts
from lance_align.jobs.policy import Policy, doubled
from lance_align.jobs.progress import State, reporter
from lance_align.jobs.report import JobReport, RowPlace, plan_line
from lance_align.jobs.rounds import Rounds
from lance_align.jobs.shape import Shape
from lance_align.jobs.sources import Source
from lance_align.jobs.sources.listing import UNLISTABLE
from lance_align.jobs.stages.decode import Reader
from lance_align.jobs.stages.encode import Target
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
        policy: what is done about rows that are there, doubled, changed or gone.
    """

    source: Source
    reader: Reader
    spec: ModelSpec
    target: Target
    rounds: Rounds
    shape: Shape
    policy: Policy

    def run(self, *, started_at: datetime, progress: bool, log_file: str | os.PathLike[str] | None = None) -> JobReport:
        """Embed what the table lacks.

        Raises:
            LanceAlignError: the run ended early; what was written till then is committed where that is possible.
            JobError: rows are missing although every task succeeded.
        """
        rounds = self.rounds
        with job_failures():
            ledger = RemoteLedger.start(self.target, version=rounds.version, policy=self.policy)
            rounds.learn, rounds.arrive = ledger.learn, ledger.arrive
            try:
                state = functools.partial(self._state, ledger)
                with reporter(self.source.rows(), state, show=progress, log_file=log_file, plan=plan_line(self._plan)):
                    self._stream(ledger)
                report = self._report(ledger, started_at)
                if self.policy.gone != "ignore":
                    report = self._with_gone(report, ledger)
            finally:
                ledger.stop()
        return dataclasses.replace(report, finished_at=datetime.now().astimezone())

    @property
    def _plan(self) -> dict[str, Any]:
        return {**self.shape.choices, **self.rounds.choices}

    def _stream(self, ledger: RemoteLedger) -> None:
        read = ReadSplits(reader=self.reader, ledger=ledger, rows=self.shape.block_rows)
        splits = dict(enumerate(self.source.splits))
        if len(splits) > MAX_SPLITS:
            raise SourceError(
                f"{self.source.location.uri} has {len(splits):,} parts; a run takes {MAX_SPLITS:,} at most"
            )
        if is_needed(self.reader.columns, self.source):
            numbers = call_the_roll(
                self.source,
                self.reader.columns.id or "",
                ledger,
                at_once=self.shape.readers + 1,
                stall_seconds=self.shape.stall_seconds,
            )
            duplicates = ledger.tally().duplicates
            if self.policy.duplicates == "error" and duplicates:
                raise JobError(f"{doubled(duplicates, self._places('duplicate', ledger))}; nothing was written")
            splits = {number: splits[number] for number in numbers}
        coming = receipts(splits, read, self.spec, self.target, shape=self.shape)
        with self.rounds.gathering(), contextlib.closing(coming):  # an error here must end the workers as well
            for receipt in coming:
                self.rounds.add(receipt)

    def _places(self, what: Noted, ledger: RemoteLedger) -> tuple[RowPlace, ...]:
        notes = ledger.notes(what)
        places = self.source.places([divmod(position, 1 << SPLIT_BITS) for position, _ in notes])
        return tuple(
            RowPlace(id=text, file=file, row=row) for (_, text), (file, row) in zip(notes, places, strict=True)
        )

    def _with_gone(self, report: JobReport, ledger: RemoteLedger) -> JobReport:
        gone = ledger.gone(NOTES)
        report = dataclasses.replace(report, gone=gone.rows, gone_ids=gone.ids)
        if self.policy.gone == "list" or not gone.rows or self.policy.objection(report) is not None:
            return report
        if report.rows_read == 0:
            raise JobError(
                f"the input has no rows at all, so none of the {gone.rows:,} rows of the table was removed; is it the "
                "right input? gone='list' only counts them"
            )
        if UNLISTABLE in self.source.left_out:
            raise JobError(
                f"{self.source.left_out[UNLISTABLE]:,} folders of the input cannot be listed, so none of the "
                f"{gone.rows:,} rows that it seems to lack was removed; gone='list' only counts them",
                report,
            )
        removed = ledger.remove_gone()
        version = max(report.table_version, removed.version)
        commits = report.commits + (removed.rows > 0)
        return dataclasses.replace(report, removed=removed.rows, table_version=version, commits=commits)

    def _state(self, ledger: RemoteLedger) -> State:
        rounds = self.rounds
        tally = Tally()
        with contextlib.suppress(RayError):  # the job itself is about to say so
            tally = ledger.tally()
        return State(
            rows=rounds.rows,
            failed=rounds.reasons.total(),
            committed=rounds.committed,
            skipped=tally.there + tally.duplicates + tally.changed,
            version=rounds.version,
        )

    def _report(self, ledger: RemoteLedger, started_at: datetime) -> JobReport:
        rounds, shape = self.rounds, self.shape
        tally = ledger.tally()
        if tally.granted != rounds.committed + rounds.dropped:
            raise JobError(f"{tally.granted:,} rows were to be embedded, {rounds.committed:,} arrived; {GO_ON}")
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
            updated=tally.again,
            changed=tally.changed,
            duplicate_rows=self._places("duplicate", ledger),
            changed_rows=self._places("changed", ledger),
            left_out=dict(Counter(self.source.left_out) + Counter(ledger.left_out())),
            unread=tuple(reason for _, reason in ledger.notes("unread")),
            stage_s={"read": tally.read_s, **rounds.seconds},
            workers={"read": shape.readers, "decode": shape.readers, "encode": shape.actors, "write": shape.actors},
            commits=rounds.commits,
            halved=rounds.halved,
            plan=self._plan,
            started_at=started_at,
            finished_at=datetime.now().astimezone(),
        )
        if not report.adds_up:
            raise JobError(f"the account does not add up ({report.to_json()}); {GO_ON}")
        return report
