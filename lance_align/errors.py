"""Every exception this package raises on purpose.

    LanceAlignError
    ├── ArgumentError            a bad argument: what was seen, what was expected, what to do
    │   ├── SourceError          the input cannot be read as asked (missing, empty, unknown column or format)
    │   ├── ModelError           the checkpoint cannot be used (unknown, unreachable, wrong class, unsafe weights)
    │   └── TableError           the table cannot be used (other model, bad name, missing, not writable)
    ├── MissingExtraError        an optional dependency is not installed; names the pip command
    ├── JobError                 a job ended without every row in the table (too many reasons, a lost row, no space)
    └── RowError                 one row cannot be embedded; becomes that row's `error`, never ends a job

Each carries a one-line message. Command lines print that line and exit with a status above 0; `--debug` adds the
traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

RowErrorKind = Literal[
    "null",  # the cell is null
    "empty",  # an empty or blank caption, or zero bytes
    "type",  # a value of a type that cannot be an image or a text
    "missing",  # a path that does not exist or cannot be read
    "fetch",  # a URL that may not be fetched, or whose server did not give it
    "format",  # not an image, or an image format that is not allowed
    "unreadable",  # an allowed format whose content is damaged
    "too_large",  # over the byte or pixel limit, refused before pixels are decoded
    "memory",  # decoding it takes more memory than is allowed or there
    "timeout",  # decoding it took too long, in two processes
    "crash",  # decoding it ended the decoder's process, twice
    "encode",  # the encoder gave no usable vector (not finite, or zero)
    "cut",  # a description that ended at its limit of tokens; it is in the table as far as it goes
]


class LanceAlignError(Exception):
    """The base of every error raised on purpose by lance_align; its text is one line without control characters.

    Messages quote names out of tables and files, which could break the line, move the terminal's cursor or turn the
    direction of writing.

    >>> try:
    ...     lance_align.load_encoder("align-tyny")
    ... except lance_align.LanceAlignError as error:
    ...     print(type(error).__name__)
    ModelError
    """

    def __str__(self) -> str:
        return "".join(map(_shown, super().__str__()))


def _shown(character: str) -> str:
    if character.isprintable() or character in "\u200c\u200d":  # joiners are part of words and of emoji
        return character
    return " " if character in "\t\n\v\f\r" else character.encode("unicode_escape").decode("ascii")


class ArgumentError(LanceAlignError, ValueError):
    """An argument is wrong; the message says what was seen, what was expected and what to do."""


class SourceError(ArgumentError):
    """The input cannot be read as asked."""


class ModelError(ArgumentError):
    """The checkpoint cannot be used."""


class TableError(ArgumentError):
    """The table cannot be used."""


class MissingExtraError(LanceAlignError, ImportError):
    """An optional dependency is not installed.

    Args:
        package: the import name that is missing, for example ``"matplotlib"``.
        extra: the extra of this project that brings it, for example ``"plots"``.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; it comes with: pip install 'lance-align[{extra}]'")
        self.package = package
        self.extra = extra

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        """Pickle by the two arguments, not the message: Ray carries exceptions across processes."""
        return type(self), (self.package, self.extra)


class JobError(LanceAlignError, RuntimeError):
    """A job ended without every row in the table; running the same command again goes on where it stopped.

    Args:
        message: what happened and how to go on.
        report: the account of the run (a `lance_align.JobReport`) where it got that far, else None.
    """

    def __init__(self, message: str, report: object | None = None) -> None:
        super().__init__(message)
        self.report = report

    def __reduce__(self) -> tuple[type[JobError], tuple[str, object | None]]:
        """Pickle with the report."""
        return type(self), (str(self), self.report)


class RowError(LanceAlignError):
    """One row cannot be embedded.

    ``str(error)`` is ``"kind: detail"``, the text that the table's ``error`` column holds.

    Args:
        kind: what went wrong, one of a closed list, so that reports can count it.
        detail: the one-line particulars; line breaks are folded and the text is cut at 300 characters.
    """

    MAX_DETAIL_CHARS = 300

    def __init__(self, kind: RowErrorKind, detail: str) -> None:
        detail = " ".join(detail.split())[: self.MAX_DETAIL_CHARS]
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail

    def __reduce__(self) -> tuple[type[RowError], tuple[RowErrorKind, str]]:
        """Pickle by the two arguments, not the joined message: Ray carries exceptions across processes."""
        return RowError, (self.kind, self.detail)


def few(names: Iterable[object], *, listed: int = 3) -> str:
    """The first of some names, for a message, and how many more there are."""
    found = sorted(map(str, names))
    more = f" and {len(found) - listed} more" if len(found) > listed else ""
    return ", ".join(found[:listed]) + more
