"""``lance-align evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lance_align.cli.command import application, print_out
from lance_align.cli.tables import named_table
from lance_align.errors import ArgumentError
from lance_align.evaluation import evaluate as measure
from lance_align.jobs.checks import check_writable

app = application(
    "lance-align evaluate",
    """Measure how well the captions of a table find their images, and its images their captions.

Recall@1, 5 and 10 and the median rank: exactly, and through the index where there is one, beside those of chance.

    lance-align evaluate --db ./lancedb --table photos --text caption
    lance-align evaluate --table photos --text caption --where "split = 'test'" --json figures.json
""",
)


@app.default
def evaluate(
    *,
    db: str = "./lancedb",
    table: str,
    text: str = "caption",
    vector: str | None = None,
    where: str | None = None,
    queries: int = 1000,
    seed: int = 0,
    model: str | None = None,
    json_path: Annotated[Path | None, Parameter(name="--json")] = None,
    storage_options: dict[str, str] | None = None,
) -> None:
    """See `lance_align.evaluate`.

    Args:
        db: the LanceDB database: a folder or an object-store URI.
        table: the table's name.
        text: the column of captions.
        vector: the vector column; by default the only one, or the one called vector.
        where: an SQL condition on the rows: held-out ones, for instance.
        queries: captions to ask at most, drawn at random.
        seed: of that draw.
        model: the model that the table names, if it is not a known one: to say its name is to trust it.
        json_path: a file for the figures.
        storage_options: of the database's object store, by Lance's names.
    """
    check_writable("figures", json_path)
    named = named_table(db=db, table=table, vector=vector, model=model, storage_options=storage_options)
    found = measure(named.table, text=text, vector=named.vector, where=where, queries=queries, seed=seed)
    if json_path is not None:
        try:
            json_path.write_text(found.to_json() + "\n", encoding="utf-8")
        except OSError as error:
            raise ArgumentError(f"figures {json_path} cannot be written: {error.strerror}") from error
    print_out(found.to_text())
