"""Contact sheets as one HTML file: pictures inside, no script, nothing loaded, for screens of any width."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lance_align.errors import ArgumentError
from lance_align.images import encode_thumbnail
from lance_align.tiles import PICTURE_PX, Tile

if TYPE_CHECKING:
    from PIL.Image import Image

_MAX_CHARS = 300  # of a caption or a reason
_OWN_DIRECTION = ' dir="auto"'  # a text's writing direction changes nothing outside it

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2230; --grey: #626975; --rule: #dfe2e7; --paper: #fff; --tile: #f4f5f7;
  --error: #8a3b32 }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaee; --grey: #a0a7b4; --rule: #363c48; --paper: #15181e;
  --tile: #20242c; --error: #f0a79d } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 80rem; background: var(--paper); color: var(--ink);
  font: 0.9rem/1.35 system-ui, sans-serif }
h1 { font-size: 1.4rem; margin: 0 0 1rem }
section { display: grid; grid-template-columns: 9rem 1fr; gap: 1rem; border-top: 1px solid var(--rule);
  padding: 1rem 0 }
h2 { font-size: 1.05rem; margin: 0 0 0.5rem; overflow-wrap: anywhere }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: 0.8rem; list-style: none;
  margin: 0; padding: 0 }
figure { margin: 0 }
img, .error { display: block; width: 100%; height: auto; aspect-ratio: 1; object-fit: contain; background: var(--tile);
  border-radius: 0.3rem }
.error { margin: 0; padding: 0.6rem; overflow: hidden; color: var(--error); font-size: 0.8rem; overflow-wrap: anywhere }
figcaption { margin-top: 0.3rem; overflow-wrap: anywhere }
.score, footer { color: var(--grey); font-size: 0.8rem }
.score { display: block }
@media (max-width: 40rem) { section { grid-template-columns: 1fr; gap: 0.5rem }
  header :is(img, .error) { max-width: 9rem }
  ol { grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr)) } }
"""
# The browser runs and loads nothing but this one style and the pictures inside.
_POLICY = (
    "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'"
)


@dataclasses.dataclass(frozen=True, slots=True)
class HtmlLine:
    """A query and what it found; the query's own picture, or why it cannot be shown, where it has one."""

    query: str
    picture: Image | str | None
    tiles: Sequence[Tile]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class HtmlSheet:
    """A finished page.

    Attributes:
        html: all of it.

    >>> sheet = lance_align.explore.html_sheet({"red heart": table.search("red heart").limit(3)})
    >>> sheet.save("sheet.html")
    PosixPath('sheet.html')
    """

    html: str = dataclasses.field(repr=False)

    def save(self, path: Path | str) -> Path:
        """Write the page and return its path.

        Raises:
            ArgumentError: the name does not end in ``.html``, or the file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() not in (".html", ".htm"):
            raise ArgumentError(f"{path} does not end in .html; explore.contact_sheet makes a PNG")
        try:
            path.write_text(self.html, encoding="utf-8")
        except OSError as error:
            raise ArgumentError(
                f"{path} cannot be written ({error.strerror or error}); choose another place"
            ) from error
        return path


def html_page(lines: Sequence[HtmlLine], *, title: str, credit: str) -> HtmlSheet:
    """The page of some queries, one below the other."""
    heading = f"<h1{_OWN_DIRECTION}>{_escaped(title)}</h1>\n" if title else ""
    foot = f"<footer{_OWN_DIRECTION}>{_escaped(credit)}</footer>\n" if credit else ""
    return HtmlSheet(
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{_escaped(title or 'Search results')}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"{heading}<main>\n{''.join(map(_section, lines))}</main>\n{foot}</body>\n</html>\n"
    )


def _section(line: HtmlLine) -> str:
    query = _escaped(line.query)
    picture = "" if line.picture is None else _figure(line.picture, f"picture of the query: {line.query}")
    heading = f"<h2{_OWN_DIRECTION}>{query if line.picture is not None else f'“{query}”'}</h2>"
    found = "".join(map(_item, line.tiles))
    results = f"<ol>\n{found}</ol>" if found else '<p class="score">no rows</p>'
    return f"<section>\n<header>{heading}{picture}</header>\n{results}\n</section>\n"


def _item(tile: Tile) -> str:
    caption = f"<span{_OWN_DIRECTION}>{_escaped(tile.caption)}</span>"
    score = f'<span class="score">{_escaped(tile.score)}</span>' if tile.score else ""
    picture = _figure(tile.picture, tile.caption or "a picture without a caption")
    return f"<li><figure>{picture}<figcaption>{caption}{score}</figcaption></figure></li>\n"


def _figure(picture: Image | str, alternative: str) -> str:
    if isinstance(picture, str):
        return f'<p class="error">{_escaped(picture)}</p>'
    data = base64.b64encode(encode_thumbnail(picture, max_side=PICTURE_PX)).decode()
    return (
        f'<img alt="{_escaped(alternative)}" width="{picture.width}" height="{picture.height}" '
        f'src="data:image/jpeg;base64,{data}">'
    )


def _escaped(text: str) -> str:
    """The text, cut, without markup; what HTML or UTF-8 cannot hold as its code point."""
    short = " ".join(text[: 2 * _MAX_CHARS].split())
    short = short if len(short) <= _MAX_CHARS else short[: _MAX_CHARS - 1] + "…"
    return html.escape("".join(f"U+{ord(c):04X}" if unicodedata.category(c) in ("Cc", "Cs") else c for c in short))
