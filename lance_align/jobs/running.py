"""One run of the embed job, from the driver's side: receipts in, rounds of commits out, and the account at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections import Counter
from datetime import datetime
from typing import Any

from lance_align.errors import JobError, LanceAlignError, SourceError
from lance_align.jobs.executors.base import Executor
from lance_align.jobs.executors.choice import LOCAL_ROWS, Executors
from lance_align.jobs.executors.local import LocalExecutor
from lance_align.jobs.failures import GO_ON, job_failures
from lance_align.jobs.ledger.ledger import MAX_SPLITS, NOTES, SPLIT_BITS, Noted, Tally
from lance_align.jobs.ledger.registry import IdRegistry
from lance_align.jobs.ledger.rollcall import Enrol, TooManyRows, call_the_roll, is_needed
from lance_align.jobs.plan import ReadSplits, receipts
from lance_align.jobs.policy import Policy, doubled
from lance_align.jobs.progress import State, reporter
from lance_align.jobs.report import FAILURES, Failure, JobReport, RowPlace, plan_line
from lance_align.jobs.rounds import Rounds
from lance_align.jobs.shape import Shape, ShapeOptions, shape
from lance_align.jobs.sources import Source
from lance_align.jobs.sources.listing import UNLISTABLE, UNREADABLE
from lance_align.jobs.stages.decode import Reader
from lance_align.jobs.stages.encode import Target
from lance_align.spec import ModelSpec
from lance_align.tables.done import count_rows, first_failed


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything one run needs; see `lance_align.jobs.embed`.

    Attributes:
        source: with its splits.
        reader: what tasks do with a split.
        spec: the model.
        target: the table.
        rounds: its commits.
        options: how resources are used.
        policy: what is done about rows that are there, doubled, changed or gone.
        rows_there: rows of the table as the run begins.
        limit: how many rows of the input are looked at, which are those of `source`; None for all.
    """

    source: Source
    reader: Reader
    spec: ModelSpec
    target: Target
    rounds: Rounds
    options: ShapeOptions
    policy: Policy
    rows_there: int = 0
    limit: int | None = None

    def run(
        self,
        executors: Executors,
        *,
        started_at: datetime,
        progress: bool,
        log_file: str | os.PathLike[str] | None = None,
    ) -> JobReport:
        """Embed what the table lacks.

        Args:
            executors: where; of those it may use, the first that suits.

        Raises:
            LanceAlignError: the run ended early; what was written till then is committed where that is possible.
            JobError: rows are missing although every task succeeded.
        """
        if len(self.source.splits) > MAX_SPLITS:
            raise SourceError(
                f"{self.source.location.uri} has {len(self.source.splits):,} parts; a run takes {MAX_SPLITS:,} at most"
            )
        with job_failures():
            run = self._run_locally(executors) or self._run_on(executors.ray())
            try:
                with reporter(
                    self.source.rows(), run.state, show=progress, log_file=log_file, plan=plan_line(run.plan)
                ):
                    run.stream()
                report = run.report(started_at)
                if self.policy.gone != "ignore":
                    report = self._with_gone(report, run.registry)
            finally:
                run.registry.stop()
        return dataclasses.replace(report, finished_at=datetime.now().astimezone())

    def _run_on(self, executor: Executor) -> _Run:
        registry = executor.id_registry(self.target, version=self.rounds.version, policy=self.policy)
        self.rounds.use(registry)
        return _Run(self, executor, registry, shape(self.spec, executor.resources(), self.options))

    def _run_locally(self, executors: Executors) -> _Run | None:
        """The run in this process, if it may and should be; what has to be read to know is read but once."""
        rows, most = self.source.rows(), LOCAL_ROWS
        is_few = executors.must_be_local or (rows is not None and rows <= most)  # no need to look which are new
        if not executors.may_be_local or (not is_few and rows is not None and rows - self.rows_there > most):
            return None
        run = self._run_on(LocalExecutor())
        run.registry.enrols_all = not is_few and not self._calls_the_roll
        try:
            if self._calls_the_roll or run.registry.enrols_all:
                run.call_the_roll(None if is_few else most)
        except TooManyRows:
            return None
        return run

    @property
    def _calls_the_roll(self) -> bool:
        return is_needed(self.reader.columns, self.source)

    def places(self, what: Noted, registry: IdRegistry) -> tuple[RowPlace, ...]:
        notes = registry.notes(what)
        places = self.source.places([divmod(position, 1 << SPLIT_BITS) for position, _ in notes])
        return tuple(
            RowPlace(id=text, file=file, row=row) for (_, text), (file, row) in zip(notes, places, strict=True)
        )

    def _with_gone(self, report: JobReport, registry: IdRegistry) -> JobReport:
        gone = registry.gone(NOTES)
        report = dataclasses.replace(report, gone=gone.rows, gone_ids=gone.ids)
        if self.policy.gone == "list" or not gone.rows or self.policy.objection(report) is not None:
            return report
        if report.rows_read == 0:
            raise JobError(
                f"the input has no rows at all, so none of the {gone.rows:,} rows of the table was removed; is it the "
                "right input? gone='list' only counts them"
            )
        unknown = [
            f"{count:,} {kind}" for kind, count in self.source.left_out.items() if kind in (UNLISTABLE, UNREADABLE)
        ]
        if unknown:
            raise JobError(
                f"the input has {' and '.join(unknown)}, so none of the {gone.rows:,} rows that it seems to lack was "
                "removed; gone='list' only counts them",
                report,
            )
        removed = registry.remove_gone()
        version = max(report.table_version, removed.version)
        commits = report.commits + (removed.rows > 0)
        return dataclasses.replace(report, removed=removed.rows, table_version=version, commits=commits)


@dataclasses.dataclass(slots=True)
class _Run:
    """A job on one executor."""

    job: Job
    executor: Executor
    registry: IdRegistry
    shape: Shape
    numbers: list[int] | None = None  # of the splits that have work to do; None for all, and before the roll call
    work_s: float = 0.0

    @property
    def plan(self) -> dict[str, Any]:
        limit = {} if self.job.limit is None else {"limit": self.job.limit}
        return {**self.shape.choices, **self.job.rounds.choices, **limit}

    def call_the_roll(self, most: int | None = None) -> None:
        """Let every row say its id; see `Enrol.most`.

        Raises:
            JobError: ids are doubled where they may not be.
            TooManyRows: more rows than `most` have work to do.
        """
        job = self.job
        self.numbers = call_the_roll(
            Enrol(reader=job.reader, registry=self.registry, most=most),
            job.source.splits,
            self.executor,
            at_once=self.shape.readers + 1,
            stall_seconds=self.shape.stall_seconds,
        )
        duplicates = self.registry.tally().duplicates
        if job.policy.duplicates == "error" and duplicates and job.reader.columns.id is not None:
            rows = job.places("duplicate", self.registry)
            raise JobError(f"{doubled(duplicates, rows)}; nothing was written")

    def stream(self) -> None:
        """Read, embed, write and commit."""
        job = self.job
        if self.numbers is None and is_needed(job.reader.columns, job.source):
            self.call_the_roll()
        splits = dict(enumerate(job.source.splits))
        if self.numbers is not None:
            splits = {number: splits[number] for number in self.numbers}
        read = ReadSplits(reader=job.reader, registry=self.registry)
        coming = receipts(splits, read, job.spec, job.target, executor=self.executor, shape=self.shape)
        started = time.monotonic()
        with job.rounds.gathering(), contextlib.closing(coming):  # an error here must end the workers as well
            for receipt in coming:
                job.rounds.add(receipt)
        self.work_s = time.monotonic() - started

    def state(self) -> State:
        """How far it is; asked from another thread."""
        rounds = self.job.rounds
        tally = Tally()
        with contextlib.suppress(LanceAlignError):  # the job itself is about to say so
            tally = self.registry.tally()
        embedded = max(rounds.rows, min(tally.embedded, tally.granted))
        return State(
            phase=self._phase(tally),
            decoded=min(tally.decoded, tally.granted),
            rows=embedded,
            failed=rounds.reasons.total(),
            committed=rounds.committed,
            skipped=tally.there + tally.duplicates + tally.changed,
            version=rounds.version,
        )

    def _phase(self, tally: Tally) -> str:
        if self.job.rounds.is_committing:
            return "committing"
        if self.job.rounds.rows or tally.embedded:
            return "embedding"
        if not tally.read:
            return "looking" if self.shape.is_local else "starting workers"
        # Workers load the model with their first block, which is there by now.
        return "loading the model" if tally.decoded >= min(tally.granted, self.shape.block_rows) else "decoding"

    def _lacking(self) -> int:
        """Rows with an error that an earlier run wrote."""
        target, rounds = self.job.target, self.job.rounds
        counted = count_rows(target.uri, storage_options=target.storage_options, version=rounds.version)
        return max(0, counted.failed - rounds.reasons.total())

    def _failures(self) -> tuple[Failure, ...]:
        target = self.job.target
        version = self.job.rounds.version
        found = first_failed(target.uri, FAILURES, storage_options=target.storage_options, version=version)
        return tuple(Failure(id=key, error=error) for key, error in found)

    def report(self, started_at: datetime) -> JobReport:
        """The account, if every row has come.

        Raises:
            JobError: ids that were to be embedded are not in the table, or the account does not add up.
        """
        job, rounds, shape = self.job, self.job.rounds, self.shape
        tally, settled = self.registry.tally(), self.registry.settled()
        # Ids, each counted once: rows that came twice would make up for others that never came.
        if not tally.granted == settled == rounds.committed + rounds.dropped:
            unread = "".join(f"{reason}; " for _, reason in self.registry.notes("unread")[:1])
            raise JobError(f"{unread}{tally.granted:,} rows were to be embedded, {settled:,} arrived; {GO_ON}")
        lacking = self._lacking() if tally.there else 0
        report = JobReport(
            source=job.source.location.uri,
            table_uri=job.target.uri,
            table_version=rounds.version,
            model=job.spec.name,
            fingerprint=job.spec.fingerprint,
            rows_read=tally.read,
            embedded=rounds.rows - rounds.reasons.total(),
            failed=rounds.reasons.total(),
            reasons=dict(rounds.reasons),
            already_there=tally.there + rounds.dropped,
            duplicates=tally.duplicates,
            updated=tally.again,
            changed=tally.changed,
            duplicate_rows=job.places("duplicate", self.registry),
            changed_rows=job.places("changed", self.registry),
            left_out=dict(Counter(job.source.left_out) + Counter(self.registry.left_out())),
            unread=tuple(reason for _, reason in self.registry.notes("unread")),
            stage_s={"read": tally.read_s, **rounds.seconds},
            workers={"read": shape.readers, "decode": shape.readers, "encode": shape.actors, "write": shape.actors},
            commits=rounds.commits,
            halved=rounds.halved,
            doubled=self.registry.doubled(),
            lacking=lacking,
            failures=self._failures() if lacking or rounds.reasons else (),
            vector=next((column.vector for column in job.target.layout.embedded), None),
            photographs=min(tally.photographs, tally.granted),
            work_s=self.work_s,
            plan=self.plan,
            started_at=started_at,
            finished_at=datetime.now().astimezone(),
        )
        if not report.adds_up:
            raise JobError(f"the account does not add up ({report.to_json()}); {GO_ON}")
        return report
