"""One run of the backfill job, from the driver's side: vectors in, rounds of commits out, until no row is empty."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import pyarrow as pa

from lance_align.errors import JobError
from lance_align.jobs.cluster import Shape
from lance_align.jobs.failures import GO_ON, job_failures
from lance_align.jobs.fill_rounds import FillRounds
from lance_align.jobs.gaps import ReadGaps, gap_splits
from lance_align.jobs.plan import stream
from lance_align.jobs.progress import State, reporter
from lance_align.jobs.report import JobReport
from lance_align.jobs.vectors import VectorMaker
from lance_align.spec import ModelSpec
from lance_align.tables.filling import Filler, Survey

MAX_PASSES = 20  # over what other writers moved or added in the meantime
PAUSE_S = 1.0  # after a pass that others have spoilt altogether


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FillJob:
    """Everything one run needs; see `lance_align.jobs.backfill`.

    Attributes:
        filler: of the table and the column.
        rounds: its commits.
        read: what tasks do.
        spec: the model.
        shape: how the cluster is used.
        device: where the model runs.
    """

    filler: Filler
    rounds: FillRounds
    read: ReadGaps
    spec: ModelSpec
    shape: Shape
    device: str

    def run(self, *, started_at: datetime, progress: bool, log_file: str | os.PathLike[str] | None = None) -> JobReport:
        """Fill what is empty, and look again until nothing is.

        Raises:
            LanceAlignError: the run ended early; what was made till then is committed where that is possible.
            JobError: rows are still empty after `MAX_PASSES` passes.
        """
        with job_failures():
            survey = self.filler.survey()
            there = survey.rows - survey.empty
            with reporter(survey.rows, lambda: self._state(there), show=progress, log_file=log_file):
                for _ in range(MAX_PASSES):
                    if not survey.empty:
                        break
                    self._fill(survey)
                    survey = self.filler.survey()
        if survey.empty:
            raise JobError(
                f"{survey.empty:,} rows of {self.filler.uri} have no vector yet: in {MAX_PASSES} passes others "
                f"always changed or added some; {GO_ON}"
            )
        return self._report(there, started_at)

    def _fill(self, survey: Survey) -> None:
        committed = self.rounds.committed
        with self.rounds.gathering(survey):
            for table in self._vectors(survey):
                self.rounds.add(table)
        if self.rounds.committed == committed:
            time.sleep(PAUSE_S)

    def _vectors(self, survey: Survey) -> Iterator[pa.Table]:
        source = dataclasses.replace(self.read.source, version=survey.version)
        read = dataclasses.replace(self.read, source=source)
        splits = gap_splits(survey, path=source.uri)
        filling = self.filler.filling
        rows: list[Mapping[str, Any]] = [{"split": split.to_json()} for split in splits]
        arguments = (self.spec, filling, self.device, self.shape.threads)
        return stream(rows, read.__call__, VectorMaker, arguments, shape=self.shape)

    def _state(self, there: int) -> State:
        rounds = self.rounds
        return State(
            rows=rounds.arrived,
            failed=rounds.reasons.total(),
            committed=rounds.committed,
            skipped=there,
            version=self.filler.version,
        )

    def _report(self, there: int, started_at: datetime) -> JobReport:
        rounds, shape = self.rounds, self.shape
        column = self.filler.filling.column
        failed = rounds.reasons.total()
        return JobReport(
            source=f"column {column.source!r}, into {column.vector!r},",
            table_uri=self.filler.uri,
            table_version=self.filler.version,
            model=self.spec.name,
            fingerprint=self.spec.fingerprint,
            rows_read=rounds.committed + there,
            embedded=rounds.committed - failed,
            failed=failed,
            reasons=dict(rounds.reasons),
            already_there=there,
            duplicates=0,
            stage_s=rounds.seconds,
            workers={"read": shape.readers, "decode": shape.readers, "encode": shape.actors},
            commits=rounds.commits,
            halved=rounds.halved,
            started_at=started_at,
            finished_at=datetime.now().astimezone(),
        )
