"""What jobs refuse before they begin."""

from __future__ import annotations

from lance_align.errors import ArgumentError


def check_positive(**numbers: float | None) -> None:
    """Refuse options that are not above 0; None is the default and passes.

    Raises:
        ArgumentError: names the first.
    """
    for name, value in numbers.items():
        if value is not None and value <= 0:
            raise ArgumentError(f"{name}={value}; expected a number above 0")
