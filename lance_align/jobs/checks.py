"""What jobs refuse before they begin."""

from __future__ import annotations

import os
from pathlib import Path

from lance_align.errors import ArgumentError


def check_positive(**numbers: float | None) -> None:
    """Refuse options that are not above 0; None is the default and passes.

    Raises:
        ArgumentError: names the first.
    """
    for name, value in numbers.items():
        if value is not None and value <= 0:
            raise ArgumentError(f"{name}={value}; expected a number above 0")


def check_writable(**files: str | os.PathLike[str] | None) -> None:
    """Refuse files that could not be written at the end; None passes, and a file that is made here is removed again.

    Raises:
        ArgumentError: names the first, and why.
    """
    for name, path in files.items():
        if path is None:
            continue
        was_there = Path(path).exists()
        try:
            with Path(path).open("ab"):
                pass
        except OSError as error:
            what = name.replace("_", " ")
            raise ArgumentError(f"{what} {os.fspath(path)} cannot be written: {error.strerror}") from error
        if not was_there:
            Path(path).unlink()
