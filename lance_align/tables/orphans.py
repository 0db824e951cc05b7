"""Files that no version of a table needs: what killed jobs and failed commits leave behind."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lance.file import LanceFileSession

from lance_align.errors import ArgumentError, TableError
from lance_align.tables.failures import lance_failures
from lance_align.tables.handles import dataset_of
from lance_align.told import Told

DAY_S = 86_400.0  # a job's files wait seconds to minutes for their commit, an index that is built for hours
MAX_PATHS = 100

# The folders whose files we know how to judge. Others (branches, tags, what Lance may add) are left alone.
_FOLDERS = ("data", "_deletions", "_indices", "_transactions")
_STAGED = re.compile(r"\.tmp[^/]*|.*#\d+")  # a local file while it is written; a kill leaves it (measured, pylance 14)
_DETACHED = re.compile(r"_versions/d\d+\.manifest")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CleanupReport(Told):
    """What a cleanup removed.

    Attributes:
        table_uri: the table's Lance dataset.
        files: removed, or with `dry_run` to be removed.
        bytes: their size.
        paths: the first hundred, by name, below the table's folder.
        kept_files: unneeded files that are too young.
        kept_bytes: their size.

    >>> print(lance_align.cleanup(table, dry_run=True).to_text())
    cleaned up ...demo.lance: 0 files (0 bytes) that no version needs...
    """

    table_uri: str
    files: int
    bytes: int
    paths: tuple[str, ...]
    kept_files: int
    kept_bytes: int

    def to_text(self) -> str:
        """One or two lines for a person."""
        kept = f"; {self.kept_files:,} younger ones ({self.kept_bytes:,} bytes) stay" if self.kept_files else ""
        return f"cleaned up {self.table_uri}: {self.files:,} files ({self.bytes:,} bytes) that no version needs{kept}"


@dataclasses.dataclass(frozen=True, slots=True)
class _File:
    path: str
    size: int
    modified: datetime


def cleanup(table: Any, *, min_age_s: float = DAY_S, dry_run: bool = False) -> CleanupReport:
    """Remove files that no version of a table needs; every version, tag and branch stays and can be opened.

    Unneeded are data files that were never committed, deletion and index files and transactions of commits that
    failed, and half-written files. The files of a job that is running now look the same until it commits them, so
    only those older than `min_age_s` are removed: the clock of this machine against that of the storage. Old versions
    and what only they need are not touched: that is ``table.optimize(cleanup_older_than=...)``.

    Args:
        table: an open LanceDB table (of the synchronous API); any, also one that this package did not make.
        min_age_s: seconds since a file was last written; a day by default. 0 only while nothing else writes to the
            table: a job, ``table.add``, an index that is built.
        dry_run: remove nothing, and say what would be removed.

    Returns:
        What was removed, and what is unneeded but too young.

    Raises:
        ArgumentError: `min_age_s` is negative.
        TableError: not an open table, one with detached versions (Lance does not tell what they need), or the storage
            refused; files removed until then are gone, and the table is whole.

    >>> lance_align.cleanup(table, dry_run=True).files
    0
    """
    if not min_age_s >= 0:
        raise ArgumentError(f"min_age_s={min_age_s}; expected 0 or more seconds")
    dataset = dataset_of(table)
    with lance_failures("clean up", str(dataset.uri)):
        orphans = _orphans(dataset)
        newest = datetime.now(UTC) - timedelta(seconds=min_age_s)
        old = [file for file in orphans if file.modified <= newest]
        if not dry_run:
            _remove(dataset, old)
    size = sum(file.size for file in old)
    return CleanupReport(
        table_uri=str(dataset.uri),
        files=len(old),
        bytes=size,
        paths=tuple(file.path for file in old[:MAX_PATHS]),
        kept_files=len(orphans) - len(old),
        kept_bytes=sum(file.size for file in orphans) - size,
    )


def _orphans(dataset: Any) -> list[_File]:
    """Unneeded files by name. Files are listed before versions are read: what is committed in between is needed."""
    files = {file.path: file for file in (*_listed(dataset), *_staged(dataset))}
    detached = next((path for path in files if _DETACHED.fullmatch(path)), None)
    if detached is not None:
        raise TableError(
            f"{dataset.uri} has a detached version ({detached}), and Lance does not tell which files it needs; remove "
            "that version first, or leave the table as it is"
        )
    needed = _needed(dataset)
    return [file for path, file in sorted(files.items()) if _is_orphan(path, needed)]


def _listed(dataset: Any) -> Iterator[_File]:
    for batch in dataset.all_files():
        columns = (batch.column(name).to_pylist() for name in ("path", "size_bytes", "last_modified"))
        yield from map(_File, *columns)


def _staged(dataset: Any) -> Iterator[_File]:
    """Half-written local files that Lance leaves out of its list: ``name#1`` is one until it gets its name."""
    root = Path(str(dataset.uri))
    if root.is_absolute():
        for path in (path for folder in (*_FOLDERS, "_versions") for path in (root / folder).rglob("*#*")):
            if _STAGED.fullmatch(path.name) and path.is_file():
                status = path.stat()
                modified = datetime.fromtimestamp(status.st_mtime, UTC)
                yield _File(path.relative_to(root).as_posix(), status.st_size, modified)


def _needed(dataset: Any) -> set[str]:
    """Paths that some version needs, of the table or of one of its branches, whichever the dataset stands at."""
    needed: set[str] = set()
    for name in (None, *dataset.branches.list()):
        line = dataset if name is None else dataset.checkout_version((name, None))
        for batch in line.tracked_files():
            needed.update(batch.column("path").to_pylist())
    # An index is a folder, and blobs lie in a folder beside their data file: neither is named file by file.
    folders = {path.rsplit("/", 1)[0] for path in needed if path.startswith("_indices/")}
    return needed | folders | {path.removesuffix(".lance") for path in needed if path.startswith("data/")}


def _is_orphan(path: str, needed: set[str]) -> bool:
    folder, _, rest = path.partition("/")
    if _STAGED.fullmatch(path.rsplit("/", 1)[-1]):
        return folder in (*_FOLDERS, "_versions")
    parent = f"{folder}/{rest.split('/', 1)[0]}"
    return folder in _FOLDERS and path not in needed and (parent == path or parent not in needed)


def _remove(dataset: Any, files: list[_File]) -> None:
    session = LanceFileSession(str(dataset.uri), storage_options=dataset.latest_storage_options())
    root = Path(str(dataset.uri))
    for file in files:
        try:
            if root.is_absolute():
                (root / file.path).unlink(missing_ok=True)
                _remove_empty((root / file.path).parent)
            else:
                session.delete_file(file.path)
        except OSError as error:
            if "not found" not in str(error).lower():  # two cleanups at once
                raise


def _remove_empty(folder: Path) -> None:
    """The folder of an index or of blobs after its last file; Lance makes a new one for each."""
    if folder.name in _FOLDERS:
        return
    with contextlib.suppress(OSError):
        folder.rmdir()
