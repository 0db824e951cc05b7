#!/usr/bin/env python
"""Embed images and texts into a LanceDB table that words and pictures search.

Run the same command again and only new rows are done. The exit status is 0 when
every row of the input is in the table, embedded or with its reason in the
column "error". Without arguments it embeds and searches the demo corpus.

    python pipelines/embed.py
    python pipelines/embed.py PHOTOS --db ./lancedb --table photos
    python pipelines/embed.py --demo scenes --rows 20000 --table scenes
    ray job submit --working-dir . -- python pipelines/embed.py s3://b/in --table t
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from lance_align import JobReport, embed
from lance_align.corpora import demo_source, openmoji
from lance_align.jobs.aftercare import clean_table, verify_table
from lance_align.jobs.command import application, command_line, tell
from lance_align.tables.handles import lancedb_table
from lance_align.tables.location import table_location

Demo = Literal["openmoji", "scenes"]

app = application("embed.py", __doc__)
app.default(embed)

# What the demo asks of its table: three texts, then the picture that a fourth one finds.
QUESTIONS: dict[Demo, tuple[tuple[str, str, str], str]] = {
    "openmoji": (("vehicle", "smiling cat", "weather"), "red apple"),
    "scenes": (("a red car", "a blue star", "a green tree"), "a yellow house"),
}


@app.meta.default
def main(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    demo: Demo | None = None,
    rows: int | None = None,
    seed: int = 0,
    report_json: Path | None = None,
    verify: bool = False,
    cleanup: bool = False,
    debug: bool = False,
) -> None:
    """Run the job; without a source it is the demo.

    Args:
        demo: embed a demo corpus, then ask it three texts and a picture; the answers become a PNG.
        rows: how many pictures of the demo corpus; by default all of OpenMoji, 2,000 scenes.
        seed: which scenes the demo draws.
        report_json: a file for the report.
        verify: check every row of the table afterwards, and embed some again; findings make the exit status 1.
        cleanup: remove files older than a day that no version of the table needs.
        debug: show the traceback of an error.
    """
    if demo is None and not tokens:
        demo = "openmoji"
    with command_line(report_json=report_json, debug=debug):
        given = _run(list(tokens), demo=demo, rows=rows, seed=seed, report_json=report_json)
        if cleanup:
            print(clean_table(**_wanted(clean_table, given)).to_text())
        if verify:
            found = verify_table(**_wanted(verify_table, given))
            print(found.to_text())
            found.raise_if_bad()


def _run(
    arguments: list[str], *, demo: Demo | None, rows: int | None, seed: int, report_json: Path | None
) -> dict[str, Any]:
    """The job's arguments, defaults included, after it has run."""
    if demo is not None:
        print(f"preparing the demo corpus {demo} …", file=sys.stderr, flush=True)
        if not any(token.split("=")[0] == "--table" for token in arguments):
            arguments += ["--table", "demo"]
        arguments.insert(0, os.fspath(demo_source(demo, directory=_cache(), rows=rows, seed=seed)))
    command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    bound.apply_defaults()
    report: JobReport = command(*bound.args, **bound.kwargs)
    tell(report, report_json)
    if demo is not None:
        _ask(demo, report)
    return bound.arguments


def _wanted(function: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in inspect.signature(function).parameters}


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lance-align"


def _ask(demo: Demo, report: JobReport) -> None:
    """Search with plain LanceDB, print what is found, and draw it."""
    from lance_align.explore import contact_sheet

    db, _, name = report.table_uri.removesuffix(".lance").rpartition("/")
    table = lancedb_table(table_location(db, name))
    texts, example = QUESTIONS[demo]

    def ask(query: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = table.search(query, vector_column_name="vector").limit(6).to_list()
        return found

    answers = {text: ask(text) for text in texts}
    best = ask(example)[0]
    title = f"picture: {best['caption']}"
    answers[title] = ask(best["image"])
    for query, hits in answers.items():
        print(f"{query!r}: " + ", ".join(str(row["caption"]) for row in hits))
    credit = openmoji.CREDIT if demo == "openmoji" else ""
    sheet = contact_sheet(answers, pictures={title: best["image"]}, caption="caption", credit=credit)
    print(f"wrote {sheet.save(Path(f'{name}.png'))}")


if __name__ == "__main__":
    app.meta(result_action="return_value")
