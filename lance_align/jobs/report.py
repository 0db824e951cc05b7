"""What a job did, as one screen of text and as JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from lance_align.errors import ArgumentError
from lance_align.spec import BUNDLED_MODEL, DEFAULT_MODEL
from lance_align.tables.index_report import IndexReport
from lance_align.tables.layout import VECTOR
from lance_align.told import Told

FAILURES = 5  # that the text names
FEW_PHOTOGRAPHS = 0.5  # of the rows: fewer are no reason to say that a model does not know them
STAGES = ("read", "decode", "encode", "write", "commit")
SHOWN = 3  # rows of a list in the text


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RowPlace:
    """A row of the input.

    Attributes:
        id: its id, cut at 1,000 characters.
        file: the file it is in.
        row: its number there, counted from 0.
    """

    id: str
    file: str
    row: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A row without a vector or text.

    Attributes:
        id: its id, or the number of the row in a table without ids.
        error: why, as the table has it.
    """

    id: str
    error: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class JobReport(Told):
    """The account of one run.

    Every row of the input is in one of `embedded`, `failed`, `already_there`, `duplicates`, `changed`.

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
        already_there: rows whose id the table held before, or got from another writer meanwhile.
        duplicates: rows whose id an earlier row of the input has; that row counts.
        stage_s: seconds of work in each of `STAGES`, summed over workers, so that they may exceed `elapsed_s`.
        workers: how many tasks or actors could work at once in each stage.
        commits: versions this run made.
        halved: how often a batch did not fit into a worker's memory, and the size of its later batches was halved.
        started_at, finished_at: with time zone.
        updated: rows written in place of one that was there; they are among `embedded` and `failed`.
        changed: rows whose id the table holds with another content, which was left as it is.
        duplicate_rows, changed_rows: where such rows stand, the first 1,000 in the input's order.
        gone: rows that the table held when the run began and that the input does not have; None if nobody asked.
        gone_ids: the first 1,000 of their ids, in the table's order.
        removed: how many of them were removed.
        doubled: rows of the table whose id another of its rows has, since before the run.
        lacking: rows of the table that earlier runs wrote without a vector or text, with the reason.
        failures: the first rows of the table with an error, of this run or an earlier one.
        error_column: the column that has it.
        vector: the column that words search; None for descriptions.
        photographs: images among the rows that are JPEGs of a camera's size.
        work_s: seconds from the first row read to the last commit; what is before is the start.
        left_out: how many files and folders lie in the input and are no rows, by kind: a suffix, or words.
        unread: why files of the input could not be read to their end, the first 1,000; their rows are not all in.
        plan: what was chosen for the cluster, by the names of the job's options.
        indexes: what was done about the index of each vector column; empty where nobody asked.
        work: what was done to rows; `embedded` counts the described ones where it is that.
        cut: rows among these whose description ended at its limit of tokens.
        then: the account of the embedding of what was described; None where nobody asked.

    >>> report = lance_align.embed("photos", table="photos", model="align-tiny", executor="local")
    >>> print(report.to_text())
    embedded ...photos
        into ...photos.lance (version 2, 1 commits)
    ...
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
    updated: int = 0
    changed: int = 0
    duplicate_rows: Sequence[RowPlace] = ()
    changed_rows: Sequence[RowPlace] = ()
    gone: int | None = None
    gone_ids: Sequence[str] = ()
    removed: int = 0
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)
    unread: Sequence[str] = ()
    doubled: int = 0
    lacking: int = 0
    failures: Sequence[Failure] = ()
    error_column: str = "error"
    vector: str | None = None
    photographs: int = 0
    work_s: float | None = None
    plan: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    indexes: Sequence[IndexReport] = ()
    work: Literal["embedded", "described"] = "embedded"
    cut: int = 0
    then: JobReport | None = None

    @property
    def elapsed_s(self) -> float:
        """Wall clock from start to finish."""
        return (self.finished_at - self.started_at).total_seconds()

    @property
    def rows_written(self) -> int:
        """Rows this run wrote into the table."""
        return self.embedded + self.failed

    @property
    def rows_per_s(self) -> float:
        """Rows written a second, the start left out."""
        seconds = self.work_s or self.elapsed_s
        return self.rows_written / seconds if seconds > 0 else 0.0

    @property
    def adds_up(self) -> bool:
        """Whether every row read is accounted for."""
        return self.rows_read == self.rows_written + self.already_there + self.duplicates + self.changed

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
        for name in ("duplicate_rows", "changed_rows", "indexes", "failures"):
            fields[name] = [dataclasses.asdict(row) for row in getattr(self, name)]
        fields["then"] = None if self.then is None else json.loads(self.then.to_json())
        return json.dumps(fields, indent=2, default=dict)

    def to_text(self) -> str:
        """One screen for people."""
        lines = [
            f"{self.work} {self.source}",
            f"    into {self.table_uri} (version {self.table_version}, {self.commits} commits)",
            f"    with {self.model} (fingerprint {self.fingerprint})",
            "",
            f"  rows read      {self.rows_read:>12,}",
            f"  {self.work:<15}{self.embedded:>12,}",
            f"  already there  {self.already_there:>12,}",
            f"  duplicates     {self.duplicates:>12,}",
            f"  failed         {self.failed:>12,}",
        ]
        lines += [f"    {kind:<13}{count:>12,}" for kind, count in sorted(self.reasons.items(), key=lambda r: -r[1])]
        lines += self._life()
        if self.halved:
            times = "once" if self.halved == 1 else f"{self.halved:,} times"
            lines += ["", f"  memory ran out and batches were halved {times}; every row was tried again"]
        lines += ["", f"  {self.elapsed_s:.1f} s, {rate(self.rows_per_s)}", "  work by stage:"]
        for stage, share in self.shares().items():
            mark = "  <- bottleneck" if stage == self.bottleneck else ""
            lines.append(f"    {stage:<8}{self.stage_s.get(stage, 0.0):>10.1f} s {share:>6.0%}{mark}")
        if self.plan:
            lines += [f"  {plan_line(self.plan)}"]
        lines += [f"  {line}" for index in self.indexes for line in index.to_lines()]
        lines += self._next_steps()
        lines += ["", self.then.to_text()] if self.then is not None else []
        return "\n".join(lines)

    def _next_steps(self) -> list[str]:
        """What to do about rows without a vector, and how to search the others."""
        what = "text" if self.work == "described" else "vector"
        lines = []
        missing = self.failed + self.lacking
        if missing:
            lines = [f"  {missing:,} rows of the table lack a {what}; --retry-errors tries them again:"]
            lines += [f"    {short(row.id)}  {row.error}" for row in self.failures[:FAILURES]]
            if missing > len(self.failures[:FAILURES]):
                lines.append(f'    all of them: table.search().where("{self.error_column} IS NOT NULL")')
        if self.model == BUNDLED_MODEL and self.photographs > FEW_PHOTOGRAPHS * max(1, self.rows_written):
            lines.append(
                f"  these look like photographs, which {BUNDLED_MODEL} does not know: it learnt drawings and emoji; "
                f"embed them into another table with --model {DEFAULT_MODEL}"
            )
        if self.vector is not None and (self.embedded or self.already_there > self.lacking):
            lines.append(f"  search it: {self._search_command()}")
        return lines

    def _search_command(self) -> str:
        db, _, name = self.table_uri.removesuffix(".lance").rpartition("/")
        place = shortest_path(db)
        words = ["lance-align", "search", "a red car", "--db", place, "--table", name]
        words += [] if self.vector in (None, VECTOR) else ["--vector", str(self.vector)]
        return shlex.join(words)

    def _life(self) -> list[str]:
        """Lines about rows that were not simply new; none where there are none."""
        counts = [
            ("changed, as it was", self.changed),
            ("updated, of these", self.updated),
            ("cut, of these", self.cut),
            ("gone from input", self.gone),
            ("removed, of gone", self.removed),
        ]
        lines = [f"  {name:<18}{count:>9,}" for name, count in counts if count]
        for name, count, rows in (
            ("duplicate", self.duplicates, self.duplicate_rows),
            ("changed", self.changed, self.changed_rows),
        ):
            lines += [f"    {name} {short(row.id)} in {short_path(row.file)}, row {row.row}" for row in rows[:SHOWN]]
            if rows and count > SHOWN:
                lines.append(f"    and {count - SHOWN:,} more")
        lines += [f"    gone {short(text)}" for text in self.gone_ids[:SHOWN]]
        if self.left_out:
            kinds = sorted(self.left_out.items(), key=lambda item: (-item[1], item[0]))
            lines += [f"  left out          {sum(self.left_out.values()):>9,}"]
            lines += [f"    {count:,} {short(kind) if not kind.isprintable() else kind}" for kind, count in kinds]
        lines += [f"  unread: {reason}" for reason in self.unread[:SHOWN]]
        return lines


def shortest_path(path: str) -> str:
    """A local path as seen from here where that is shorter."""
    if "://" in path or not Path(path).is_absolute():
        return path
    try:
        near = os.path.relpath(path)
    except (OSError, ValueError):  # the working directory is gone, or lies on another drive
        return path
    return min(near if near.startswith("..") or near == "." else f"./{near}", path, key=len)


def rate(rows_per_s: float) -> str:
    """Rows a second, with two digits where there are few: a model on a CPU may need seconds for one."""
    return f"{rows_per_s:,.0f} rows/s" if rows_per_s >= 10 else f"{rows_per_s:.2g} rows/s"


def plan_line(plan: Mapping[str, Any]) -> str:
    """A plan in a line: what was chosen, whoever chose it."""
    return "plan: " + ", ".join(f"{name} {value}" for name, value in plan.items())


def short(text: str, limit: int = 40) -> str:
    """Anybody's text on a line: quoted, control and direction marks escaped, cut."""
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")


def short_path(uri: str, limit: int = 40) -> str:
    """The end of a path."""
    return uri if len(uri) <= limit else "…" + uri[1 - limit :]


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
