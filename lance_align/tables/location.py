"""Where a LanceDB table lies: a database and a name in, the URI of its Lance dataset out."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lance_align.errors import TableError, few
from lance_align.hints import did_you_mean
from lance_align.paths import expanded

# What LanceDB 0.40 accepts, so that every table we write can be opened by name.
_NAME = re.compile(r"[A-Za-z0-9_.\-]+")
_SCHEME = re.compile(r"([a-z][a-z0-9+]+)://", re.IGNORECASE)  # one letter before a colon is a Windows drive
_SCHEMES = ("s3", "s3+ddb", "gs", "az", "abfss")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TableLocation:
    """One LanceDB table.

    Attributes:
        db: the database, as ``lancedb.connect`` takes it: an absolute path or an object-store URI.
        name: the table, as ``open_table`` takes it.
        uri: the Lance dataset of the table, as ``lance.dataset`` takes it.
        storage_options: credentials and endpoint of an object store, or None; never shown in `repr`.
    """

    db: str
    name: str
    uri: str
    storage_options: dict[str, str] | None = dataclasses.field(default=None, repr=False)


def table_location(db: str | Path, name: str, *, storage_options: Mapping[str, str] | None = None) -> TableLocation:
    """Find a table's dataset; nothing is opened or created.

    Args:
        db: a local directory (``~`` is expanded), a ``file://`` URI, or an ``s3://``, ``gs://``, ``az://`` or
            ``abfss://`` URI.
        name: letters, digits, underscores, hyphens and periods, as LanceDB demands.
        storage_options: passed to Lance as they are.

    Raises:
        TableError: the name or the database URI cannot be used.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in (".", ".."):
        raise TableError(
            f"table name {name!r} is refused by LanceDB; use letters, digits, underscores, hyphens and periods only"
        )
    base = _database(db)
    return TableLocation(
        db=base, name=name, uri=join(base, f"{name}.lance"), storage_options=dict(storage_options or {}) or None
    )


def missing_table(uri: str) -> TableError:
    """What to raise where there is no table; of a local database the tables that are there are named."""
    db, _, name = uri.removesuffix(".lance").rpartition("/")
    there: list[str] = []
    if "://" not in db:
        with contextlib.suppress(OSError):
            there = sorted(path.stem for path in Path(db or ".").glob("*.lance"))
    seen = f"the database has {few(there, listed=10)}" if there else "check db and table"
    return TableError(f"{uri} is not there; {did_you_mean(name, there)}{seen}")


def _database(db: str | Path) -> str:
    text = str(db)
    if not text:
        raise TableError(
            f"database {text!r} is not a path; give a directory or an object-store URI such as s3://bucket/db"
        )
    match = _SCHEME.match(text)
    if match is None:
        return str(expanded(text, TableError).absolute())
    scheme = match.group(1).lower()
    if scheme == "file":
        return str(expanded(unquote(urlsplit(text).path), TableError))
    if scheme not in _SCHEMES:
        raise TableError(
            f"database {text!r} has the scheme {scheme!r}; give a local directory or one of {', '.join(_SCHEMES)}"
        )
    return text


def join(base: str, entry: str) -> str:
    if _SCHEME.match(base) is None:
        return str(Path(base) / entry)
    url = urlsplit(base)  # s3+ddb carries its lock table in the query: the name belongs before it
    return url._replace(path=f"{url.path.rstrip('/')}/{entry}").geturl()
