"""Texts as a sheet can draw them: a font for every letter, or its code point; lines that fit a width."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.font_manager import FontProperties

POINTS_PER_INCH = 72
_NARROWEST = 0.2  # of a letter's size; more letters than that fit into no line
_JOINERS = "\u200c\u200d\ufe0e\ufe0f"  # draw nothing themselves; other format characters may turn what follows around
# Fonts of boxes for any letter, and of formulas, whose letters lie at other code points than Unicode's.
_UNFIT = ("Last Resort", "LastResort", "cm", "STIXNon", "STIXSize")


def drawable(text: str) -> str:
    """The text with each letter that no font has, or that draws nothing, as its code point: ``U+732B``."""
    parts: list[str] = []
    was_code = False
    for letter in text:
        if letter in _JOINERS and was_code:
            continue
        is_code = letter != "\n" and not _is_drawn(letter)
        parts.append(f"{' ' if was_code and is_code else ''}U+{ord(letter):04X}" if is_code else letter)
        was_code = is_code
    return "".join(parts)


def font_of(text: str, *, size: float, weight: str = "normal") -> FontProperties:
    """The fonts that have the text's letters, matplotlib's own first; of normal weight where that one is not enough.

    Few others have a bold face, and matplotlib logs a line for each that has none.

    Args:
        text: what `drawable` gives.
        size: of the letters, points.
        weight: of the letters, as matplotlib calls it.
    """
    from matplotlib.font_manager import FontProperties

    first = _first_font().family_name
    others = {name for letter in set(text) - {"\n"} for name in [_family_of(letter)] if name not in (first, None)}
    return FontProperties(family=[first, *sorted(others)], size=size, weight="normal" if others else weight)


def wrapped(text: str, *, width: float, lines: int, size: float, weight: str = "normal") -> list[str]:
    """The text on so many lines, cut with an ellipsis where more would be needed.

    Args:
        width: inches, measured with the fonts that draw the text.
        lines: at least 1.
        size: of the letters, points.
        weight: of the letters, as matplotlib calls it.
    """
    most = lines * int(width * POINTS_PER_INCH / (size * _NARROWEST)) + 2
    words = drawable(" ".join(text[: 2 * most].split()))[:most]
    fits = _fitting(width, size, weight)
    done: list[str] = []
    while words and len(done) < lines - 1:
        line = _first_line(words, fits)
        done.append(line)
        words = words[len(line) :].lstrip()
    if words and not fits(words):
        words = words[: _longest(words, lambda part: fits(part.rstrip() + "…"))].rstrip() + "…"
    return [*done, words] if words else done


def _fitting(width: float, size: float, weight: str) -> Callable[[str], bool]:
    """Whether a line is no wider than `width`."""
    from matplotlib.backends.backend_agg import RendererAgg

    dpi = 4 * POINTS_PER_INCH  # at fewer, hinting moves what is drawn
    renderer: Any = RendererAgg(1, 1, dpi)  # type: ignore[no-untyped-call]

    def fits(line: str) -> bool:
        font = font_of(line, size=size, weight=weight)
        return bool(renderer.get_text_width_height_descent(line, font, False)[0] <= width * dpi)

    return fits


def _first_line(words: str, fits: Callable[[str], bool]) -> str:
    """As many whole words as fit, or as many letters of the first where it alone does not."""
    most = _longest(words, fits)
    if most == len(words):
        return words
    at_space = words.rfind(" ", 0, most + 1)
    return words[: at_space if at_space > 0 else most]


def _longest(words: str, fits: Callable[[str], bool]) -> int:
    """How many letters fit, 1 at least."""
    least, most = 1, len(words)
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if fits(words[:middle]) else (least, middle - 1)
    return least


def _is_drawn(letter: str) -> bool:
    """Control characters, halves of surrogates and what turns the writing direction have no picture."""
    return letter in _JOINERS or (unicodedata.category(letter)[0] != "C" and _family_of(letter) is not None)


@lru_cache(maxsize=1)
def _first_font() -> Any:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return get_font(findfont(FontProperties()))


@lru_cache(maxsize=1)
def _other_fonts() -> list[tuple[str, str]]:
    """The families of this machine with a file of each, upright and of normal weight where there is one."""
    from matplotlib.font_manager import fontManager

    files: dict[str, str] = {}
    for entry in sorted(fontManager.ttflist, key=lambda each: (each.style != "normal", str(each.weight) != "400")):
        if not entry.name.startswith(_UNFIT):
            files.setdefault(entry.name, entry.fname)
    return sorted(files.items())


@lru_cache(maxsize=4096)
def _family_of(letter: str) -> str | None:
    """The first family that has a letter; None where none has."""
    if _first_font().get_char_index(ord(letter)):
        return str(_first_font().family_name)
    return next((name for name, file in _other_fonts() if ord(letter) in _letters(file)), None)


@lru_cache(maxsize=256)
def _letters(file: str) -> frozenset[int]:
    """The code points that a file has an outline for; none of a font of bitmaps, which matplotlib cannot draw."""
    from matplotlib.font_manager import get_font

    try:
        font = get_font(file)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError):  # a file that is gone or damaged, one that FreeType refuses
        return frozenset()
