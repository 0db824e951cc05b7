"""``lance-align demo``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

from lance_align.cli.command import application, telling
from lance_align.cli.jobs import GO_ON as GO_ON
from lance_align.cli.jobs import job_command
from lance_align.corpora import demo_source, openmoji
from lance_align.encoders.engines.store import cache_folder
from lance_align.jobs.embed import embed
from lance_align.jobs.report import JobReport
from lance_align.tables.handles import lancedb_table
from lance_align.tables.location import table_location

Corpus = Literal["openmoji", "scenes"]

# What the demo asks of its table: three texts, then the image that a fourth one finds.
QUESTIONS: dict[Corpus, tuple[tuple[str, str, str], str]] = {
    "openmoji": (("vehicle", "smiling cat", "weather"), "red apple"),
    "scenes": (("a red car", "a blue star", "a green tree"), "a yellow house"),
}

app = application(
    "lance-align demo",
    """Embed a demo corpus with the small bundled model, ask it three texts and an image, and draw the answers as PNG.

    lance-align demo
    lance-align demo scenes --rows 20000 --table scenes
""",
)


def demo(
    corpus: Corpus = "openmoji",
    *,
    rows: int | None = None,
    seed: int = 0,
    table: str = "demo",
    model: str = "align-tiny",
    sheet: Path | None = None,
    report_json: Path | None = None,
    **given: Any,
) -> None:
    """Run the demo.

    Args:
        corpus: openmoji, the pictures of all emoji, or scenes, which are drawn.
        rows: how many images; by default all of OpenMoji, 2,000 scenes.
        seed: which scenes are drawn.
        table: the table's name.
        model: a known checkpoint, a hub id, or a local directory.
        sheet: the PNG of the answers; by default the table's name, here.
        report_json: a file for the report.
    """
    print(f"preparing the demo corpus {corpus} …", file=sys.stderr, flush=True)
    kept = cache_folder("corpora") or Path(tempfile.gettempdir(), "lance_align")
    source = demo_source(corpus, directory=kept, rows=rows, seed=seed)
    with telling(report_json) as tell:
        report = embed(source, table=table, model=model, **given)
        tell(report)
    _ask(corpus, report, Path(f"{table}.png") if sheet is None else sheet)


def _ask(corpus: Corpus, report: JobReport, sheet: Path) -> None:
    """Search with plain LanceDB, print what is found, and draw it."""
    from lance_align.explore import contact_sheet

    db, _, name = report.table_uri.removesuffix(".lance").rpartition("/")
    table = lancedb_table(table_location(db, name))
    texts, example = QUESTIONS[corpus]

    def ask(query: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = table.search(query, vector_column_name="vector").limit(6).to_list()
        return found

    answers = {text: ask(text) for text in texts}
    best = ask(example)[0]
    title = f"picture: {best['caption']}"
    answers[title] = ask(best["image"])
    for query, hits in answers.items():
        print(f"{query!r}: " + ", ".join(str(row["caption"]) for row in hits))
    credit = openmoji.CREDIT if corpus == "openmoji" else ""
    drawn = contact_sheet(answers, pictures={title: best["image"]}, caption="caption", credit=credit)
    print(f"wrote {drawn.save(sheet)}")


app.default(job_command(demo, embed, without=("source",)))
