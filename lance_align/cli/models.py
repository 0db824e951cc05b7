"""``lance-align models``."""

from __future__ import annotations

import textwrap

from rich.console import Console

from lance_align.cli.command import application
from lance_align.encoders.catalogue import known_models
from lance_align.encoders.families import FAMILIES

app = application(
    "lance-align models", "List the models that are known by name: what each is good for, its size, what is here."
)


@app.default
def models() -> None:
    """Print the supported families, and the checkpoints known by name: those here, and those the hub has."""
    console = Console(highlight=False)
    console.print(f"families: {', '.join(sorted(FAMILIES))}")
    found = known_models()
    family, name = (max(len(getattr(model, column)) for model in found) for column in ("family", "name"))
    for model in found:
        here = "not here" if model.size_mb is None else f"here, {model.size_mb:,.0f} MB"
        # Not a table: names are to be copied, and what is said of them would stand in a column of three letters.
        console.print(f"\n{model.family:{family}}  {model.name:{name}}  {model.dim:>4}  {here}", soft_wrap=True)
        console.print(textwrap.indent(textwrap.fill(model.summary, max(40, console.width - 4)), "    "), soft_wrap=True)
