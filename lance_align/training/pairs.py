"""What the loop trains on: batches of pictures and captions, and where they come from."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lance_align.errors import RowError, SourceError
from lance_align.images import ImageInput, read_pixels
from lance_align.spec import ImageSpec

Row: TypeAlias = "tuple[ImageInput | None, str | None]"  # a picture and its caption


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """n image–text pairs.

    Attributes:
        pixels: uint8 ``(n, 3, height, width)`` RGB, or float32 of the same shape with values 0 to 255.
        texts: n captions.
        matches: bool ``(n, n)``; ``matches[t, i]``: text t is true of image i. The diagonal is true.
        skipped: rows that were drawn and could not be used.
    """

    pixels: Tensor
    texts: tuple[str, ...]
    matches: Tensor
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.texts)


class PairSource(Protocol):
    """Anything that gives batches. A batch depends on the generator alone, so that a resumed run sees the same ones."""

    def batch(self, size: int, rng: np.random.Generator) -> Batch:
        """Draw `size` pairs."""


def find_matches(captions: Sequence[str], truths: Sequence[AbstractSet[str]]) -> Tensor:
    """Which captions are true of which pictures.

    Args:
        captions: one a picture, before any wording is put around it.
        truths: for each picture, every caption known to be true of it.

    Returns:
        bool ``(captions, pictures)``; the diagonal is always true.
    """
    found = np.eye(len(captions), dtype=bool)
    asked = defaultdict[str, list[int]](list)
    for place, caption in enumerate(captions):
        asked[caption].append(place)
    for place, known in enumerate(truths):
        for caption in known & asked.keys():
            found[asked[caption], place] = True
    return torch.from_numpy(found)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class RowPairs:
    """Rows fetched when they are needed, such as a Lance table's; equal captions match each other's pictures.

    Attributes:
        fetch: the rows at the given places, int64 in rising order.
        count: number of rows.
        image: the geometry pictures are brought to.
    """

    fetch: Callable[[NDArray[np.int64]], Sequence[Row]]
    count: int
    image: ImageSpec

    def batch(self, size: int, rng: np.random.Generator) -> Batch:
        """`size` different rows, or all where there are fewer; those without a picture or caption are skipped.

        Raises:
            SourceError: fewer than two of the rows drawn can be used.
        """
        rows = self.fetch(np.sort(rng.choice(self.count, size=min(size, self.count), replace=False)))
        pixels: list[NDArray[np.uint8]] = []
        captions: list[str] = []
        reason = "no rows"
        for picture, caption in rows:
            try:
                if picture is None or not caption or not caption.strip():
                    raise RowError("null", "no picture" if picture is None else "no caption")
                pixels.append(read_pixels(picture, self.image))
                captions.append(caption)
            except RowError as error:
                reason = str(error)
        if len(captions) < 2:
            raise SourceError(
                f"{len(captions)} of {len(rows)} rows drawn can be trained on ({reason}); check the columns"
            )
        matches = find_matches(captions, [{caption} for caption in captions])
        pictures = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
        return Batch(pictures, tuple(captions), matches, skipped=len(rows) - len(captions))


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class MixedPairs:
    """Batches drawn from several sources in fixed shares; texts of one source never match pictures of another.

    Attributes:
        sources: where pairs come from.
        shares: one positive number a source; they are normalised.
    """

    sources: tuple[PairSource, ...]
    shares: tuple[float, ...]

    def batch(self, size: int, rng: np.random.Generator) -> Batch:
        """`size` pairs; rounding goes to the first source."""
        counts = [int(size * share / sum(self.shares)) for share in self.shares]
        counts[0] += size - sum(counts)
        parts = [source.batch(count, rng) for source, count in zip(self.sources, counts, strict=True) if count]
        matches = torch.block_diag(*(part.matches for part in parts))  # type: ignore[no-untyped-call]
        return Batch(
            torch.cat([part.pixels.float() for part in parts]),
            tuple(text for part in parts for text in part.texts),
            matches.bool(),
            skipped=sum(part.skipped for part in parts),
        )
