"""WebDataset: tar shards in which files of one name and several suffixes make a row."""

from __future__ import annotations

import dataclasses
import tarfile
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from lance_align.errors import SourceError
from lance_align.images import DEFAULT_LIMITS
from lance_align.jobs.sources.base import CHUNK_BYTES, CHUNK_ROWS, Looks, Source, Split
from lance_align.jobs.sources.folder import is_one_of
from lance_align.jobs.sources.location import Location, References, first_line

_FIELDS: list[pa.Field[Any]] = [
    pa.field("key", pa.string()),  # "shard.tar/name": unique over shards
    pa.field("image", pa.large_binary()),  # the first file of the sample with an image (or video) suffix
    pa.field("text", pa.string()),  # .txt or .caption, as UTF-8
    pa.field("json", pa.string()),  # .json as it stands
    pa.field("members", pa.map_(pa.string(), pa.large_binary())),  # every other file, by suffix
]
SCHEMA = pa.schema(_FIELDS)
_TEXT_SUFFIXES = ("txt", "caption")
MAX_MEMBER_BYTES = DEFAULT_LIMITS.max_bytes


@dataclasses.dataclass(slots=True)
class _Sample:
    key: str
    image: bytes | None = None
    text: str | None = None
    json: str | None = None
    members: list[tuple[str, bytes]] = dataclasses.field(default_factory=list)
    size: int = 0

    def add(self, suffix: str, data: bytes, looks: Looks) -> None:
        self.size += len(data)
        if self.image is None and is_one_of(looks, f"x.{suffix}"):
            self.image = data
        elif self.text is None and suffix in _TEXT_SUFFIXES:
            self.text = data.decode("utf-8", "replace")
        elif self.json is None and suffix == "json":
            self.json = data.decode("utf-8", "replace")
        else:
            self.members.append((suffix, data))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WebDatasetSource(Source):
    """One split a shard (.tar, .tar.gz, .tgz), read from front to back; nothing is unpacked to disk."""

    def tables(self, split: Split, columns: Sequence[str]) -> Iterator[pa.Table]:  # noqa: ARG002  a tar is read whole
        """The samples of the shard.

        Raises:
            SourceError: the shard is damaged.
        """
        shard = self.location.at(split.path)
        name = self.references.root.relative(split.path)
        held: list[_Sample] = []
        for sample in _samples(shard, name, self.looks):
            held.append(sample)
            if len(held) >= CHUNK_ROWS or sum(sample.size for sample in held) > CHUNK_BYTES:
                yield _table(held)
                held = []
        yield _table(held)


def open_webdataset(location: Location, files: list[str], *, allow_outside: bool) -> WebDatasetSource:
    """A source of tar shards; only their names are looked at here."""
    root = location.parent() if files == [location.path] else location
    return WebDatasetSource(
        location=location,
        schema=SCHEMA,
        splits=tuple(Split(path=path) for path in files),
        references=References(root, allow_outside),
        image="image",
        text="text",
        id="key",
    )


def _samples(shard: Location, name: str, looks: Looks) -> Iterator[_Sample]:
    sample: _Sample | None = None
    try:
        with (
            shard.filesystem.open_input_stream(shard.path, compression=None) as stream,
            tarfile.open(fileobj=stream, mode="r|*") as archive,
        ):
            for member in archive:
                key, suffix = _key_and_suffix(member.name)
                if not member.isfile() or not suffix:
                    continue
                if member.size > MAX_MEMBER_BYTES:
                    raise SourceError(
                        f"{shard.uri} holds {member.name!r} of {member.size} bytes; the limit is {MAX_MEMBER_BYTES}"
                    )
                if sample is None or sample.key != f"{name}/{key}":
                    if sample is not None:
                        yield sample
                    sample = _Sample(f"{name}/{key}")
                content = archive.extractfile(member)
                sample.add(suffix, content.read() if content is not None else b"", looks)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise SourceError(f"{shard.uri} cannot be read as a tar shard: {first_line(error)}") from error
    if sample is not None:
        yield sample


def _key_and_suffix(name: str) -> tuple[str, str]:
    """WebDataset's rule: the key ends at the first dot of the file's name."""
    folder, _, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return (f"{folder}/{stem}" if folder else stem), (suffix.lower() if stem else "")


def _table(samples: list[_Sample]) -> pa.Table:
    columns = {name: [getattr(sample, name) for sample in samples] for name in SCHEMA.names}
    return pa.table(columns, schema=SCHEMA)
