"""What jobs refuse before they begin."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lance_align.errors import ArgumentError

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def check_positive(**numbers: float | None) -> None:
    """Refuse options that are not above 0; None is the default and passes.

    Raises:
        ArgumentError: names the first.
    """
    for name, value in numbers.items():
        if value is not None and value <= 0:
            raise ArgumentError(f"{name}={value}; expected a number above 0")


def check_device(device: str) -> None:
    """Refuse what names no device; whether a worker's machine has it, the worker says.

    Raises:
        ArgumentError: says which there are.
    """
    if _DEVICE.fullmatch(device) is None:
        raise ArgumentError(f"device is {device!r}; expected 'auto', 'cpu', 'mps', 'cuda' or 'cuda:N'")


def check_writable(what: str, path: str | os.PathLike[str] | None) -> None:
    """Refuse a file that could not be written when a job has ended; None passes.

    Raises:
        ArgumentError: it is a folder, it or its folder may not be written, or there is no such folder.
    """
    if path is None:
        return
    file, folder = Path(path), Path(path).absolute().parent
    objection = None
    if file.is_dir():
        objection = "it is a folder"
    elif not folder.is_dir():
        objection = f"there is no folder {folder}"
    elif not os.access(file if file.exists() else folder, os.W_OK):
        objection = "permission denied"
    if objection is not None:
        raise ArgumentError(f"{what} {file} cannot be written: {objection}")
