"""``lance-align describe``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lance_align.cli.command import application, telling
from lance_align.cli.jobs import GO_ON as GO_ON
from lance_align.cli.jobs import job_command
from lance_align.jobs.describe import DescribeOptions, describe

app = application(
    "lance-align describe",
    """Write texts about the images of a LanceDB table into a new column of it.

BLIP captions images and answers questions; InstructBLIP and LLaVA follow an instruction, which may name other columns.
The same command again goes on where it was stopped, and describes what was added since. The exit status is 0 when every
row has a text, or none and its reason in the column's error column.

    lance-align describe --table photos --column caption --model Salesforce/blip-image-captioning-base --fts
    lance-align describe --table photos --column people --model Salesforce/blip-vqa-base \\
        --prompt "how many people are there?"
    lance-align describe --table photos --column alt --embed align-tiny --model llava-hf/llava-1.5-7b-hf \\
        --max-new-tokens 100 --prompt "The title is {title}. Describe the picture in one sentence."
""",
)


def command(*, report_json: Path | None = None, **given: Any) -> None:
    """Run the job.

    Args:
        report_json: a file for the report.
    """
    with telling(report_json) as tell:
        tell(describe(**given))


app.default(job_command(command, describe, run=DescribeOptions))
