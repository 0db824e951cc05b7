"""Emoji artwork on disk to arrays: the same emoji by several artists, with its names.

Reads what npm installs (the command is in the header of pipelines/train.py); nothing is downloaded here.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lance_align.errors import RowError, SourceError
from lance_align.images import decode_rgba

# Artist -> folder of pictures below node_modules, and their suffix.
ARTISTS: dict[str, tuple[str, str]] = {
    "noto": ("emoji-datasource-google/img/google/64", ".png"),
    "twemoji": ("emoji-datasource-twitter/img/twitter/64", ".png"),
    "fluent": ("@lobehub/fluent-emoji-3d/assets", ".webp"),
}
NAMES = "emojibase-data/en/data.json"
SIDE_PX = 72

_SYMBOLS_GROUP, _FLAGS_GROUP = 8, 9  # emojibase's numbers of Unicode's groups
# Mirroring such a picture makes its name wrong.
_DIRECTED = re.compile(r"left|right|clock|moon|quarter|crescent|arrow|facing|button|hundred")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Emoji:
    """One emoji, whoever drew it.

    Attributes:
        code: code points in lower-case hexadecimal joined by ``-``, as emojibase writes them.
        name: its CLDR short name in lower case, such as ``"red apple"``.
        keywords: CLDR keywords in lower case, the name left out.
        mirrors: whether its mirror image still deserves the name.
    """

    code: str
    name: str
    keywords: tuple[str, ...]
    mirrors: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Artwork:
    """Pictures of emoji by several artists.

    Attributes:
        emojis: every emoji that at least one artist drew.
        rgba: uint8 ``(pictures, 72, 72, 4)``, alpha not multiplied in.
        emoji: int64 ``(pictures,)``, the picture's place in `emojis`.
        artist: int64 ``(pictures,)``, the picture's place in `artists`.
        artists: names of the artists read.
    """

    emojis: tuple[Emoji, ...]
    rgba: NDArray[np.uint8]
    emoji: NDArray[np.int64]
    artist: NDArray[np.int64]
    artists: tuple[str, ...]


def read_artwork(root: Path, *, artists: tuple[str, ...] = tuple(ARTISTS)) -> Artwork:
    """Read every emoji but flags, skin tones folded into the untoned picture.

    Args:
        root: the folder given to ``npm install --prefix``.
        artists: which of `ARTISTS` to read.

    Raises:
        SourceError: a package or a picture is missing or damaged.
    """
    modules = root / "node_modules"
    emojis = read_emojis(modules / NAMES)
    rgba: list[NDArray[np.uint8]] = []
    places: list[tuple[int, int]] = []
    for number, artist in enumerate(artists):
        folder, suffix = ARTISTS[artist]
        files = {path.stem: path for path in (modules / folder).glob(f"*{suffix}")}
        if not files:
            raise SourceError(f"no {artist} pictures in {modules / folder}; run the npm command of pipelines/train.py")
        for place, emoji in enumerate(emojis):
            # Some packages write the variation selector FE0F, some leave it out.
            for code in (emoji.code, emoji.code.replace("-fe0f", ""), f"{emoji.code}-fe0f"):
                if code in files:
                    rgba.append(_read_picture(files[code]))
                    places.append((place, number))
                    break
    emoji_of, artist_of = np.array(places, dtype=np.int64).T
    return Artwork(emojis=emojis, rgba=np.stack(rgba), emoji=emoji_of, artist=artist_of, artists=artists)


def read_emojis(path: Path) -> tuple[Emoji, ...]:
    """Names and keywords from emojibase's English data, flags and bare regional letters left out.

    Raises:
        SourceError: the file is missing or is not emojibase's.
    """
    try:
        entries: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(entries, list):
            raise ValueError("not a list")
        return tuple(_emoji(entry) for entry in entries if entry.get("group", _FLAGS_GROUP) != _FLAGS_GROUP)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise SourceError(f"{path}: {error}; expected emojibase-data, see the header of pipelines/train.py") from error


def _emoji(entry: dict[str, Any]) -> Emoji:
    name = str(entry["label"]).lower()
    keywords = tuple(word for tag in entry.get("tags", ()) if (word := str(tag).lower()) != name)
    mirrors = entry["group"] != _SYMBOLS_GROUP and not _DIRECTED.search(name)
    return Emoji(code=str(entry["hexcode"]).lower(), name=name, keywords=keywords, mirrors=mirrors)


def _read_picture(path: Path) -> NDArray[np.uint8]:
    """One picture as uint8 (72, 72, 4), centred: its aspect ratio is kept."""
    try:
        image = decode_rgba(path.read_bytes())
    except (OSError, RowError) as error:
        raise SourceError(f"{path}: {error}; install the package again") from error
    scale = SIDE_PX / max(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), reducing_gap=3.0)
    picture = np.zeros((SIDE_PX, SIDE_PX, 4), dtype=np.uint8)
    top, left = (SIDE_PX - image.height) // 2, (SIDE_PX - image.width) // 2
    picture[top : top + image.height, left : left + image.width] = np.asarray(image)
    return picture
