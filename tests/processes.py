"""Processes that a test started, found in /proc; only these are ever killed."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path


def descendants(root: int) -> dict[int, str]:
    """Title of each living process that descends from `root`."""
    parents: dict[int, int] = {}
    titles: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                if fields[0] != "Z":
                    parents[int(folder.name)] = int(fields[1])
                    titles[int(folder.name)] = (folder / "cmdline").read_bytes().split(b"\0")[0].decode()
    found: dict[int, str] = {}
    waiting = [root]
    while waiting:
        parent = waiting.pop()
        children = [pid for pid, of in parents.items() if of == parent]
        found |= {pid: titles[pid] for pid in children}
        waiting += children
    return found


def workers(root: int, words: Sequence[str]) -> list[int]:
    """Ray workers below `root` whose title begins with one of some words; a title tells what a worker is doing."""
    return [
        pid for pid, title in descendants(root).items() if title.startswith(tuple(f"ray::{word}" for word in words))
    ]


@contextlib.contextmanager
def killing(*words: str, every_s: float, most: int = 1000) -> Iterator[list[str]]:
    """SIGKILL one Ray worker of this process at every beat: of each of `words` in turn, while there are any.

    Yields:
        The words of those killed so far.
    """
    ended = threading.Event()
    killed: list[str] = []

    def kill() -> None:
        while len(killed) < most and not ended.wait(every_s):
            turn = len(killed) % len(words)
            for word in (*words[turn:], *words[:turn]):
                pids = workers(os.getpid(), [word])
                if pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pids[0], signal.SIGKILL)
                        killed.append(word)
                    break

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


def wait_until_gone(pids: Sequence[int], *, seconds: float) -> list[int]:
    """Those that still live after so long."""
    end = time.monotonic() + seconds
    left = list(pids)
    while left and time.monotonic() < end:
        left = [pid for pid in left if _lives(pid)]
        time.sleep(0.05)
    return left


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
