"""What a report looks like where a notebook shows it."""

from __future__ import annotations


class Told:
    """A report that Jupyter and IPython show as its `to_text`.

    Not by ``_repr_pretty_``: IPython prefers a ``__repr__`` of the class itself, and every dataclass has one.
    """

    __slots__ = ()

    def to_text(self) -> str:
        """All of it for a person, without a line break at the end."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/plain": self.to_text()}
