#!/usr/bin/env python
"""``lance-align embed`` as a script, for ``ray job submit``; ``--help`` says what it takes.

Without arguments, and with ``--demo CORPUS``, it is ``lance-align demo``.
"""

import sys

from lance_align.cli import run_command

if __name__ == "__main__":
    words = sys.argv[1:]
    if "--demo" in words:
        place = words.index("--demo")
        run_command("demo", [*words[place + 1 :], *words[:place]])
    else:
        run_command("embed" if words else "demo", words)
