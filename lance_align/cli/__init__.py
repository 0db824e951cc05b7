"""``lance-align``, or ``python -m lance_align``: one file a command, each imported when it is called.

command    what all of them share: options, errors in one line, the exit status
jobs       what the three jobs share: groups of options, the report

demo, embed, backfill, describe, train, evaluate, search, index, verify, cleanup, models    a command each
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from types import MappingProxyType

from lance_align import __version__
from lance_align.hints import did_you_mean

COMMANDS = MappingProxyType(
    {
        "demo": "embed a demo corpus, search it, and draw what was found",
        "embed": "embed images and texts into a table that words and images search",
        "search": "search a table with words, images, or both",
        "backfill": "give the rows of any table vectors",
        "describe": "write texts about a table's images into a column",
        "evaluate": "measure how well captions find their images, and images their captions",
        "train": "fine-tune a model on a table of image-text pairs",
        "index": "build or extend the vector index of a table, and measure its recall",
        "verify": "check every row and file of a table",
        "cleanup": "remove files that no version of a table needs",
        "models": "list the models that are known by name",
    }
)
PROGRAM = "lance-align"
_JOBS = ("demo", "embed", "backfill", "describe", "train")
_SILENT = {"--help", "-h", "--no-progress"}


def main(*words: str) -> None:
    """The command line.

    Args:
        words: a command and its options; without any, those this process was started with.

    Raises:
        SystemExit: with status 2 for a command that cannot be understood, 1 for an error, 130 after Ctrl-C, 143 after
            SIGTERM.
    """
    name, *rest = words or sys.argv[1:] or ["--help"]
    if name in ("--help", "-h"):
        print(_overview())
    elif name == "--version":
        print(__version__)
    elif name not in COMMANDS:
        sys.exit(_unknown(name))
    else:
        run_command(name, rest)


def run_command(name: str, words: Sequence[str] | None = None) -> None:
    """Run one of `COMMANDS` with these words, or with those this process was started with.

    Raises:
        SystemExit: as `main`.
    """
    from lance_align.cli.command import run

    given = list(sys.argv[1:] if words is None else words)
    with _first_line(name, given):
        module = importlib.import_module(f"lance_align.cli.{name}")
    run(module.app, given, go_on=getattr(module, "GO_ON", None))


@contextlib.contextmanager
def _first_line(name: str, words: Sequence[str]) -> Iterator[None]:
    """Say at once that a job starts, for its imports take a second; in a terminal the job's own lines replace it."""
    if name not in _JOBS or _SILENT & set(words):
        yield
    elif sys.stderr.isatty():
        print(f"{PROGRAM} {name} …", end="", file=sys.stderr, flush=True)
        yield
        print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
    else:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        print(f"{now} starting {PROGRAM} {name}", file=sys.stderr, flush=True)
        yield


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND [OPTIONS]",
            "",
            "Turn images and texts into a LanceDB table that you search with words, images, or both.",
            "",
            *lines,
            "",
            f"`{PROGRAM} COMMAND --help` lists a command's options, `{PROGRAM} --version` says which version this is.",
        ]
    )


def _unknown(name: str) -> int:
    near = did_you_mean(name, COMMANDS)
    print(f"error: there is no command {name!r:.60}; {near}the commands are {', '.join(COMMANDS)}", file=sys.stderr)
    return 2
