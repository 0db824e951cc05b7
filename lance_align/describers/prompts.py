"""Prompts that name columns: ``"Is this {kind}? Answer yes or no."`` and a row's values to what a model is asked."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Mapping

from lance_align.errors import ArgumentError, RowError


@dataclasses.dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt with columns in braces; ``{{`` and ``}}`` stand for braces.

    Nothing else of Python's format strings is understood: no attributes, no indices, no formats.

    Args:
        text: the prompt; not blank.

    Raises:
        ArgumentError: a brace too many or too few, or braces around what cannot be a column's name.
    """

    text: str

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ArgumentError("the prompt is blank; leave it out for a caption, or write what the model is asked")
        for _, name, form, conversion in self._parts():
            if name is not None and (not name or form or conversion):
                raise ArgumentError(
                    f"prompt {self.text!r} has braces around what is no column's name; write {{{{ and }}}} for braces"
                )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it names, each once, in their order."""
        return tuple(dict.fromkeys(name for _, name, _, _ in self._parts() if name is not None))

    def fill(self, values: Mapping[str, object]) -> str:
        """The prompt of one row.

        Raises:
            RowError: ``null``, a column that it names is null there.
        """
        written: list[str] = []
        for literal, name, _, _ in self._parts():
            written.append(literal)
            if name is not None:
                if values[name] is None:
                    raise RowError("null", f"no {name!r}, which the prompt names")
                written.append(str(values[name]))
        return "".join(written)

    def _parts(self) -> list[tuple[str, str | None, str | None, str | None]]:
        try:
            return list(string.Formatter().parse(self.text))
        except ValueError as error:
            raise ArgumentError(f"prompt {self.text!r}: {error}; write {{{{ and }}}} for braces") from error
