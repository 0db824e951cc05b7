"""What data must never bring about, noticed by Python itself (audit hooks, PEP 578) while a block runs."""

from __future__ import annotations

import contextlib
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
# Code may be loaded from the interpreter, its packages and this project.
_HOMES = tuple({str(ROOT), sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), "<frozen "})
_NEVER = frozenset(
    """socket.connect socket.getaddrinfo socket.gethostbyname socket.gethostbyaddr socket.bind socket.sendto
    socket.sendmsg subprocess.Popen os.system os.exec os.posix_spawn os.spawn os.fork os.startfile pty.spawn
    pickle.find_class ctypes.dlopen ctypes.dlsym webbrowser.open urllib.Request ftplib.connect
    smtplib.connect""".split()  # noqa: SIM905
)

_watching: list[list[str]] = []
_forbidden: list[str] = []


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _watching:
        return
    seen = _watching[-1]
    if event in _NEVER:
        seen.append(f"{event} {args!r:.200}")
    elif event == "exec":
        name = getattr(args[0], "co_filename", "")
        if not name.startswith(_HOMES):
            seen.append(f"exec of {name}")
    elif event == "compile" and args[1] is not None:
        name = str(args[1])
        if not name.startswith(_HOMES):
            seen.append(f"compile of {name}")
    elif event == "open" and isinstance(args[0], (str, bytes)):
        path = args[0] if isinstance(args[0], str) else args[0].decode("utf-8", "replace")
        if any(path.startswith(place) for place in _forbidden):
            seen.append(f"open of {path}")
    elif event == "import" and args[1] is not None and not str(args[1]).startswith(_HOMES):
        seen.append(f"import of {args[0]} from {args[1]}")


_installed: list[bool] = []


@contextlib.contextmanager
def tripwires(*forbidden: Path) -> Iterator[list[str]]:
    """Collect what happens in the block that data must not bring about: connections, processes, pickles, foreign code.

    The hook stays in the process, idle, for Python has no way to remove one.

    Args:
        forbidden: files and folders that nothing may open.
    """
    if not _installed:
        sys.addaudithook(_hook)
        _installed.append(True)
    seen: list[str] = []
    _watching.append(seen)
    _forbidden[:] = [str(path) for path in forbidden]
    try:
        yield seen
    finally:
        _watching.pop()
