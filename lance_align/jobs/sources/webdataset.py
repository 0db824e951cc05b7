"""WebDataset: tar shards in which files of one name and several suffixes make a row.

A shard is looked through before its first row is given: a damaged one gives no row at all, and where the members of a
sample lie apart it is known which of them is the last.
"""

from __future__ import annotations

import dataclasses
import tarfile
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

from lance_align.errors import SourceError
from lance_align.images import DEFAULT_LIMITS
from lance_align.jobs.sources import tars
from lance_align.jobs.sources.base import CHUNK_BYTES, CHUNK_ROWS, Looks, Source, Split, with_left_out
from lance_align.jobs.sources.folder import is_one_of
from lance_align.jobs.sources.listing import HIDDEN
from lance_align.jobs.sources.location import Location, References
from lance_align.jobs.sources.texts import mended
from lance_align.jobs.watchdog import beat

_FIELDS: list[pa.Field[Any]] = [
    pa.field("key", pa.string()),  # "shard.tar/name": unique over shards
    pa.field("image", pa.large_binary()),  # the first file with an image (or video) suffix; ".jpg" before ".seg.png"
    pa.field("text", pa.string()),  # .txt, .caption or .text, as UTF-8; ".txt" before ".caption.txt"
    pa.field("json", pa.string()),  # .json as it stands
    pa.field("members", pa.map_(pa.string(), pa.large_binary())),  # every other file, by suffix
]
SCHEMA = pa.schema(_FIELDS)
_TEXT_SUFFIXES = (("txt", "caption"), ("text",))  # the second only where there is none of the first
MAX_MEMBER_BYTES = DEFAULT_LIMITS.max_bytes
MAX_MEMBERS = 2**22  # of a shard, whose names are held
MAX_APART_BYTES = 2**29  # of samples that wait for members of theirs further on

# What is left out of the rows, in the words of the report.
FURTHER = "further pictures of a sample (kept as members)"
NO_SUFFIX = "members of a tar without a suffix"


# A sample's key, and how many samples of the key stand before it: those that have the same members are duplicates.
_Which: TypeAlias = tuple[str, int]


@dataclasses.dataclass(slots=True)
class _Sample:
    key: str
    files: list[tuple[str, bytes]] = dataclasses.field(default_factory=list)  # by suffix, in the shard's order
    size: int = 0

    def add(self, suffix: str, data: bytes) -> None:
        self.files.append((suffix, data))
        self.size += len(data)

    def row(self, looks: Looks) -> dict[str, Any]:
        """The cells of its row; each file is in one of them."""
        roles = {
            "image": _picture(self.files, looks),
            "text": _best(self.files, *_TEXT_SUFFIXES),
            "json": _best(self.files, ("json",)),
        }
        taken = set(roles.values())
        image, text, json = (None if number is None else self.files[number][1] for number in roles.values())
        return {
            "key": self.key,
            "image": image,
            "text": None if text is None else text.decode("utf-8", "backslashreplace"),
            "json": None if json is None else json.decode("utf-8", "backslashreplace"),
            "members": [file for number, file in enumerate(self.files) if number not in taken],
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WebDatasetSource(Source):
    """One split a shard (.tar, .tar.gz, .tgz and other compressions); nothing is unpacked to disk."""

    def tables(self, split: Split, columns: Sequence[str]) -> Iterator[pa.Table]:  # noqa: ARG002  a tar is read whole
        """The samples of the shard, in the order of their last members.

        Raises:
            SourceError: the shard is damaged, or is not one of samples; before a row of it is given.
        """
        shard = self.location.at(split.path)
        name = self.references.root.relative(split.path)
        left: Counter[str] = Counter()
        held: list[_Sample] = []
        size = 0
        for sample in _samples(shard, left):
            held.append(sample)
            size += sample.size
            if len(held) >= CHUNK_ROWS or size > CHUNK_BYTES:
                yield self._table(name, held, Counter())
                held, size = [], 0
        yield self._table(name, held, left)

    def _table(self, name: str, samples: Sequence[_Sample], left: Counter[str]) -> pa.Table:
        rows = [sample.row(self.looks) for sample in samples]
        for row in rows:
            row["key"] = f"{name}/{row['key']}"
        left[FURTHER] += sum(is_one_of(self.looks, f".{suffix}") for row in rows for suffix, _ in row["members"])
        return with_left_out(pa.Table.from_pylist(rows, schema=SCHEMA), left)


def open_webdataset(location: Location, files: list[str], *, allow_outside: bool) -> WebDatasetSource:
    """A source of tar shards; only their names are looked at here, and the first header of a single one.

    Raises:
        SourceError: the only shard does not begin as a tar does.
    """
    if len(files) == 1:
        with tars.opened(location.at(files[0]), skims=True) as members:
            next(members, None)
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


def _samples(shard: Location, left: Counter[str]) -> Iterator[_Sample]:
    """The samples of a shard as they are complete; what is no part of one is counted."""
    missing = _sizes_of_samples(shard, left)
    waiting: dict[_Which, _Sample] = {}
    names: Counter[str] = Counter()
    size = 0
    with tars.opened(shard, skims=False) as members:
        for member, archive in members:
            key, suffix = _key_and_suffix(member)
            if not member.isfile() or not suffix:
                continue
            which = (key, names[member.name])
            names[member.name] += 1
            if not missing[which]:
                raise SourceError(f"{shard.uri} changed while it was read; wait until it is complete")
            if which not in waiting:
                waiting[which] = _Sample(_shown(key, missing))
            sample = waiting[which]
            sample.add(suffix, tars.content(archive, member))
            size += member.size
            missing[which] -= 1
            if missing[which] == 0:
                size -= sample.size
                yield waiting.pop(which)
            elif size > MAX_APART_BYTES:
                raise SourceError(
                    f"the members of samples such as {key!r} lie so far apart in {shard.uri} that over "
                    f"{MAX_APART_BYTES} bytes had to wait; pack it again in the order of names (tar --sort=name)"
                )
    if waiting:
        raise SourceError(f"{shard.uri} changed while it was read; wait until it is complete")


def _sizes_of_samples(shard: Location, left: Counter[str]) -> Counter[_Which]:
    """How many members each sample has; the shard is read to its end, and refused where rows could be lost in it."""
    sizes: Counter[_Which] = Counter()
    names: Counter[str] = Counter()
    with tars.opened(shard, skims=True) as members:
        for member, _ in members:
            beat()
            key, suffix = _key_and_suffix(member)
            if member.isfile() and not suffix:
                left[HIDDEN if member.name.rpartition("/")[2].startswith(".") else NO_SUFFIX] += 1
            if suffix and (member.isfile() or member.islnk() or member.issym()):
                _check(shard, member)
                sizes[key, names[member.name]] += 1
                names[member.name] += 1
                if len(names) > MAX_MEMBERS:
                    raise SourceError(f"{shard.uri} holds over {MAX_MEMBERS} members; pack it as several shards")
    for (key, time), size in sizes.items():
        if size != sizes[key, 0]:
            raise SourceError(
                f"{shard.uri} holds some members of {key!r} {time + 1} times and others not, so it is not clear which "
                "belong together; pack it again"
            )
    return sizes


def _check(shard: Location, member: tarfile.TarInfo) -> None:
    if not member.isfile():
        raise SourceError(
            f"{shard.uri} holds {mended(member.name)!r} as a link, without its content; pack it again with "
            "tar --dereference --hard-dereference"
        )
    if member.size > MAX_MEMBER_BYTES:
        raise SourceError(
            f"{shard.uri} holds {mended(member.name)!r} of {member.size} bytes; the limit is {MAX_MEMBER_BYTES}"
        )


def _key_and_suffix(member: tarfile.TarInfo) -> tuple[str, str]:
    """WebDataset's rule: the key ends at the first dot of the file's name. Bytes that are no UTF-8 are surrogates."""
    folder, _, file = member.name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return (f"{folder}/{stem}" if folder else stem), (mended(suffix.lower()) if stem else "")


def _shown(key: str, samples: Collection[_Which]) -> str:
    """A key as text: itself, or with its bytes that are no UTF-8 written so that no other key of the shard reads so."""
    text = mended(key)
    while text != key and (text, 0) in samples:
        text = text.replace("\\", "\\\\")
    return text


def _best(files: Sequence[tuple[str, bytes]], *wanted: Sequence[str]) -> int | None:
    """The number of the file whose suffix, or else whose last suffix, is wanted; the second words count after all."""
    for words in wanted:
        for names in ([suffix for suffix, _ in files], [suffix.rpartition(".")[2] for suffix, _ in files]):
            found = [(words.index(name), number) for number, name in enumerate(names) if name in words]
            if found:
                return min(found)[1]
    return None


def _picture(files: Sequence[tuple[str, bytes]], looks: Looks) -> int | None:
    """The number of the first picture, ``.jpg`` before ``.seg.png``."""
    found = [("." in suffix, number) for number, (suffix, _) in enumerate(files) if is_one_of(looks, f".{suffix}")]
    return min(found)[1] if found else None
