"""What jobs refuse before they begin."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from numbers import Real
from pathlib import Path
from typing import Any, get_args

from lance_align.errors import ArgumentError

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def check_positive(**numbers: float | None) -> None:
    """Refuse options that are not above 0; None is the default and passes.

    Raises:
        ArgumentError: names the first.
    """
    for name, value in numbers.items():
        if value is not None and not (isinstance(value, Real) and value > 0):  # nothing is above NaN
            raise ArgumentError(f"{name}={value!r}; expected a number above 0")


def check_choices(*, words: Any, **choices: object) -> None:
    """Refuse options that are none of the texts of a `Literal`.

    Raises:
        ArgumentError: names the first, and the texts.
    """
    for name, value in choices.items():
        if value not in get_args(words):
            raise ArgumentError(f"{name}={value!r}; expected one of {', '.join(get_args(words))}")


def check_texts(**lists: Any) -> None:
    """Refuse options that are no lists of texts; of a single text each character would count.

    Raises:
        ArgumentError: names the first.
    """
    for name, values in lists.items():
        listed = isinstance(values, Collection) and not isinstance(values, str)
        if not listed or not all(isinstance(value, str) for value in values):
            raise ArgumentError(f"{name}={values!r:.80}; expected a list of texts")


def check_device(device: object) -> None:
    """Refuse what names no device; whether a worker's machine has it, the worker says.

    Raises:
        ArgumentError: says which there are.
    """
    if not isinstance(device, str) or _DEVICE.fullmatch(device) is None:
        raise ArgumentError(f"device is {device!r}; expected 'auto', 'cpu', 'mps', 'cuda' or 'cuda:N'")


def check_writable(what: str, path: str | os.PathLike[str] | None) -> None:
    """Refuse a file that could not be written when a job has ended; None passes.

    Raises:
        ArgumentError: it is a folder, it or its folder may not be written, there is no such folder, or no file can be
            called so.
    """
    if path is None:
        return
    file = Path(path)
    try:
        objection = _objection(file)
    except OSError as error:  # a name that is too long, a folder that nobody may enter
        objection = error.strerror or str(error)
    if objection is not None:
        raise ArgumentError(f"{what} {file} cannot be written: {objection}")


def _objection(file: Path) -> str | None:
    folder = file.absolute().parent
    if file.is_dir():
        return "it is a folder"
    if not folder.is_dir():
        return f"there is no folder {folder}"
    return None if os.access(file if file.exists() else folder, os.W_OK) else "permission denied"
