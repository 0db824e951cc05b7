"""What the loop trains on: batches of pictures and captions, and where they come from."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lance_align.errors import RowError, SourceError
from lance_align.images import ImageInput, read_pixels
from lance_align.spec import ImageSpec

_DECODERS = min(8, os.cpu_count() or 1)  # threads; beyond some 8 the fetching of rows is what limits
_DIGESTED_ROWS = 64  # at once

Row: TypeAlias = "tuple[ImageInput | None, str | None]"  # a picture and its caption
Identity: TypeAlias = tuple[str, str]  # of a pair: its caption, and a digest of its pixels


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """n image–text pairs.

    Attributes:
        pixels: uint8 ``(n, 3, height, width)`` RGB, or float32 of the same shape with values 0 to 255.
        texts: n captions.
        matches: bool ``(n, n)``; ``matches[t, i]``: text t is true of image i. The diagonal is true.
        skipped: rows that were drawn and could not be used.
        problem: why the last of them could not; empty where all could.
        identities: one a pair, from which `identity_matches` makes `matches`; empty from a source that knows more.
    """

    pixels: Tensor
    texts: tuple[str, ...]
    matches: Tensor
    skipped: int = 0
    problem: str = ""
    identities: tuple[Identity, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    def part(self, start: int, end: int) -> Batch:
        """The pairs from `start` to before `end`, nothing skipped."""
        places = slice(start, end)
        return Batch(
            self.pixels[places], self.texts[places], self.matches[places, places], identities=self.identities[places]
        )


class PairSource(Protocol):
    """Anything that gives batches. A batch depends on the generator alone, so that a resumed run sees the same ones."""

    def batch(self, size: int, rng: np.random.Generator) -> Batch:
        """Draw `size` pairs."""


@runtime_checkable
class SharedSource(PairSource, Protocol):
    """A source that several workers can share."""

    def share(self, size: int, rng: np.random.Generator, *, rank: int, count: int) -> Batch:
        """One worker's part, with identities, of the batch that `batch` draws; it may be empty."""


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


def identity_matches(identities: Sequence[Identity]) -> Tensor:
    """Which captions are true of which pictures, where equal captions and equal pictures are all that is known.

    Args:
        identities: one a pair.

    Returns:
        bool ``(pairs, pairs)``: the text of row t was said of the picture of column i, in this pair or another.
    """
    said = defaultdict[str, set[str]](set)
    for caption, picture in identities:
        said[picture].add(caption)
    return find_matches([caption for caption, _ in identities], [said[picture] for _, picture in identities])


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class RowPairs:
    """Rows fetched when they are needed, such as a Lance table's; see `identity_matches` for what matches what.

    Attributes:
        fetch: the rows at the given places, int64 in rising order.
        count: number of rows.
        image: the geometry pictures are brought to.
        open: a row's picture to what `lance_align.images.read_pixels` takes, in one of several threads; None where it
            is that already. A `RowError` is the row's.
        without: digests of pictures, as identities have them, whose rows are skipped; asked before each batch.
    """

    fetch: Callable[[NDArray[np.int64]], Sequence[Row]]
    count: int
    image: ImageSpec
    open: Callable[[ImageInput], ImageInput] | None = None
    without: Callable[[], AbstractSet[str]] = frozenset

    def batch(self, size: int, rng: np.random.Generator) -> Batch:
        """`size` different rows, or all where there are fewer; those without a picture or caption are skipped.

        Raises:
            SourceError: fewer than two of the rows drawn can be used.
        """
        found = self.share(size, rng, rank=0, count=1)
        if len(found) < 2:
            raise SourceError(
                f"{len(found)} of {len(found) + found.skipped} rows drawn can be trained on "
                f"({found.problem or 'no rows'}); check the columns"
            )
        return found

    def share(self, size: int, rng: np.random.Generator, *, rank: int, count: int) -> Batch:
        """See `SharedSource.share`; the parts in the order of ranks are the batch."""
        places = np.sort(rng.choice(self.count, size=min(size, self.count), replace=False))
        return self._read(np.array_split(places, count)[rank])

    def batches(self, size: int, *, rank: int = 0, count: int = 1) -> Iterator[Batch]:
        """All rows in order, `size` at a time; of several workers each gets every count-th batch."""
        for start in range(rank * size, self.count, count * size):
            yield self._read(np.arange(start, min(start + size, self.count)))

    def pictures(self) -> frozenset[str]:
        """The digests of all rows' pictures; reads every row."""
        return frozenset(picture for batch in self.batches(_DIGESTED_ROWS) for _, picture in batch.identities)

    def _read(self, places: NDArray[np.int64]) -> Batch:
        rows = self.fetch(places) if len(places) else []
        without = self.without()
        # Decoders drop Python's lock; each changes the process's filters of warnings, which are put back at the end.
        with warnings.catch_warnings(), ThreadPoolExecutor(_DECODERS) as pool:
            found = list(pool.map(lambda row: self._pair(row, without), rows))
        pairs = [pair for pair in found if not isinstance(pair, RowError)]
        problems = [pair for pair in found if isinstance(pair, RowError)]
        identities = tuple(identity for _, identity in pairs)
        stacked = np.stack([pixels for pixels, _ in pairs]) if pairs else np.empty((0, *self.image.shape), np.uint8)
        return Batch(
            torch.from_numpy(stacked).permute(0, 3, 1, 2),
            tuple(caption for caption, _ in identities),
            identity_matches(identities),
            skipped=len(problems),
            problem=str(problems[-1]) if problems else "",
            identities=identities,
        )

    def _pair(self, row: Row, without: AbstractSet[str]) -> tuple[NDArray[np.uint8], Identity] | RowError:
        picture, caption = row
        try:
            if picture is None or caption is None:
                raise RowError("null", "no picture" if picture is None else "no caption")
            if not isinstance(caption, str):  # a column of lists, say, of whoever writes `fetch`
                raise RowError("type", f"{type(caption).__name__} cannot be a caption")
            if not caption.strip():
                raise RowError("empty", "a blank caption")
            pixels = read_pixels(picture if self.open is None else self.open(picture), self.image)
        except RowError as error:
            return error
        # Of the pixels: bytes differ between files of one picture, and a row need not hold bytes.
        digest = hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest()
        if digest in without:
            return RowError("null", "its picture is held out")
        return pixels, (caption, digest)


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
