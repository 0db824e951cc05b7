"""A folder of images or videos: every such file below it is a row."""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa

from lance_align.errors import SourceError
from lance_align.jobs.sources.base import Looks, Source, Split, ranges
from lance_align.jobs.sources.content import HEAD_BYTES, kind_of
from lance_align.jobs.sources.listing import UNREADABLE
from lance_align.jobs.sources.location import Location, References

# Files that claim to be images or videos. Some of these formats are refused later, row by row, with a reason.
SUFFIXES: Mapping[Looks, frozenset[str]] = {
    "images": frozenset(
        """apng avif bmp gif heic heif ico insp jfif jp2 jpe jpeg jpg jps mpo pbm pgm pjpeg png ppm tga tif tiff
        webp""".split()  # noqa: SIM905
    ),
    "videos": frozenset("""3gp avi flv m2ts m4v mkv mov mp4 mpeg mpg ogv ts webm wmv""".split()),  # noqa: SIM905
}
_EXAMPLES: Mapping[Looks, str] = {"images": ".jpg, .png or .webp", "videos": ".mp4, .webm or .mkv"}
FILES_PER_SPLIT = 512
PATH = "path"
LABEL = "label"

SNIFFED = 16  # files of an unknown suffix that are looked into before the others of it are
MAX_KINDS = 20  # of what is left out, in a report
# Notes that writers leave beside data; neither rows nor worth a word.
_NOTES = re.compile(
    r"_SUCCESS|_(common_)?metadata|_(committed|started)_.*|_last_checkpoint|\._.*|Thumbs\.db|desktop\.ini"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FolderSource(Source):
    """Rows of a column ``path``, relative to the folder, with ``/`` between its parts; it is also the row's id.

    With labels there is a column ``label`` as well: the folder that the file lies in, also relative, null for the
    source's own.
    """

    def tables(self, split: Split, columns: Sequence[str]) -> Iterator[pa.Table]:  # noqa: ARG002  there are few
        """The paths; the files are read where they are decoded."""
        labels = [posixpath.dirname(path) or None for path in split.files]
        cells: dict[str, list[str | None]] = {PATH: [*split.files], LABEL: labels}
        yield pa.table({name: pa.array(cells[name], pa.string()) for name in self.schema.names})


def open_folder(
    location: Location, files: Sequence[str], *, allow_outside: bool, looks: Looks = "images"
) -> FolderSource:
    """A source of the image or video files among `files` (paths on the location's filesystem, sorted).

    A file is one by its suffix; of other suffixes, and of none, by its content.

    Raises:
        SourceError: no file is one.
    """
    pictures, others, closed = told_apart(location, files, looks)
    if not pictures:
        raise SourceError(
            f"{location.uri} holds no {looks} ({len(files)} files of other kinds); expected files such as "
            f"{_EXAMPLES[looks]} below it"
        )
    splits = tuple(
        Split(path=location.path, start=start, rows=rows, files=pictures[start : start + rows])
        for start, rows in ranges(len(pictures), FILES_PER_SPLIT)
    )
    return FolderSource(
        location=location,
        schema=pa.schema([pa.field(PATH, pa.string())]),
        splits=splits,
        references=References(location, allow_outside),
        left_out=left_over(others) + Counter({UNREADABLE: len(closed)}),
        image=PATH,
        id=PATH,
    )


def with_labels(source: FolderSource) -> FolderSource:
    """The source with a column ``label``: the folder that each file lies in."""
    return dataclasses.replace(source, schema=source.schema.append(pa.field(LABEL, pa.string())))


def told_apart(location: Location, files: Iterable[str], looks: Looks) -> tuple[tuple[str, ...], list[str], list[str]]:
    """The pictures (or videos) among files, relative to the location, the other files, and those of which nobody knows.

    Of each unknown suffix the first `SNIFFED` files are looked into. If none of them is a picture, no other is looked
    into; if all are, so are the others.
    """
    pictures: list[str] = []
    unknown: dict[str, list[str]] = {}
    for path in files:
        if is_one_of(looks, path):
            pictures.append(path)
        else:
            unknown.setdefault(_suffix(path), []).append(path)
    others: list[str] = []
    closed: list[str] = []
    for paths in unknown.values():
        found = [path for path in paths[:SNIFFED] if _holds(location.at(path), looks, closed)]
        rest = paths[SNIFFED:]
        if found and len(found) < SNIFFED:
            found += [path for path in rest if _holds(location.at(path), looks, closed)]
        elif found:
            found += rest
        pictures += found
        others += set(paths).difference(found, closed)
    return tuple(map(location.relative, sorted(pictures))), others, closed


def left_over(files: Iterable[str]) -> Counter[str]:
    """Files that are no rows, counted by suffix; the notes that programs leave beside data are not counted."""
    names = (path.rpartition("/")[2] for path in files)
    counts = Counter(_suffix(name) for name in names if _NOTES.fullmatch(name) is None)
    kept = Counter(dict(counts.most_common(MAX_KINDS)))
    return kept + Counter({"other suffixes": counts.total() - kept.total()})


def is_one_of(looks: Looks, path: str) -> bool:
    """Whether a file claims by its suffix to be an image, or a video."""
    return _suffix(path)[1:] in SUFFIXES[looks]


def _suffix(path: str) -> str:
    _, period, suffix = path.rpartition("/")[2].rpartition(".")
    return f".{suffix.lower()}" if period else "no suffix"


def _holds(file: Location, looks: Looks, closed: list[str]) -> bool:
    try:
        with file.filesystem.open_input_stream(file.path, compression=None) as stream:
            return kind_of(stream.read(HEAD_BYTES)) == looks
    except (OSError, pa.ArrowException):
        closed.append(file.path)
        return False
