"""``python query.py DATABASE TABLE``: the first text query of a process."""

from __future__ import annotations

import sys

import lancedb

import lance_align  # noqa: F401  # registers the embedding function


def main(db: str, table: str) -> None:
    """Ask once."""
    print(len(lancedb.connect(db).open_table(table).search("a red apple").limit(10).to_list()))


if __name__ == "__main__":
    main(*sys.argv[1:])
