"""What somebody may have meant who misspelt a name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: object, names: Iterable[object]) -> str:
    """A question for a message, which a blank follows; empty where no name is near.

    Args:
        name: what was seen.
        names: those that there are.

    >>> did_you_mean("captoin", ["caption", "image"])
    "did you mean 'caption'? "
    """
    known = {str(each).lower(): str(each) for each in names}
    near = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.7)
    return f"did you mean {known[near[0]]!r}? " if near else ""
