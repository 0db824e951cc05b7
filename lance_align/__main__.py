"""``python -m lance_align``: see `lance_align.cli`."""

from __future__ import annotations

from lance_align.cli import main

if __name__ == "__main__":
    main()
