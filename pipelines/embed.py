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

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, Literal

import lancedb
from cyclopts import App, CycloptsError, Parameter

from lance_align import __version__
from lance_align.corpora import demo_source, openmoji
from lance_align.errors import ArgumentError, JobError, LanceAlignError
from lance_align.jobs import JobReport, embed
from lance_align.jobs.failures import GO_ON
from lance_align.jobs.stopping import Stopped, stopping

Demo = Literal["openmoji", "scenes"]

app = App(name="embed.py", help=__doc__, help_format="plaintext", version=__version__)
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
    debug: bool = False,
) -> None:
    """Run the job; without a source it is the demo.

    Args:
        demo: embed a demo corpus, then ask it three texts and a picture; the answers become a PNG.
        rows: how many pictures of the demo corpus; by default all of OpenMoji, 2,000 scenes.
        seed: which scenes the demo draws.
        report_json: a file for the report.
        debug: show the traceback of an error.
    """
    if demo is None and not tokens:
        demo = "openmoji"
    try:
        with stopping():
            _run(list(tokens), demo=demo, rows=rows, seed=seed, report_json=report_json)
    except CycloptsError as error:
        sys.exit(_fail(f"{' '.join(str(error).split())} (--help lists the options)", debug=debug, status=2))
    except LanceAlignError as error:
        if isinstance(error, JobError) and isinstance(error.report, JobReport):
            _tell(error.report, report_json)
        sys.exit(_fail(str(error), debug=debug, status=1))
    except Stopped as stop:
        sys.exit(_fail(f"{stop}; {GO_ON}", debug=debug, status=stop.exit_status))


def _run(arguments: list[str], *, demo: Demo | None, rows: int | None, seed: int, report_json: Path | None) -> None:
    if demo is not None:
        print(f"preparing the demo corpus {demo} …", file=sys.stderr, flush=True)
        if not any(token.split("=")[0] == "--table" for token in arguments):
            arguments += ["--table", "demo"]
        arguments.insert(0, os.fspath(demo_source(demo, directory=_cache(), rows=rows, seed=seed)))
    command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    report: JobReport = command(*bound.args, **bound.kwargs)
    _tell(report, report_json)
    if demo is not None:
        _ask(demo, report)


def _fail(message: str, *, debug: bool, status: int) -> int:
    if debug:
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    return status


def _tell(report: JobReport, path: Path | None) -> None:
    print(report.to_text(), flush=True)
    if path is not None:
        try:
            path.write_text(report.to_json() + "\n", encoding="utf-8")
        except OSError as error:
            raise ArgumentError(f"report {path} cannot be written: {error.strerror}; the rows are in") from error


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lance-align"


def _ask(demo: Demo, report: JobReport) -> None:
    """Search with plain LanceDB, print what is found, and draw it."""
    from lance_align.explore import contact_sheet

    db, _, name = report.table_uri.removesuffix(".lance").rpartition("/")
    table = lancedb.connect(db).open_table(name)
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
