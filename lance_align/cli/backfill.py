"""``lance-align backfill``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lance_align.attaching import attach
from lance_align.cli.command import application, telling
from lance_align.cli.jobs import GO_ON as GO_ON
from lance_align.cli.jobs import job_command
from lance_align.encoders import allow_models, resolve_spec
from lance_align.jobs.backfill import backfill
from lance_align.tables.handles import lancedb_table
from lance_align.tables.location import table_location

app = application(
    "lance-align backfill",
    """Give the rows of a LanceDB table vectors, so that words and images search it.

The table may be anyone's: `--image` or `--text` names the column to embed, and a vector column is added where there is
none. The same command again goes on where it was stopped, and embeds what was added since. The exit status is 0 when
every row has a vector, or none and its reason in the error column.

    lance-align backfill --db ./lancedb --table photos --image picture
    lance-align backfill --table notes --text body --model align-tiny
    lance-align backfill --table photos --image image --vector vector_base --model kakaobrain/align-base
""",
)


def command(
    *,
    image: str | None = None,
    text: str | None = None,
    model: str | None = None,
    revision: str | None = None,
    report_json: Path | None = None,
    **given: Any,
) -> None:
    """Attach a model where none is attached, and run the job.

    Args:
        image: the column of images: encoded bytes, or paths.
        text: the column of texts; without either, the table has to say what it embeds.
        model: a known checkpoint, a hub id, or a local directory; by default the one that is attached, else
            kakaobrain/align-base.
        revision: the hub commit of the model.
        report_json: a file for the report.
    """
    with telling(report_json) as tell:
        if image is not None or text is not None:
            place = table_location(given["db"], given["table"], storage_options=given["storage_options"])
            table = lancedb_table(place)
            attach(table, image=image, text=text, vector=given["vector"], model=model, revision=revision)
        elif model is not None:
            allow_models(resolve_spec(model, revision=revision).name)
        tell(backfill(**given))


app.default(job_command(command, backfill))
