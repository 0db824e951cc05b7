"""``lance-align models``."""

from __future__ import annotations

import textwrap
from itertools import groupby

from rich.console import Console

from lance_align.cli.command import application, print_out
from lance_align.encoders.catalogue import KnownModel, known_models
from lance_align.encoders.families import FAMILIES

app = application("lance-align models", "List the models known by name: what each is good for, its size, what is here.")


@app.default
def models() -> None:
    """Print the checkpoints known by name, by what they are good for: those here, and those the hub has."""
    found = known_models()
    width = max(len(model.name) for model in found)
    lines = []
    for purpose, group in groupby(found, key=lambda model: model.purpose):
        lines.append(f"{purpose}:")
        for model in group:
            lines.append(f"  {model.name:<{width}}  {model.dim:>4} numbers  {_place(model)}")
            lines.append(f"      {model.summary}")
    families = f"Any other checkpoint of these families, by its hub id or directory: {', '.join(sorted(FAMILIES))}."
    print_out("\n".join([*lines, "", textwrap.fill(families, max(40, Console().width))]))


def _place(model: KnownModel) -> str:
    if model.size_mb is not None:
        return f"here, {model.size_mb:,.0f} MB"
    return f"to download, {model.download_mb:,} MB"
