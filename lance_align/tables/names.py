"""Names of columns: which ones a table can have, and how one stands in SQL."""

from __future__ import annotations

from lance_align.errors import ArgumentError
from lance_align.tables.layout import TAKEN_NAMES


def quoted(name: str) -> str:
    """A column's name in an SQL condition of Lance, whatever words, blanks or quotation marks are in it."""
    return "`" + name.replace("`", "``") + "`"


def is_refused(name: str) -> bool:
    """Whether Lance cannot hold a column of this name.

    A table with a backtick in a name can be written, and then neither read, searched nor added to, under any spelling
    (pylance 14, lancedb 0.40).
    """
    return not name or "." in name or "`" in name


def check_new_name(name: str, *, argument: str) -> None:
    """Make sure that a table can have a column of this name, before it gets one.

    Args:
        argument: what the caller calls it.

    Raises:
        ArgumentError: Lance refuses it, or keeps it for itself.
    """
    if is_refused(name) or name in TAKEN_NAMES:
        raise ArgumentError(
            f"{argument}={name!r} cannot be a column's name; it must not be empty or contain a period or a backtick"
        )
