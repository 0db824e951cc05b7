"""A path or URI to a `Source`: which format it is, by suffix and, failing that, by content."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.fs as pafs

from lance_align.errors import SourceError
from lance_align.fetching import NO_URLS, FetchPolicy
from lance_align.hints import did_you_mean
from lance_align.jobs.sources.base import Looks, Source
from lance_align.jobs.sources.columnar import open_arrow, open_parquet
from lance_align.jobs.sources.content import kind_of
from lance_align.jobs.sources.delimited import open_csv
from lance_align.jobs.sources.folder import FolderSource, is_one_of, left_over, open_folder, told_apart, with_labels
from lance_align.jobs.sources.jsonlines import open_jsonl
from lance_align.jobs.sources.lance_table import open_lance
from lance_align.jobs.sources.listing import list_files
from lance_align.jobs.sources.location import Location, first_line, locate
from lance_align.jobs.sources.metadata import is_metadata, open_metadata
from lance_align.jobs.sources.webdataset import open_webdataset

Format = Literal["images", "parquet", "arrow", "csv", "jsonl", "webdataset", "lance"]

_SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".ipc": "arrow",
    ".feather": "arrow",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "csv",
    ".tsv.gz": "csv",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson": "jsonl",
    ".ndjson.gz": "jsonl",
    ".tar": "webdataset",
    ".tar.gz": "webdataset",
    ".tgz": "webdataset",
    ".tar.bz2": "webdataset",
    ".tar.xz": "webdataset",
    ".tar.zst": "webdataset",
}
_BESIDE_DATA = re.compile("/_[^/=]*(/|$)")  # _metadata, _temporary, _delta_log: no reader takes them for rows
_SUFFIX_HELP = "a folder of {looks}, .parquet, .arrow, .feather, .csv, .tsv, .jsonl, .tar or .lance"


def open_source(
    uri: str | os.PathLike[str],
    *,
    format: Format | None = None,  # noqa: A002  the word the user writes
    allow_outside: bool = False,
    fetching: FetchPolicy = NO_URLS,
    as_text: Sequence[str] = (),
    drop: Sequence[str] = (),
    delimiter: str | None = None,
    looks: Looks = "images",
    labels_from_folders: bool = False,
) -> Source:
    """Open what a user named; nothing but listings, footers and lists of paths is read.

    Args:
        uri: a file or folder, local or on an object store that pyarrow reaches.
        format: None to recognise it by suffix and content.
        allow_outside: let image paths in the rows lead out of the source's own folder.
        fetching: the hosts that URLs in the rows may name.
        as_text: columns of CSV or JSON Lines to keep as text, because they play a role.
        drop: columns of files or tables of rows that are not looked at; those of folders and tar shards are fixed.
        delimiter: what separates the cells of CSV files; None to recognise it in the header line.
        looks: which files of a folder or tar shard are the rows' pictures.
        labels_from_folders: make the folder of each picture a column ``label``; for a folder of pictures only.

    Raises:
        SourceError: it does not exist, cannot be read, holds no rows' files, or its format is not clear.
    """
    options = _Options(
        allow_outside=allow_outside, as_text=tuple(as_text), drop=tuple(drop), delimiter=delimiter, looks=looks
    )
    source = _opened(uri, format, options)
    if labels_from_folders:
        if not isinstance(source, FolderSource):
            raise SourceError(f"{source.location.uri} is no folder of {looks}, so its rows have no folders as labels")
        source = with_labels(source)
    references = dataclasses.replace(source.references, fetching=fetching)
    return dataclasses.replace(source, references=references, looks=looks)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """See `open_source`."""

    allow_outside: bool
    as_text: tuple[str, ...]
    drop: tuple[str, ...]
    delimiter: str | None
    looks: Looks


def check_there(uri: str | os.PathLike[str]) -> None:
    """Refuse what does not exist, before anything that takes longer is looked at.

    Raises:
        SourceError: there is nothing, or it cannot be looked at.
    """
    _found(locate(uri), "images")


def _found(location: Location, looks: Looks) -> pafs.FileInfo:
    info = location.info()
    if info.type == pafs.FileType.NotFound:
        raise SourceError(
            f"{location.uri} does not exist; {_near(location)}expected {_SUFFIX_HELP.format(looks=looks)}"
        )
    return info


def _near(location: Location) -> str:
    """A file or folder beside the one that was named, if it is called nearly so."""
    with contextlib.suppress(OSError):  # no such folder, or an object store that does not answer
        beside = location.filesystem.get_file_info(pafs.FileSelector(location.parent().path))
        return did_you_mean(PurePosixPath(location.path).name, [info.base_name for info in beside])
    return ""


def _opened(uri: str | os.PathLike[str], format: Format | None, options: _Options) -> Source:  # noqa: A002
    if format is not None and format not in get_args(Format):
        raise SourceError(f"unknown format {format!r}; expected one of {', '.join(get_args(Format))}")
    location = locate(uri)
    info = _found(location, options.looks)
    if info.type == pafs.FileType.File:
        kind = format or _format_of_file(location, options.looks)
        if kind == "lance":
            raise SourceError(f"{location.uri} is a file; a Lance table is a folder")
        return _open(kind, location.parent() if kind == "images" else location, [location.path], options)
    if format == "lance" or (format is None and _is_lance(location)):
        _check_delimiter(location, "lance", options)
        return open_lance(location, allow_outside=options.allow_outside, drop=options.drop)
    return _opened_folder(location, format, options)


def _opened_folder(location: Location, format: Format | None, options: _Options) -> Source:  # noqa: A002
    listing, looks = list_files(location), options.looks
    kind = format or _format_of_folder(location, listing.files, looks)
    if kind == "images":
        source = _open(kind, location, list(listing.files), options)
    else:
        files = [path for path in listing.files if _format_by_name(path.removeprefix(location.path), looks) == kind]
        if not files:
            raise SourceError(f"{location.uri} holds no {kind} files ({len(listing.files)} of other kinds)")
        source = _open(kind, location, files, options)
        others = set(listing.files).difference(files)
        if any(map(is_metadata, files)):
            pictures = {path for path in others if is_one_of(looks, path)}
            source = open_metadata(source, [location.relative(path) for path in pictures])
            others -= pictures
        source = dataclasses.replace(source, left_out={**source.left_out, **left_over(others)})
    return dataclasses.replace(source, left_out={**source.left_out, **listing.left_out})


def _open(kind: Format, location: Location, files: list[str], options: _Options) -> Source:
    _check_delimiter(location, kind, options)
    outside, as_text, drop, looks = options.allow_outside, options.as_text, options.drop, options.looks
    if kind == "images":
        return open_folder(location, files, allow_outside=outside, looks=looks)
    if kind == "parquet":
        return open_parquet(location, files, allow_outside=outside, drop=drop)
    if kind == "arrow":
        return open_arrow(location, files, allow_outside=outside, drop=drop)
    if kind == "csv":
        delimiter = options.delimiter
        return open_csv(
            location, files, allow_outside=outside, as_text=as_text, drop=drop, delimiter=delimiter, looks=looks
        )
    if kind == "jsonl":
        return open_jsonl(location, files, allow_outside=outside, as_text=as_text, drop=drop, looks=looks)
    return open_webdataset(location, files, allow_outside=outside)


def _check_delimiter(location: Location, kind: Format, options: _Options) -> None:
    if options.delimiter is not None and kind != "csv":
        raise SourceError(f"a delimiter was named, but {location.uri} is {kind}; only CSV has one")


def _format_by_name(path: str, looks: Looks) -> Format | None:
    """What a file is by its path below the source's folder, which begins with a slash."""
    if is_one_of(looks, path):  # cameras write _DSC0001.JPG
        return "images"
    if _BESIDE_DATA.search(path) is not None:
        return None
    return next((form for suffix, form in _SUFFIXES.items() if path.lower().endswith(suffix)), None)


def _format_of_folder(location: Location, files: Sequence[str], looks: Looks) -> Format:
    inner = {path: path.removeprefix(location.path) for path in files}
    if any(path.startswith("/_delta_log/") for path in inner.values()):
        raise SourceError(
            f"{location.uri} is a Delta table, whose folder also holds rows that were deleted or replaced; write its "
            "rows out as Parquet, or read every file in it with --format parquet"
        )
    forms = {path: form for path in files if (form := _format_by_name(inner[path], looks)) is not None}
    counts = Counter(forms.values())
    if len(counts) == 1:
        return next(iter(counts))
    lists = {form for path, form in forms.items() if form != "images"}
    if len(lists) == 1 and all(is_metadata(path) for path, form in forms.items() if form != "images"):
        return lists.pop()  # a Hugging Face image folder
    if not counts:
        if told_apart(location, files, looks)[0]:
            return "images"
        expected = _SUFFIX_HELP.format(looks=looks)
        raise SourceError(f"{location.uri} holds no {looks} and no other known files; expected {expected}")
    seen = ", ".join(f"{count} {form}" for form, count in counts.most_common())
    raise SourceError(f"{location.uri} holds several kinds of files ({seen}); say which to read with --format")


def _format_of_file(location: Location, looks: Looks) -> Format:
    by_name = _format_by_name(location.path.removeprefix(posixpath.dirname(location.path)), looks)
    if by_name is not None:
        return by_name
    try:
        with location.filesystem.open_input_stream(location.path, compression="detect") as stream:
            head = stream.read(512)
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{location.uri} cannot be read: {first_line(error)}") from error
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"ARROW1"):
        return "arrow"
    if head[257:262] == b"ustar":
        return "webdataset"
    if kind_of(head) == looks:
        return "images"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"{", b"[")):  # JSON Lines are often called .json
        return "jsonl"
    raise SourceError(f"the format of {location.uri} is not known by its name or content; say it with --format")


def _is_lance(location: Location) -> bool:
    if location.path.endswith(".lance"):
        return True
    return location.at(f"{location.path}/_versions").info().type == pafs.FileType.Directory
