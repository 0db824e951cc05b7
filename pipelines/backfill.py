#!/usr/bin/env python
"""Give the rows of a LanceDB table vectors, so that words and pictures search it.

The table may be anyone's: --image or --text names the column to embed, and a
vector column is added where there is none. The same command again goes on where
it was stopped, and embeds what was added since. The exit status is 0 when every
row has a vector, or none and its reason in the error column.

    python pipelines/backfill.py --db ./lancedb --table photos --image picture
    python pipelines/backfill.py --db ./lancedb --table notes --text body
    python pipelines/backfill.py --table photos --image image --vector vector_base \\
        --model kakaobrain/align-base
    ray job submit --working-dir . -- python pipelines/backfill.py --db s3://b/db ...
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lance_align import allow_models, attach, backfill, resolve_spec
from lance_align.jobs.command import application, command_line, tell
from lance_align.tables.handles import lancedb_table
from lance_align.tables.location import table_location

app = application("backfill.py", __doc__)
app.default(backfill)


@app.meta.default
def main(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    image: str | None = None,
    text: str | None = None,
    model: str | None = None,
    revision: str | None = None,
    report_json: Path | None = None,
    debug: bool = False,
) -> None:
    """Attach a model where none is attached, and run the job.

    Args:
        image: the column of pictures: encoded bytes, or paths.
        text: the column of texts; without either, the table has to say what it embeds.
        model: a known checkpoint, a hub id, or a local directory; by default the one
            that is attached, else align-tiny.
        revision: the hub commit of the model.
        report_json: a file for the report.
        debug: show the traceback of an error.
    """
    with command_line(report_json=report_json, debug=debug):
        command, bound, _ = app.parse_args(list(tokens), exit_on_error=False, print_error=False)
        bound.apply_defaults()
        options = bound.arguments
        if image is not None or text is not None:
            place = table_location(options["db"], options["table"], storage_options=options["storage_options"])
            attach(
                lancedb_table(place), image=image, text=text, vector=options["vector"], model=model, revision=revision
            )
        elif model is not None:
            allow_models(resolve_spec(model, revision=revision).name)
        tell(command(*bound.args, **bound.kwargs), report_json)


if __name__ == "__main__":
    app.meta(result_action="return_value")
