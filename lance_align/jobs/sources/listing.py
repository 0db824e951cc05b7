"""The files below a folder, and what else lies there, counted by kind."""

from __future__ import annotations

import dataclasses
import os
import posixpath
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from lance_align.errors import SourceError
from lance_align.jobs.sources.location import Location, first_line

# What is left out of a listing, in the words of the report.
HIDDEN = "names that begin with a dot"
DANGLING = "links to nothing"
LOOPS = "links to folders they lie in, or that are listed"
NOT_UTF8 = "names that are not UTF-8"
UNLISTABLE = "folders that cannot be listed"
UNREADABLE = "files of unknown suffixes that cannot be read"
NO_FILES = "neither files nor folders"


@dataclasses.dataclass(frozen=True, slots=True)
class Listing:
    """What lies below a folder.

    Attributes:
        files: the paths of the regular files, in their order.
        left_out: how many other entries there are, by kind; what lies in such folders is not counted.
    """

    files: tuple[str, ...]
    left_out: Counter[str]


def list_files(folder: Location) -> Listing:
    """Walk a folder as a tree: links to folders are followed, but none to a folder that it lies in.

    Raises:
        SourceError: the folder itself cannot be listed.
    """
    return _Walk(folder).listing() if folder.is_local else _listed(folder)


class _Walk:
    """A walk through a folder of this machine.

    A link is followed once, so that folders which link to each other end after as many visits as there are links; one
    that leads to a folder on the way to it is not followed at all.
    """

    def __init__(self, root: Location) -> None:
        self._root = root
        self._files: list[str] = []
        self._left_out: Counter[str] = Counter()
        self._followed: set[tuple[int, int]] = set()  # links, by device and inode

    def listing(self) -> Listing:
        path = self._root.path
        try:
            way, entries = _way(path), _entries(path)
        except OSError as error:
            raise SourceError(f"{self._root.uri} cannot be listed: {error.strerror}") from error
        waiting = [(entries, way)]
        while waiting:
            entries, way = waiting.pop()
            for entry in entries:
                kind = self._kind(entry, way)
                if kind == "folder":
                    try:
                        state = entry.stat()
                        deeper = _way(entry.path) if entry.is_symlink() else {(state.st_dev, state.st_ino)}
                        waiting.append((_entries(entry.path), way | deeper))
                    except OSError:
                        self._left_out[UNLISTABLE] += 1
                elif kind == "file":
                    self._files.append(entry.path)
                else:
                    self._left_out[kind] += 1
        return Listing(tuple(sorted(self._files)), self._left_out)

    def _kind(self, entry: os.DirEntry[str], way: frozenset[tuple[int, int]]) -> str:
        if entry.name.startswith("."):
            return HIDDEN
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            return NOT_UTF8
        try:
            if entry.is_file():
                return "file"
            if entry.is_dir():
                return "folder" if not entry.is_symlink() or self._follows(entry, way) else LOOPS
            entry.stat()
        except OSError:  # nothing there, a circle of links, or a folder without permission on the way
            return DANGLING if entry.is_symlink() else UNLISTABLE
        return NO_FILES

    def _follows(self, entry: os.DirEntry[str], way: frozenset[tuple[int, int]]) -> bool:
        link, target = entry.stat(follow_symlinks=False), entry.stat()
        if (target.st_dev, target.st_ino) in way or (link.st_dev, link.st_ino) in self._followed:
            return False
        self._followed.add((link.st_dev, link.st_ino))
        return True


def _way(path: str) -> frozenset[tuple[int, int]]:
    """A folder and those it really lies in, by device and inode: a link to one of them leads back."""
    real = Path(path).resolve()
    states = [folder.stat() for folder in (real, *real.parents)]
    return frozenset((state.st_dev, state.st_ino) for state in states)


def _entries(path: str) -> list[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _listed(folder: Location) -> Listing:
    """The listing of an object store, which has no links."""
    try:
        found = folder.filesystem.get_file_info(pafs.FileSelector(folder.path, recursive=True))
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{folder.uri} cannot be listed: {first_line(error)}") from error
    files: list[str] = []
    left_out: Counter[str] = Counter()
    for info in found:
        try:
            path = info.path
        except UnicodeDecodeError:
            left_out[NOT_UTF8] += 1
            continue
        if info.type != pafs.FileType.File:
            continue
        if any(part.startswith(".") for part in posixpath.relpath(path, folder.path).split("/")):
            left_out[HIDDEN] += 1
        else:
            files.append(path)
    return Listing(tuple(sorted(files)), left_out)
