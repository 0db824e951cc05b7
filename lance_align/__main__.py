"""``lance-align models``, or ``python -m lance_align models``: the models that are known by name.

Jobs are scripts: see ``pipelines/``.
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from lance_align.encoders.catalogue import known_models
from lance_align.encoders.families import FAMILIES
from lance_align.jobs.command import application, run

app = application("lance-align", "Search tables of images and text with words, pictures, or both.")


@app.command
def models() -> None:
    """Print the supported families, and the checkpoints known by name: those here, and those the hub has."""
    console = Console()
    console.print(f"families: {', '.join(sorted(FAMILIES))}", highlight=False)
    table = Table(box=None, pad_edge=False)
    for title in ("family", "checkpoint", "dim", "here", ""):
        # Names are to be copied, so it is the last column that gives way on a narrow screen.
        table.add_column(title, justify="right" if title == "dim" else "left", no_wrap=title != "")
    for model in known_models():
        here = "no" if model.size_mb is None else f"{model.size_mb:,.0f} MB"
        table.add_row(model.family, model.name, str(model.dim), here, model.summary)
    console.print(table)


def main() -> None:
    """The command line."""
    run(app)


if __name__ == "__main__":
    main()
