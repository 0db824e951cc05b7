"""A folder of images or videos: every such file below it is a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from lance_align.errors import SourceError
from lance_align.jobs.sources.base import Looks, Source, Split, ranges
from lance_align.jobs.sources.location import Location, References

# Files that claim to be images or videos. Some of these formats are refused later, row by row, with a reason.
SUFFIXES: Mapping[Looks, frozenset[str]] = {
    "images": frozenset(
        """avif bmp gif heic heif ico jfif jp2 jpe jpeg jpg pbm pgm png ppm tga tif tiff webp""".split()  # noqa: SIM905
    ),
    "videos": frozenset("""3gp avi flv m2ts m4v mkv mov mp4 mpeg mpg ogv ts webm wmv""".split()),  # noqa: SIM905
}
_EXAMPLES: Mapping[Looks, str] = {"images": ".jpg, .png or .webp", "videos": ".mp4, .webm or .mkv"}
FILES_PER_SPLIT = 512
PATH = "path"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FolderSource(Source):
    """Rows of one column, ``path``: relative to the folder, with ``/`` between its parts; also the row's id."""

    def tables(self, split: Split, columns: Sequence[str]) -> Iterator[pa.Table]:  # noqa: ARG002  there is one
        """The paths; the files are read where they are decoded."""
        yield pa.table({PATH: pa.array(split.files, pa.string())})


def open_folder(location: Location, files: list[str], *, allow_outside: bool, looks: Looks = "images") -> FolderSource:
    """A source of the image or video files among `files` (paths on the location's filesystem, sorted).

    Raises:
        SourceError: no file is one by its name.
    """
    pictures = tuple(location.relative(path) for path in files if is_one_of(looks, path))
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
        image=PATH,
        id=PATH,
    )


def is_one_of(looks: Looks, path: str) -> bool:
    """Whether a file claims by its suffix to be an image, or a video."""
    name = path.rsplit("/", 1)[-1]
    return "." in name and name.rsplit(".", 1)[1].lower() in SUFFIXES[looks]
