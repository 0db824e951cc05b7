"""The paper that `lance_align.explore` draws on: a `Sheet`, and the canvas of tiles, words and dots it is made from."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lance_align.errors import ArgumentError, MissingExtraError
from lance_align.lettering import font_of, wrapped
from lance_align.tiles import Tile

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

# All lengths are inches.
TILE_SIDE, GAP, _MARGIN, _LINE = 1.25, 0.14, 0.22, 0.155
TILE_HEIGHT = TILE_SIDE + 3 * _LINE + GAP  # with two lines of caption and one of score
_DPI = 110
_LEADING = 1.35 / 72  # inches from line to line for a point of a letter's size
INK, GREY, RULE, _PAPER = "#1c2230", "#737a87", "#dfe2e7", "#ffffff"
ERROR_INK, _ERROR_FILL, _DOT = "#8a3b32", "#f8ecea", "#b9c3d6"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """A finished picture.

    Attributes:
        figure: the matplotlib figure, to change or to save in another format.

    >>> sheet = lance_align.explore.gallery(table.search("red heart").limit(3))
    >>> sheet.figure.savefig("gallery.svg")
    """

    figure: Figure

    def _repr_png_(self) -> bytes:
        out = io.BytesIO()
        self.figure.savefig(out, format="png", dpi=_DPI, facecolor=_PAPER)
        return out.getvalue()

    def save(self, path: Path | str) -> Path:
        """Write the picture as PNG and return its path.

        Raises:
            ArgumentError: the name does not end in ``.png``, or the file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise ArgumentError(f"{path} does not end in .png; for other formats use .figure.savefig")
        try:
            path.write_bytes(self._repr_png_())
        except OSError as error:
            raise ArgumentError(
                f"{path} cannot be written ({error.strerror or error}); choose another place"
            ) from error
        return path


class Canvas:
    """A matplotlib figure measured in inches from its top left."""

    def __init__(self, width: float, height: float, credit: str) -> None:
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingExtraError("matplotlib", "plots") from error
        foot = 0.25 if credit else 0.0
        self._width, self._height = width + 2 * _MARGIN, height + foot + 2 * _MARGIN
        self._figure = Figure(figsize=(self._width, self._height), facecolor=_PAPER)
        if credit:
            self.text(0, height + foot - 0.1, credit, size=7.5, colour=GREY)

    def sheet(self) -> Sheet:
        return Sheet(self._figure)

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return (x + _MARGIN) / self._width, 1 - (y + _MARGIN) / self._height

    def text(
        self, x: float, y: float, words: str, *, size: float = 8.5, colour: str = INK, weight: str = "normal",
        width: float = 0.0, lines: int = 1,
    ) -> int:  # fmt: skip
        """Draw words, on lines no wider than `width`; by default no wider than the sheet. Returns how many lines."""
        width = width or self._width - 2 * _MARGIN - x
        drawn = wrapped(words, width=width, lines=lines, size=size, weight=weight)
        for number, line in enumerate(drawn):
            self._figure.text(
                *self._at(x, y + number * size * _LEADING), line, color=colour, va="top", parse_math=False,
                fontproperties=font_of(line, size=size, weight=weight),
            )  # fmt: skip
        return len(drawn)

    def picture(self, x: float, y: float, side: float, picture: Image | str) -> None:
        left, bottom = self._at(x, y + side)
        axes = self._figure.add_axes((left, bottom, side / self._width, side / self._height))
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=RULE, linewidth=0.6)
        if isinstance(picture, str):
            axes.set_facecolor(_ERROR_FILL)
            words = "\n".join(wrapped(picture, width=side * 0.92, lines=max(1, int(side * 5)), size=7))
            axes.text(
                0.5, 0.5, words, color=ERROR_INK, ha="center", va="center", clip_on=True,
                transform=axes.transAxes, fontproperties=font_of(words, size=7), parse_math=False,
            )  # fmt: skip
            return
        picture.thumbnail((round(side * _DPI * 2),) * 2)
        axes.imshow(np.asarray(picture))
        longer = max(picture.size)
        axes.set(
            xlim=((picture.width - longer) / 2 - 0.5, (picture.width + longer) / 2 - 0.5),
            ylim=((picture.height + longer) / 2 - 0.5, (picture.height - longer) / 2 - 0.5),
        )

    def tile(self, x: float, y: float, tile: Tile) -> None:
        self.picture(x, y, TILE_SIDE, tile.picture)
        lines = self.text(x, y + TILE_SIDE + 0.05, tile.caption, size=8, width=TILE_SIDE, lines=2)
        self.text(x, y + TILE_SIDE + 0.06 + _LINE * max(1, lines), tile.score, size=7.5, colour=GREY, width=TILE_SIDE)

    def rule(self, y: float) -> None:
        from matplotlib.lines import Line2D

        (left, height), (right, _) = self._at(0, y), self._at(self._width - 2 * _MARGIN, y)
        self._figure.add_artist(Line2D((left, right), (height, height), color=RULE, linewidth=0.8))

    def bar(self, x: float, y: float, width: float, height: float) -> None:
        from matplotlib.patches import Rectangle

        left, bottom = self._at(x, y + height)
        size = width / self._width, height / self._height
        self._figure.add_artist(Rectangle((left, bottom), *size, color=_DOT, linewidth=0))

    def dots(self, spots: NDArray[np.float64]) -> None:
        axes = self._figure.add_axes((0, 0, 1, 1), frameon=False)
        axes.set(xticks=[], yticks=[], xlim=(0, self._width), ylim=(self._height, 0))
        axes.scatter(spots[:, 0] + _MARGIN, spots[:, 1] + _MARGIN, s=5, color=_DOT, linewidths=0)
