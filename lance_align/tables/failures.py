"""Lance's errors as one-line `TableError`s: what was being done, what the storage said, what to do."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from lance.commit import CommitConflictError

from lance_align.errors import LanceAlignError, TableError

_UNREACHABLE = "the object store cannot be reached"
# Rust errors arrive as OSError, ValueError or RuntimeError with text only; these are the words that tell them apart.
_REMEDIES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), remedy)
    for pattern, remedy in (
        (
            r"no space left|os error 28\b|disk quota|os error 122\b|storage ?full",
            "the disk is full: free space and run the same command again; the table is at its last commit",
        ),
        (
            r"permission denied|os error 1\b|os error 13\b|access ?denied|forbidden|\b403\b|unauthorized|\b401\b"
            r"|os error 30\b|read-only file",
            "no permission to write there: choose another database, or change its permissions or credentials",
        ),
        (r"not a directory|os error 20\b", "a file stands where a directory is needed: choose another database"),
        (
            r"file too large|os error 27\b",
            "the file system or a limit of this process (ulimit -f) allows no larger file",
        ),
        (r"file name too long|os error 36\b", "the path is too long: choose a shorter table name"),
        (r"was not found", "the table is not there: check the database and the name"),
        (r"no such file|os error 2\b", "the path is not there and cannot be made: check the database"),
        (r"no such host|dns error|error sending request|timed? ?out|connect", _UNREACHABLE),
        (r"different schema|data type|non-null in the schema", "the rows do not fit the table's columns"),
    )
)
# ", /home/runner/…/insert.rs:333:28" and "LanceError(IO): ": where in Lance it was raised, of no use to the reader
_RUST_PLACE = re.compile(r",?\s*(?:location:\s*)?/\S+\.rs:\d+(?::\d+)?|LanceError\(\w+\): ")
_MAX_DETAIL_CHARS = 300
_LASTING = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG, errno.ENOTDIR)

LANCE_ERRORS = (OSError, RuntimeError, ValueError, NotImplementedError, KeyError, TypeError)


def table_error(error: BaseException, *, doing: str, uri: str) -> TableError:
    """Translate what Lance or the operating system raised.

    Args:
        error: the exception; its text may be many lines long.
        doing: what failed, in the form of ``"create"`` or ``"commit to"``: it stands before the URI.
        uri: the table.

    Returns:
        The error to raise ``from error``: one line with the remedy where the cause is known.
    """
    text = str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS):
        text = f"{os.strerror(error.errno)} (os error {error.errno})"
    detail = " ".join(_RUST_PLACE.sub("", text).split()) or type(error).__name__
    remedy = next((f"; {remedy}" for pattern, remedy in _REMEDIES if pattern.search(detail)), "")
    return TableError(f"could not {doing} {uri}: {detail[:_MAX_DETAIL_CHARS]}{remedy}")


def is_passing(error: BaseException) -> bool:
    """Whether the same call may succeed a moment later: the storage failed, for no reason that is known to last.

    Args:
        error: an `OSError`, or a `TableError` that stands for what Lance raised.
    """
    if isinstance(error, TableError):
        cause = error.__cause__
        return (
            isinstance(cause, (OSError, RuntimeError))
            and not isinstance(cause, CommitConflictError)
            and (not _lasts(str(error)))
        )
    return isinstance(error, OSError) and error.errno not in _LASTING and not _lasts(str(error))


def _lasts(text: str) -> bool:
    return any(pattern.search(text) for pattern, remedy in _REMEDIES if remedy != _UNREACHABLE)


@contextmanager
def lance_failures(doing: str, uri: str) -> Iterator[None]:
    """Raise `table_error` for whatever Lance raises inside; this package's own errors pass unchanged."""
    try:
        yield
    except LanceAlignError:
        raise
    except LANCE_ERRORS as error:  # pyarrow's exceptions are subclasses of these
        raise table_error(error, doing=doing, uri=uri) from error
