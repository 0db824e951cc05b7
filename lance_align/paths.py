"""Paths that people and tables name, before anything is opened."""

from __future__ import annotations

from pathlib import Path

from lance_align.errors import ArgumentError


def expanded(text: str, error: type[ArgumentError]) -> Path:
    """A path with its home directory in place of ``~``.

    Raises:
        ArgumentError: of the type `error`, for text that no file can be called by.
    """
    try:
        if not text:  # of a variable that is not set, for which Python takes the working directory
            raise ValueError("it is empty")
        if "\0" in text:
            raise ValueError("it holds a NUL character")
        text.encode()  # undecodable bytes of a command line arrive as surrogates, which pyarrow cannot pass on
        return Path(text).expanduser()
    except UnicodeEncodeError:
        reason = "it is not UTF-8"
    except (RuntimeError, ValueError) as wrong:  # RuntimeError: ~name of nobody here
        reason = str(wrong)
    raise error(f"{text!r:.200} is not a path: {reason}; expected a file or directory, or a URI")
