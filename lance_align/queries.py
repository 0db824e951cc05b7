"""Composed queries: pictures and words added and subtracted with weights, as in ALIGN's multimodal retrieval.

    >>> from pathlib import Path
    >>> query = Query(Path("car.jpg")) + "blue" - 0.5 * Query("red")
    >>> len(query.parts)
    3

Each part is embedded and normalised, the weighted sum is normalised again (Jia et al. 2021, arXiv 2102.05918, section 5
on image + text queries, which adds embeddings of equal weight; weights and minus are the natural extension).
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
import warnings
from collections.abc import Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from lance_align.encoders.base import Embeddings, Encoder, Vectors, is_picture
from lance_align.encoders.remembered import remembered
from lance_align.errors import ArgumentError

if TYPE_CHECKING:
    from PIL.Image import Image

# One part: a str is words; a Path, encoded bytes, a PIL image or a uint8 array (height, width[, channels]) is a
# picture; a float array (dim,) is an embedding already, for example a row's vector.
QueryValue: TypeAlias = "str | bytes | bytearray | memoryview | Path | Image | NDArray[Any]"

# Parts have norm 1: what is left below this share of the weights is rounding (float32 has 1.2e-7), not a direction.
MIN_NORM = 1e-5

# A query that ends so names a picture, and says nothing of what is seen.
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One weighted part of a query."""

    value: QueryValue
    weight: float

    @property
    def kind(self) -> str:
        """``text``, ``image`` or ``vector``."""
        if isinstance(self.value, str):
            return "text"
        if isinstance(self.value, np.ndarray) and self.value.dtype.kind == "f":
            return "vector"
        return "image"

    def __str__(self) -> str:
        shown = repr(self.value) if isinstance(self.value, (str, Path)) else type(self.value).__name__
        return f"{shown:.60} ({self.kind})"


@dataclasses.dataclass(frozen=True, slots=True, eq=False, init=False)
class Query:
    """A weighted sum of words, pictures and embeddings; build it with ``+``, ``-`` and ``*``.

    LanceDB's ``table.search`` takes it like any other query. It is also the way to search with an array of pixels:
    LanceDB takes a bare array for a vector.

    Args:
        value: words (str), a picture (Path, bytes, PIL image, uint8 array), an embedding (float array of shape
            ``(dim,)``), or another query.
        weight: a finite number; negative leads away from the value.

    Raises:
        ArgumentError: a value of another type, or a weight that is not a finite number, or multiplied with another
            is none.

    Warns:
        UserWarning: words that are the path of a picture, or its URL; once for each.

    >>> query = lance_align.Query(picture) + 2 * lance_align.Query("blue")
    >>> len(table.search(query).limit(5).to_list())
    5
    """

    parts: tuple[Part, ...]

    # numpy would otherwise spread ``array + query`` over the array's elements
    __array_ufunc__ = None

    def __init__(self, value: QueryValue | Query, weight: float = 1.0) -> None:
        weight = _checked_weight(weight)
        if isinstance(value, Query):
            parts = tuple(Part(part.value, _product(part.weight, weight)) for part in value.parts)
        else:
            parts = (Part(_checked_value(value), weight),)
        object.__setattr__(self, "parts", parts)

    @classmethod
    def _of_parts(cls, parts: Iterable[Part]) -> Query:
        query = cls.__new__(cls)
        object.__setattr__(query, "parts", tuple(parts))
        return query

    def __add__(self, other: QueryValue | Query) -> Query:
        return self._of_parts((*self.parts, *Query(other).parts))

    def __radd__(self, other: QueryValue | Query) -> Query:
        return self._of_parts((*Query(other).parts, *self.parts))

    def __sub__(self, other: QueryValue | Query) -> Query:
        return self + Query(other, -1.0)

    def __rsub__(self, other: QueryValue | Query) -> Query:
        return Query(other) + Query(self, -1.0)

    def __mul__(self, factor: float) -> Query:
        return Query(self, factor)

    __rmul__ = __mul__

    def __neg__(self) -> Query:
        return Query(self, -1.0)

    def __repr__(self) -> str:
        return f"Query({' '.join(f'{part.weight:+g}*{part}' for part in self.parts)})"

    def encode(self, encoder: Encoder) -> Vectors:
        """Embed the query; a tower that no part needs is not used, and a text asked before is not embedded again.

        Returns:
            ``(dim,) float32`` of norm 1.

        Raises:
            ArgumentError: a part cannot be embedded (the message names it), or the parts cancel each other.
        """
        embedded = np.zeros((len(self.parts), encoder.spec.dim))
        for kind in ("text", "image"):
            places = [place for place, part in enumerate(self.parts) if part.kind == kind]
            if places:
                values: list[Any] = [self.parts[place].value for place in places]
                found = remembered.encode(encoder, values) if kind == "text" else encoder.encode_images(values)
                embedded[places] = _vectors(found, [self.parts[place] for place in places])
        for place, part in enumerate(self.parts):
            if part.kind == "vector":
                embedded[place] = _unit(part, encoder.spec.dim)
        weights = np.array([part.weight for part in self.parts])
        weights = weights / (np.abs(weights).max() or 1.0)  # sums and squares of the largest floats are infinite
        total = weights @ embedded
        norm = float(np.linalg.norm(total))
        if norm <= MIN_NORM * np.abs(weights).sum():
            raise ArgumentError(f"the parts of {self!r} cancel each other; change a weight or leave one out")
        vector: Vectors = (total / norm).astype(np.float32)
        return vector


def _vectors(embeddings: Embeddings, parts: Sequence[Part]) -> Vectors:
    for part, reason in zip(parts, embeddings.reasons, strict=True):
        if reason is not None:
            raise ArgumentError(f"the query part {part} cannot be embedded: {reason}")
    return embeddings.vectors


def _unit(part: Part, dim: int) -> NDArray[np.float64]:
    vector = np.asarray(part.value, dtype=np.float64)
    largest = float(np.abs(vector).max(initial=0.0))
    if vector.shape != (dim,) or not math.isfinite(largest) or largest == 0.0:
        raise ArgumentError(
            f"the query part {part} of shape {vector.shape} is not an embedding; expected ({dim},), finite and not zero"
        )
    unit: NDArray[np.float64] = vector / largest
    return unit / np.linalg.norm(unit)


def _checked_weight(weight: object) -> float:
    try:
        if isinstance(weight, Real) and not isinstance(weight, bool) and math.isfinite(weight):
            return float(weight)
    except OverflowError:  # a whole number or a fraction beyond all floats
        pass
    raise ArgumentError(f"a query's weight is {weight!r:.60}; expected a finite number")


def _product(weight: float, factor: float) -> float:
    """Of two weights; one that is rounded to infinity, to zero or to a few bits would turn the query elsewhere."""
    product = weight * factor
    if weight and factor and not sys.float_info.min <= abs(product) <= sys.float_info.max:
        raise ArgumentError(
            f"the weights {weight:g} and {factor:g} multiply to {product:g}, beyond what a float holds; expected "
            "weights nearer to 1, for only their proportions count"
        )
    return product


def _checked_value(value: Any) -> QueryValue:
    if isinstance(value, str):
        _warn_of_picture(value)
        return value
    if isinstance(value, (bytes, bytearray, memoryview, Path)) or is_picture(value):
        return value  # type: ignore[no-any-return]  # a PIL image is recognised without importing Pillow
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return value
    raise ArgumentError(
        f"a query cannot hold a {type(value).__name__}; expected str (words), Path, bytes, a PIL image or a uint8 "
        "array (a picture), or a float array (an embedding)"
    )


@functools.lru_cache(maxsize=1024)  # once for each
def _warn_of_picture(text: str) -> None:
    """Say that a str is words, where it names a picture: people who write so mean the picture."""
    if _is_url_of_picture(text):
        named, remedy = "the URL of a picture", "its bytes or a PIL image, for nothing is fetched here"
    elif _is_file(text):
        named, remedy = "the path of a file", f"pathlib.Path({text!r:.200}), its bytes or a PIL image"
    else:
        return
    warnings.warn(
        f"the query {text!r:.200} is {named}, but is searched as words; to search by the picture give {remedy}",
        UserWarning,
        stacklevel=2,
    )


def _is_url_of_picture(text: str) -> bool:
    try:
        url = urlsplit(text.strip())
    except ValueError:
        return False
    if url.scheme == "data":
        return url.path.startswith("image/")
    return "://" in text and url.path.lower().endswith(PICTURE_SUFFIXES)


def _is_file(text: str) -> bool:
    """Whether a text is the path of a file; a word without a suffix and without a folder is a word."""
    if not (text.lower().endswith(PICTURE_SUFFIXES) or "/" in text or "\\" in text):
        return False
    try:
        return Path(text).expanduser().is_file()
    except (OSError, RuntimeError, ValueError):  # too long, not allowed, no such user
        return False
