"""``lance-align index``."""

from __future__ import annotations

from lance_align.cli.command import application
from lance_align.indexing.building import build_index
from lance_align.tables.handles import lancedb_table
from lance_align.tables.index_report import TARGET_RECALL
from lance_align.tables.location import table_location

app = application(
    "lance-align index",
    """Build or extend the vector index of a table, measure its recall, and say what to write to search with it.

    lance-align index --db ./lancedb --table photos
""",
)


@app.default
def index(
    *,
    db: str = "./lancedb",
    table: str,
    vector: str = "vector",
    type: str = "auto",  # noqa: A002  the word the user writes
    target_recall: float = TARGET_RECALL,
    storage_options: dict[str, str] | None = None,
) -> None:
    """See `lance_align.build_index`.

    Args:
        db: the LanceDB database: a folder or an object-store URI.
        table: the table's name.
        vector: the vector column.
        type: LanceDB's name of a type of index, such as IVF_PQ; auto decides by the number of rows, and builds none
            where exact search is quick.
        target_recall: the share of the true nearest rows that settings should find.
        storage_options: of the database's object store, by Lance's names.
    """
    place = table_location(db, table, storage_options=storage_options)
    report = build_index(lancedb_table(place), vector=vector, index=type, target_recall=target_recall)
    print("\n".join(report.to_lines()))
