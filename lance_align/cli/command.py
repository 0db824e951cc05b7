"""What the commands share: the report on the screen, one line for what is wrong, a status that tells."""

from __future__ import annotations

import importlib
import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cyclopts import (
    App,
    CycloptsError,
    MissingArgumentError,
    Parameter,
    UnknownOptionError,
    UnusedCliTokensError,
)

from lance_align import __version__
from lance_align.cli import COMMANDS, PROGRAM
from lance_align.errors import ArgumentError, JobError, LanceAlignError
from lance_align.jobs.checks import check_writable
from lance_align.jobs.report import JobReport
from lance_align.jobs.stopping import Stopped, stopping


def application(name: str, text: str | None) -> App:
    """A command line that says `text`, in Markdown, for ``--help``, and the package's version for ``--version``.

    Options that take lists take all words up to the next option, may be repeated, and have no twin that empties them.

    From here on output shows characters that the terminal has no code for (PYTHONIOENCODING=ascii) as escapes.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    parameters = Parameter(negative_iterable=(), consume_multiple=True)
    return App(
        name=name,
        help=text,
        help_format="markdown",
        version=__version__,
        version_flags=(),
        default_parameter=parameters,
        suppress_keyboard_interrupt=False,  # `command_line` says what stopped it
    )


def run(app: App, words: Sequence[str] | None = None, *, go_on: str | None = None) -> None:
    """Run a command line that prints what it has to say itself; the option ``--debug`` shows an error's traceback.

    Args:
        app: from `application`.
        words: its options; None for those of this process.
        go_on: what is said of a run that a signal has stopped; None where there is nothing to go on with.

    Raises:
        SystemExit: with the status, where it is not 0.
    """
    given = list(sys.argv[1:] if words is None else words)
    debug = "--debug" in given
    with command_line(debug=debug, go_on=go_on):
        words = [word for word in given if word != "--debug"]
        app(words, exit_on_error=False, print_error=False, result_action="return_value")


@contextmanager
def command_line(*, debug: bool = False, go_on: str | None = None) -> Iterator[None]:
    """Turn what goes wrong inside into one line on standard error and an exit status.

    The status is 2 for a command that cannot be understood, 1 for an error of ours, 130 after Ctrl-C, 143 after
    SIGTERM.

    Args:
        debug: show the traceback as well.
        go_on: see `run`.

    Raises:
        SystemExit: with the status, where it is not 0.
    """
    try:
        with stopping():
            yield
    except CycloptsError as error:
        sys.exit(_fail(f"{understood(error)} (--help lists the options)", debug=debug, status=2))
    except LanceAlignError as error:
        sys.exit(_fail(str(error), debug=debug, status=1))
    except Stopped as stop:
        sys.exit(_fail("; ".join(filter(None, (str(stop), go_on))), debug=debug, status=stop.exit_status))


def understood(error: CycloptsError) -> str:
    """What is wrong with a command, in our words where cyclopts' own do not help."""
    said = " ".join(str(error).split())
    if isinstance(error, UnusedCliTokensError):
        extra = ", ".join(map(repr, error.unused_tokens or ()))
        return f"{extra} is one too many: one source a run; run the command once for each, into the same table"
    if isinstance(error, UnknownOptionError):
        option = str(error.token.keyword or error.token.value)
        owner = next((name for name in COMMANDS if option in _options_of(name)), None)
        return said if owner is None else f"{option} is an option of {PROGRAM} {owner}, not of this command"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name = error.argument.name
        wanted = name if error.argument.index is None else name.removeprefix("--").upper()
        meant = re.search(r"Did you mean .*", said)
        expected = str(error.argument.parameter.help or "a value").rstrip(".")
        return f"{wanted} is missing; expected {expected}" + (f". {meant[0]}" if meant else "")
    return said


def _options_of(name: str) -> set[str]:
    """The options of another command, which is imported to be asked."""
    app: App = importlib.import_module(f"lance_align.cli.{name}").app
    return {word for argument in app.assemble_argument_collection() for word in argument.names}


@contextmanager
def telling(report_json: Path | None) -> Iterator[Callable[[JobReport], None]]:
    """Tell a job's report: what the job gives back is given to what this yields, what it fails with is told here.

    Args:
        report_json: see `tell`; it is an error at once where it cannot be written.

    Raises:
        JobError: the job's own, and why its report could not be told.
        ArgumentError: the report cannot be written.
    """
    check_writable("report", report_json)
    try:
        yield lambda report: tell(report, report_json)
    except JobError as error:
        if isinstance(error.report, JobReport):
            try:
                tell(error.report, report_json)
            except ArgumentError as untold:
                raise JobError(f"{error}; {untold}", error.report) from error
        raise


def tell(report: JobReport, report_json: Path | None = None) -> None:
    """Print a report, and keep it as JSON.

    Args:
        report_json: a file; None for no such file.

    Raises:
        ArgumentError: the file, or standard output, cannot be written.
    """
    objections = []
    if report_json is not None:
        try:
            report_json.write_text(report.to_json() + "\n", encoding="utf-8")
        except OSError as error:
            objections.append(f"report {report_json} cannot be written: {error.strerror}")
    try:
        print_out(report.to_text())
    except ArgumentError as error:
        objections.append(str(error))
    if objections:
        raise ArgumentError(f"{'; '.join(objections)}; the rows are in")


def print_out(text: str) -> None:
    """Print a result.

    Raises:
        ArgumentError: standard output cannot be written: a full disk, or a reader such as `head` that has gone.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        with Path(os.devnull).open("w") as nowhere:  # Python writes the rest when it ends, and would fail again
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        raise ArgumentError(f"standard output cannot be written: {error.strerror}") from error


def _fail(message: str, *, debug: bool, status: int) -> int:
    if debug:
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    return status
