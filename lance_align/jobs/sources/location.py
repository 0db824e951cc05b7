"""Where data lies: a path on one of pyarrow's filesystems, and what paths found in data may point at."""

from __future__ import annotations

import dataclasses
import os
import posixpath
import time
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs

from lance_align.errors import MissingExtraError, RowError, SourceError
from lance_align.fetching import NO_URLS, FetchPolicy, fetch
from lance_align.jobs.sources.inline import inline_bytes, is_inline
from lance_align.paths import expanded

READ_ATTEMPTS = 3  # object stores fail in passing; a file that fails three times is a row's reason
RETRY_PAUSE_S = 0.2
GCS_RETRY_S = 30


@dataclasses.dataclass(frozen=True, slots=True)
class Location:
    """One path on one filesystem; small, and sent to workers.

    Attributes:
        filesystem: a pyarrow filesystem: local, S3, Google Cloud Storage, Azure, HDFS.
        path: the path on it, absolute and without a trailing slash.
        scheme: ``""`` for local paths, else what stands before the path in a URI, for example ``"s3://"``.
    """

    filesystem: pafs.FileSystem
    path: str
    scheme: str = ""

    @property
    def uri(self) -> str:
        """What a person would write to name it."""
        return self.scheme + self.path

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine's own filesystem."""
        return not self.scheme

    def at(self, path: str) -> Location:
        """Another absolute path on the same filesystem."""
        return Location(self.filesystem, path, self.scheme)

    def parent(self) -> Location:
        """The folder it lies in."""
        return self.at(posixpath.dirname(self.path))

    def info(self) -> pafs.FileInfo:
        """Type and size.

        Raises:
            SourceError: the filesystem does not answer.
        """
        try:
            return self.filesystem.get_file_info(self.path)
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"{self.uri} cannot be reached: {first_line(error)}") from error

    def relative(self, path: str) -> str:
        """`path` (absolute, below this folder) as seen from this folder."""
        return posixpath.relpath(path, self.path)


def locate(uri: str | os.PathLike[str]) -> Location:
    """Find the filesystem of a local path or a URI.

    Raises:
        SourceError: a scheme that pyarrow has no filesystem for, or what cannot be a path.
    """
    try:
        text = os.fsdecode(uri)  # also of bytes, as `os.listdir` gives them
    except TypeError:
        raise SourceError(f"the source is {uri!r:.80}; expected a path or a URI") from None
    if "://" not in text:
        # abspath: links stay, .. goes
        return Location(pafs.LocalFileSystem(), os.path.abspath(expanded(text, SourceError)))  # noqa: PTH100
    scheme = text.split("://", 1)[0]
    try:
        filesystem, path = pafs.FileSystem.from_uri(_bounded(text))
    except (pa.ArrowException, OSError, ValueError) as error:  # a ValueError is pyarrow's, or of what is not UTF-8
        raise SourceError(
            f"{text} cannot be opened: {first_line(error)}; expected a local path or file://, s3://, gs://, abfs:// or hdfs://"
        ) from error
    local = isinstance(filesystem, pafs.LocalFileSystem)
    return Location(filesystem, path.rstrip("/") or "/", "" if local else f"{scheme}://")


def _bounded(uri: str) -> str:
    """A URI whose filesystem gives up in time: by itself Google's tries for 15 minutes, AWS's for seconds."""
    if not uri.startswith(("gs://", "gcs://")) or "retry_limit_seconds=" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}retry_limit_seconds={GCS_RETRY_S}"


@dataclasses.dataclass(frozen=True, slots=True)
class References:
    """What the image paths inside a source may point at.

    A relative path is read from `root`. Data may name any path, so by default nothing outside `root` is opened:
    no ``..``, no absolute path or URI elsewhere, no symbolic link that leads out. URLs (http, https) are fetched from
    the hosts of `fetching` alone, of which there are none by default.

    Attributes:
        root: the folder that relative paths start from: the source's own folder.
        allow_outside: open absolute paths, URIs and links that lead elsewhere too.
        fetching: the hosts that URLs may name.
    """

    root: Location
    allow_outside: bool = False
    fetching: FetchPolicy = NO_URLS

    def find(self, reference: str) -> Location:
        """The file that a path in a row means.

        Raises:
            RowError: `missing`, when it is no path or leads outside.
        """
        if "\0" in reference or not reference:
            raise RowError("missing", f"{reference!r} is not a path")
        try:
            target = self._target(reference)
            allowed = target is not None and (self.allow_outside or self._holds(target))
        except (OSError, ValueError, RuntimeError) as error:  # of resolve(): NUL behind %00, a circle of links
            raise RowError("missing", f"{reference!r} is not a path: {first_line(error)}") from None
        if target is None or not allowed:
            raise RowError("missing", f"{reference} lies outside {self.root.uri}; paths elsewhere need --allow-outside")
        return target

    def is_outside(self, reference: str) -> bool:
        """Whether a path leads out of the source's folder; a URL or a picture that stands in the cell does not."""
        if not self.allow_outside or is_inline(reference) or _is_url(reference):
            return False
        try:
            return not self._holds(self.find(reference))
        except (RowError, OSError, ValueError, RuntimeError):
            return True

    def _target(self, reference: str) -> Location | None:
        if "://" in reference:
            return self._at_uri(reference)
        return self.root.at(posixpath.normpath(posixpath.join(self.root.path, reference)))

    def _at_uri(self, uri: str) -> Location | None:
        """The place a URI names, or None where nobody allowed to look.

        Without `allow_outside` no filesystem is made from a row's URI: pyarrow connects while it makes one, for
        ``s3://any-bucket`` to AWS and to the machine's metadata service (measured, pyarrow 26), for ``hdfs://host`` to
        that host. The source's own filesystem serves URIs of its scheme.
        """
        scheme, _, rest = uri.partition("://")
        if not self.allow_outside and scheme != "file":
            same = f"{scheme}://" == self.root.scheme and "?" not in rest
            return self.root.at(posixpath.normpath(unquote(rest))) if same else None
        try:
            return locate(uri)
        except SourceError as error:
            raise RowError("missing", str(error)) from None

    def is_remote(self, reference: str) -> bool:
        """Whether reading it waits for a network: a URL, or a path on another filesystem than this machine's."""
        if is_inline(reference):
            return False
        return _is_url(reference) or not self.root.is_local or ("://" in reference and self.allow_outside)

    def read(self, reference: str, *, max_bytes: int) -> tuple[str | None, bytes]:
        """The URI and content of what a path or a URL in a row means; a picture that stands in it has no URI.

        Raises:
            RowError: `missing`, `fetch`, `unreadable`, or `too_large` before anything over `max_bytes` is read.
            MissingExtraError: a URL is to be fetched, and the HTTP client is not installed.
            MemoryError: as it says; nothing else, whatever the reference is.
        """
        try:
            return self._read(reference, max_bytes)
        except (RowError, MissingExtraError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001  anybody's text may name anything; it costs its own row alone
            raise RowError("missing", f"{reference!r:.200}: {type(error).__name__}: {first_line(error)}") from None

    def _read(self, reference: str, max_bytes: int) -> tuple[str | None, bytes]:
        if is_inline(reference):
            return None, inline_bytes(reference, max_bytes=max_bytes)
        if _is_url(reference):
            if not self.fetching.hosts:
                raise RowError("fetch", f"{reference}: URLs are not fetched; --fetch-hosts allows hosts")
            return reference, fetch(reference, self.fetching, max_bytes=max_bytes)
        target = self.find(reference)
        for attempt in range(READ_ATTEMPTS):
            try:
                return target.uri, _read(target, max_bytes)
            except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
                reason = error.strerror or first_line(error)
                raise RowError("missing", f"{target.uri}: {reason}") from None
            except (OSError, pa.ArrowException) as error:
                if attempt == READ_ATTEMPTS - 1:
                    raise RowError("missing", f"{target.uri}: {first_line(error)}") from None
                time.sleep(RETRY_PAUSE_S * 2**attempt)
        raise AssertionError("unreachable")

    def _holds(self, target: Location) -> bool:
        if target.scheme != self.root.scheme or type(target.filesystem) is not type(self.root.filesystem):
            return False
        inside, root = target.path, self.root.path
        if target.is_local:
            inside, root = str(Path(inside).resolve()), str(Path(root).resolve())
        return inside == root or inside.startswith(root.rstrip("/") + "/")


def _read(target: Location, max_bytes: int) -> bytes:
    info = target.filesystem.get_file_info(target.path)
    if info.type == pafs.FileType.NotFound:
        raise RowError("missing", f"{target.uri}: no such file")
    if info.type != pafs.FileType.File:  # a folder, a pipe, a device: opening it could wait for ever
        raise RowError("missing", f"{target.uri}: not a regular file")
    if info.size is not None and info.size > max_bytes:
        raise RowError("too_large", f"{info.size} bytes, the limit is {max_bytes}")
    with target.filesystem.open_input_stream(target.path) as stream:
        data: bytes = stream.read(max_bytes + 1)  # more than it announced: /proc announces nothing, a log grows
    if len(data) > max_bytes:
        raise RowError("too_large", f"over {max_bytes} bytes, the limit")
    return data


def _is_url(reference: str) -> bool:
    return reference[:8].lower().startswith(("http://", "https://"))


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
