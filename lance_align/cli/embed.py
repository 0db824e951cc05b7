"""``lance-align embed``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lance_align.cli.command import application, telling
from lance_align.cli.jobs import GO_ON as GO_ON
from lance_align.cli.jobs import job_command, options_of
from lance_align.jobs.aftercare import clean_table, verify_table
from lance_align.jobs.embed import embed

app = application(
    "lance-align embed",
    """Embed images and texts into a LanceDB table that words and images search.

Run the same command again and only new rows are done. The exit status is 0 when every row of the input is in the table,
embedded or with its reason in the column `error`.

    lance-align embed PHOTOS --db ./lancedb --table photos
    ray job submit --working-dir . -- python pipelines/embed.py s3://b/in --table t
""",
)


def command(*, report_json: Path | None = None, verify: bool = False, cleanup: bool = False, **given: Any) -> None:
    """Run the job, and look after the table.

    Args:
        report_json: a file for the report.
        verify: check every row of the table afterwards, and embed some again; findings make the exit status 1.
        cleanup: remove files older than a day that no version of the table needs.
    """
    with telling(report_json) as tell:
        tell(embed(**given))
    if cleanup:
        print(clean_table(**options_of(clean_table, given)).to_text())
    if verify:
        found = verify_table(**options_of(verify_table, given))
        print(found.to_text())
        found.raise_if_bad()


app.default(job_command(command, embed))
