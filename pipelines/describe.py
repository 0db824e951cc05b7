#!/usr/bin/env python
"""Write texts about the pictures of a LanceDB table into a new column of it.

BLIP captions pictures and answers questions; InstructBLIP and LLaVA follow an
instruction, which may name other columns. The same command again goes on where
it was stopped, and describes what was added since. The exit status is 0 when
every row has a text, or none and its reason in the column's error column.

    python pipelines/describe.py --table photos --column caption \\
        --model Salesforce/blip-image-captioning-base --fts
    python pipelines/describe.py --table photos --column people \\
        --model Salesforce/blip-vqa-base --prompt "how many people are there?"
    python pipelines/describe.py --table photos --column alt --embed align-tiny \\
        --model llava-hf/llava-1.5-7b-hf --max-new-tokens 100 \\
        --prompt "The title is {title}. Describe the picture in one sentence."
    ray job submit --working-dir . -- python pipelines/describe.py --db s3://b/db ...
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lance_align import describe
from lance_align.jobs.command import application, command_line, tell

app = application("describe.py", __doc__)
app.default(describe)


@app.meta.default
def main(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    report_json: Path | None = None,
    debug: bool = False,
) -> None:
    """Run the job.

    Args:
        report_json: a file for the report.
        debug: show the traceback of an error.
    """
    with command_line(report_json=report_json, debug=debug):
        command, bound, _ = app.parse_args(list(tokens), exit_on_error=False, print_error=False)
        tell(command(*bound.args, **bound.kwargs), report_json)


if __name__ == "__main__":
    app.meta(result_action="return_value")
