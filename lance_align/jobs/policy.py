"""What a job does about rows that are there, doubled, changed or gone, and when it counts as failed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from lance_align.jobs.checks import check_choices
from lance_align.jobs.ledger.ledger import OnChanged
from lance_align.jobs.report import JobReport, RowPlace, short, too_many

Duplicates = Literal["skip", "error"]
WhenGone = Literal["ignore", "list", "remove"]

_NAMED = 3  # ids in an error message


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """See `lance_align.jobs.embed` for the words.

    Raises:
        ArgumentError: a word that is none of those allowed.
    """

    duplicates: Duplicates = "skip"
    on_changed: OnChanged = "skip"
    retry_errors: bool = False
    gone: WhenGone = "ignore"
    max_errors: int | float | None = None

    def __post_init__(self) -> None:
        for name, words in (("duplicates", Duplicates), ("on_changed", OnChanged), ("gone", WhenGone)):
            check_choices(words=words, **{name: getattr(self, name)})

    def objection(self, report: JobReport) -> str | None:
        """Why a run that came to its end counts as failed, in one line; None if it does not."""
        if report.unread:
            more = "" if len(report.unread) == 1 else f" (and {len(report.unread) - 1:,} more)"
            return (
                f"{report.unread[0]}{more}; what could be read is in the table, nothing was removed, and the same "
                "command goes on once the file is mended"
            )
        if report.doubled:
            return (
                f"{report.doubled:,} rows of {report.table_uri} have an id that another row of it has, since before "
                "this run; see lance_align.verify, and delete one of each"
            )
        if self.duplicates == "error" and report.duplicates:
            return doubled(report.duplicates, report.duplicate_rows)
        if self.on_changed == "error" and report.changed:
            return (
                f"{report.changed:,} rows of the input have another content than the table's rows of the same id "
                f"({_first(report.changed, report.changed_rows)}), which were left as they are; --on-changed update "
                "embeds them again"
            )
        if self.max_errors is not None and too_many(report, self.max_errors):
            limit = f"{100 * self.max_errors:.6g}%" if isinstance(self.max_errors, float) else f"{self.max_errors:,}"
            return (
                f"{report.failed:,} of {report.rows_written:,} rows could not be {report.work}, more than "
                f"max_errors={limit} allows; they are in the table with their reasons"
            )
        if report.rows_written and not report.embedded:
            kinds = ", ".join(f"{kind} {count:,}" for kind, count in report.reasons.items())
            return (
                f"none of {report.failed:,} rows could be {report.work} ({kinds}); they are in the table with their "
                "reasons: see its error column, and try again with --retry-errors"
            )
        return None


def doubled(count: int, rows: Sequence[RowPlace]) -> str:
    """What is wrong with an input that has duplicates where there may be none."""
    return (
        f"{count:,} rows of the input have the id of an earlier row ({_first(count, rows)}); make ids unique, or let "
        "the first of each count with --duplicates skip"
    )


def _first(count: int, rows: Sequence[RowPlace]) -> str:
    named = ", ".join(f"{short(row.id)} in {row.file}, row {row.row}" for row in rows[:_NAMED])
    return f"{named}, …" if count > _NAMED else named
