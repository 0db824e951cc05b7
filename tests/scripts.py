"""The pipelines' scripts as a user starts them, in this process: what they import is imported once."""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
import warnings
from pathlib import Path

PIPELINES = Path(__file__).parent.parent / "pipelines"


def run_here(script: str, *arguments: object) -> tuple[int, str, str]:
    """The status of a script of ``pipelines/``, and what it wrote to standard output and standard error."""
    out, err, given = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = [script, *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Cyclopts application invoked without tokens under unit-test")
            runpy.run_path(str(PIPELINES / script), run_name="__main__")
    except SystemExit as left:
        status = left.code
    else:
        status = 0
    finally:
        sys.argv = given
    if isinstance(status, str):  # Python itself writes it to standard error
        return 1, out.getvalue(), err.getvalue() + status + "\n"
    return status or 0, out.getvalue(), err.getvalue()
