"""The names by which columns are recognised, and which columns of a list are text because of the role they play.

A column that plays the id, the text or the path is text before anybody guesses types: ``007`` names one row and ``7``
another.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pyarrow as pa

from lance_align.jobs.sources.base import Looks

# Tried in this order, letter case ignored. `file_name` is what Hugging Face's metadata.csv calls it.
IMAGE_NAMES = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes")
VIDEO_NAMES = ("video", "clip", "movie", "mp4", "webm", "mkv", "mov", "avi", "video_bytes", "bytes")
_FILE_NAMES = ("file_name", "filename", "file", "filepath", "file_path", "path", "uri")
DATA_NAMES: Mapping[Looks, Sequence[str]] = {"images": IMAGE_NAMES, "videos": VIDEO_NAMES}
PATH_NAMES: Mapping[Looks, Sequence[str]] = {
    "images": (*IMAGE_NAMES, "image_path", *_FILE_NAMES),
    "videos": (*VIDEO_NAMES, "video_path", "clip_path", *_FILE_NAMES),
}
TEXT_NAMES = ("text", "caption", "description", "prompt", "title", "alt", "name", "sentence")
ID_NAMES = ("id", "_id", "__key__", "uuid")


def played_as_text(schema: pa.Schema, looks: Looks, *, said: Collection[str]) -> set[str]:
    """The columns of a list that must be text.

    Args:
        schema: the columns with the types that their values look like.
        said: columns that the user gave a role.

    Returns:
        Those, the id, and the text and the path where no column of such a name is text of itself.
    """
    found = {name for name in schema.names if name in said}
    by_lower = {field.name.lower(): field for field in reversed(list(schema))}
    for names in (ID_NAMES, TEXT_NAMES, _paths(looks)):
        candidates = [by_lower[name] for name in names if name in by_lower]
        is_clear = names is not ID_NAMES and any(field.type == pa.string() for field in candidates)
        if candidates and not is_clear:
            found.add(candidates[0].name)
    return found


def may_play(name: str, looks: Looks) -> bool:
    """Whether a column of a list is recognised by its name."""
    return name.lower() in (*ID_NAMES, *TEXT_NAMES, *_paths(looks))


def _paths(looks: Looks) -> list[str]:
    return [name for name in PATH_NAMES[looks] if not name.endswith("bytes")]  # in a list, bytes are a size
