"""Reports where a notebook shows them."""

from __future__ import annotations

from typing import Any

import pytest
from IPython.core.formatters import DisplayFormatter

import lance_align
from lance_align import SearchSettings


@pytest.mark.parametrize(
    "name", ["JobReport", "Verification", "IndexReport", "WarmUp", "CleanupReport", "Evaluation", "TrainReport"]
)
def test_a_notebook_shows_reports_as_text(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind: Any = getattr(lance_align, name)
    monkeypatch.setattr(kind, "to_text", lambda _: "two\nlines")
    shown, _ = DisplayFormatter().format(object.__new__(kind))
    assert shown == {"text/plain": "two\nlines"}


def test_a_warm_up_says_what_is_warm() -> None:
    warm = lance_align.WarmUp(
        model="m", index="i", settings=SearchSettings(nprobes=4), text_s=1, image_s=2.04, index_s=0.2
    )
    assert warm.to_text() == (
        'warm: m, text tower in 1.0 s, image tower in 2.0 s, index i in 0.2 s; search with table.search("…").nprobes(4)'
    )
