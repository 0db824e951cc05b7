"""One run of a filling job, from the driver's side: values in, rounds of commits out, until no row is empty."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections import Counter
from collections.abc import Generator, Mapping
from datetime import datetime
from typing import Any

import pyarrow as pa

from lance_align.describers.base import CUT
from lance_align.describers.spec import DescriberSpec
from lance_align.errors import JobError
from lance_align.jobs.executors.base import Executor
from lance_align.jobs.executors.choice import LOCAL_ROWS, Executors
from lance_align.jobs.failures import GO_ON, job_failures
from lance_align.jobs.filling.gaps import ReadGaps, gap_splits
from lance_align.jobs.filling.making import Maker
from lance_align.jobs.filling.rounds import FillRounds
from lance_align.jobs.progress import State, reporter
from lance_align.jobs.report import FAILURES, Failure, JobReport, plan_line
from lance_align.jobs.shape import Shape, ShapeOptions, shape
from lance_align.spec import ModelSpec
from lance_align.tables.done import count_rows, first_failed
from lance_align.tables.filling import Filler, Survey

MAX_PASSES = 100  # over what other writers moved or added in the meantime
MAX_FRUITLESS_PASSES = 10  # of these, one after the other


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FillJob:
    """Everything one run needs; see `lance_align.jobs.backfill` and `lance_align.jobs.describe`.

    Attributes:
        filler: of the table and the column.
        rounds: its commits.
        read: what tasks do.
        spec: the model.
        maker: what an actor is; made with the model, the filling and the shape.
        options: how resources are used.
        most_local: rows that are few enough for this process.
        limit: how many empty rows are filled at most; None for all.
    """

    filler: Filler
    rounds: FillRounds
    read: ReadGaps
    spec: ModelSpec | DescriberSpec
    maker: type[Maker]
    options: ShapeOptions
    most_local: int = LOCAL_ROWS
    limit: int | None = None

    def run(
        self,
        executors: Executors,
        *,
        started_at: datetime,
        progress: bool,
        log_file: str | os.PathLike[str] | None = None,
    ) -> JobReport:
        """Fill what is empty, and look again until nothing is.

        Raises:
            LanceAlignError: the run ended early; what was made till then is committed where that is possible.
            JobError: rows are still empty after `MAX_PASSES` passes, or `MAX_FRUITLESS_PASSES` in which none landed.
        """
        with job_failures():
            survey, there = self._survey()
            executor = executors.for_rows(survey.empty, most_local=self.most_local)
            plan = shape(self._encoder, executor.resources(), self.options)
            state = functools.partial(self._state, there)
            with reporter(
                there + survey.empty, state, show=progress, log_file=log_file, plan=plan_line(self._plan(plan))
            ):
                passes = fruitless = 0
                while survey.empty and passes < MAX_PASSES and fruitless < MAX_FRUITLESS_PASSES:
                    committed = self.rounds.committed
                    self._fill(survey, executor, plan)
                    passes += 1
                    fruitless = 0 if self.rounds.committed > committed else fruitless + 1
                    survey, _ = self._survey()
        if survey.empty:
            raise JobError(
                f"{survey.empty:,} rows of {self.filler.uri} are still empty: in {passes} passes others "
                f"always moved or added some; {GO_ON}"
            )
        return self._report(there, started_at, plan)

    def _survey(self) -> tuple[Survey, int]:
        """What is to be filled, and how many rows need nothing."""
        survey = self.filler.survey()
        there = survey.rows - survey.empty
        if self.limit is not None:
            survey = self.filler.first(survey, max(0, self.limit - self.rounds.committed))
        return survey, there

    @property
    def _encoder(self) -> ModelSpec | None:
        return self.spec if isinstance(self.spec, ModelSpec) else None

    def _plan(self, shape: Shape) -> dict[str, Any]:
        limit = {} if self.limit is None else {"limit": self.limit}
        return {**shape.choices, **self.rounds.choices, **limit}

    def _fill(self, survey: Survey, executor: Executor, shape: Shape) -> None:
        self.rounds.expect(survey)
        coming = self._values(survey, executor, shape)
        with self.rounds.gathering(), contextlib.closing(coming):  # an error here must end the workers as well
            for table in coming:
                self.rounds.add(table)

    def _values(self, survey: Survey, executor: Executor, shape: Shape) -> Generator[pa.Table, None, None]:
        source = dataclasses.replace(self.read.source, version=survey.version)
        read = dataclasses.replace(self.read, source=source)
        splits = gap_splits(survey, path=source.uri)
        filling = self.filler.filling
        rows: list[Mapping[str, Any]] = [{"split": split.to_json()} for split in splits]
        arguments = (self.spec, filling, shape)
        return executor.stream(rows, read.__call__, self.maker, arguments, table_rows=read.table_rows, shape=shape)

    def _state(self, there: int) -> State:
        rounds = self.rounds
        working = "describing" if isinstance(self.spec, DescriberSpec) else "embedding"
        phase = "committing" if rounds.is_committing else working if rounds.arrived else "starting, loading the model"
        return State(
            phase=phase,
            rows=rounds.arrived,
            failed=rounds.reasons.total() - rounds.reasons[CUT],
            committed=rounds.committed,
            skipped=there,
            version=self.filler.version,
        )

    def _lacking(self, new: int) -> int:
        """Rows with an error that an earlier run wrote; a description that was cut has one as well, and its text."""
        counted = count_rows(
            self.filler.uri,
            error=self.filler.filling.error,
            storage_options=self.read.source.storage_options,
            version=self.filler.version,
        )
        return max(0, counted.failed - new)

    def _failures(self) -> tuple[Failure, ...]:
        found = first_failed(
            self.filler.uri,
            FAILURES,
            error=self.filler.filling.error,
            storage_options=self.read.source.storage_options,
            version=self.filler.version,
        )
        return tuple(Failure(id=key, error=error) for key, error in found)

    def _report(self, there: int, started_at: datetime, shape: Shape) -> JobReport:
        rounds = self.rounds
        filling = self.filler.filling
        reasons = Counter(rounds.reasons)
        cut = reasons.pop(CUT, 0)  # these have their text
        failed = reasons.total()
        lacking = self._lacking(failed + cut) if there else 0
        return JobReport(
            source=f"column {filling.sources[0]!r}, into {filling.target!r},",
            work="described" if isinstance(self.spec, DescriberSpec) else "embedded",
            table_uri=self.filler.uri,
            table_version=self.filler.version,
            model=self.spec.name,
            fingerprint=self.spec.fingerprint,
            rows_read=rounds.committed + there,
            embedded=rounds.committed - failed,
            failed=failed,
            reasons=dict(reasons),
            cut=cut,
            already_there=there,
            lacking=lacking,
            failures=self._failures() if lacking or failed else (),
            error_column=filling.error,
            vector=filling.target if self._encoder is not None else None,
            duplicates=0,
            stage_s=rounds.seconds,
            workers={"read": shape.readers, "decode": shape.readers, "encode": shape.actors},
            commits=rounds.commits,
            halved=rounds.halved,
            plan=self._plan(shape),
            started_at=started_at,
            finished_at=datetime.now().astimezone(),
        )
