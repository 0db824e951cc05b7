"""``lance-align cleanup``."""

from __future__ import annotations

from lance_align.cli.command import application
from lance_align.tables.handles import lancedb_table
from lance_align.tables.location import table_location
from lance_align.tables.orphans import DAY_S
from lance_align.tables.orphans import cleanup as remove_orphans

app = application(
    "lance-align cleanup",
    """Remove files that no version of a table needs: what killed jobs and failed commits leave behind.

    lance-align cleanup --db ./lancedb --table photos --dry-run
""",
)


@app.default
def cleanup(
    *,
    db: str = "./lancedb",
    table: str,
    min_age_s: float = DAY_S,
    dry_run: bool = False,
    storage_options: dict[str, str] | None = None,
) -> None:
    """See `lance_align.cleanup`.

    Args:
        db: the LanceDB database: a folder or an object-store URI.
        table: the table's name.
        min_age_s: seconds since a file was last written; a day by default.
        dry_run: remove nothing, and say what would be removed.
        storage_options: of the database's object store, by Lance's names.
    """
    place = table_location(db, table, storage_options=storage_options)
    print(remove_orphans(lancedb_table(place), min_age_s=min_age_s, dry_run=dry_run).to_text())
