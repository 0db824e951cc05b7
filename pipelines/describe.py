#!/usr/bin/env python
"""``lance-align describe`` as a script, for ``ray job submit``; ``--help`` says what it takes."""

from lance_align.cli import run_command

if __name__ == "__main__":
    run_command("describe")
