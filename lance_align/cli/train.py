"""``lance-align train``."""

from __future__ import annotations

from typing import Any

from lance_align.cli.command import application
from lance_align.cli.jobs import job_command
from lance_align.jobs.train import train

app = application(
    "lance-align train",
    """Fine-tune ALIGN, CLIP or a VisionTextDualEncoder on a table of image-text pairs.

The same command again goes on where a run was stopped. Recall on held-out rows is measured before the first step and
after the last.

    lance-align train ./lancedb/photos.lance --model align-tiny --held-out 1000 --minutes 30 --out mine
    lance-align train ./lancedb/photos.lance --vision-model vit --text-model bert --freeze-image-tower \\
        --steps 2000 --out pair
    lance-align train ./lancedb/photos.lance --model pair --batch-size 4096 --pairs-per-pass 64 --workers 4 \\
        --steps 9000 --out tuned
""",
)
GO_ON = "its last checkpoint stays; run the same command again to go on"


def command(**given: Any) -> None:
    """Train, and print what was done."""
    print(train(**given).to_text())


app.default(job_command(command, train, run=None))
