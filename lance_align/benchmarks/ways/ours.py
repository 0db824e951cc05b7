"""``python ours.py INPUT MODEL DATABASE [OPTIONS]``: this package's job; OPTIONS are its arguments, as JSON."""

from __future__ import annotations

import json
import sys

from lance_align import embed


def main(source: str, model: str, db: str, options: str = "{}") -> None:
    """Run it, and print its report."""
    print(embed(source, db=db, table="t", model=model, progress=False, **json.loads(options)).to_json())


if __name__ == "__main__":
    main(*sys.argv[1:])
