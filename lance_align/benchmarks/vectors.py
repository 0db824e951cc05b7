"""Vectors to search in: as many as wanted, spread as those of a real model are, texts apart from pictures."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from lance_align.corpora import openmoji
from lance_align.corpora.scenes import draw_scene, scenes
from lance_align.encoders import load_encoder
from lance_align.encoders.base import Vectors
from lance_align.images import to_pixels

SCENES, EMOJI = 4000, 2000  # pictures at most; OpenMoji has fewer
SIZE_PX = 96
NEIGHBOURS = 16
NOISE = 0.35  # length of what is added to a vector of norm 1 before it is normalised again
BATCH_ROWS = 20_000
SEED = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Space:
    """Vectors of pictures and texts by align-tiny, in more dimensions than it has.

    Attributes:
        pictures: ``(n, dim) float32`` of norm 1: drawn scenes and OpenMoji.
        texts: ``(m, dim) float32``: captions of other scenes, and names of emoji.
        neighbours: ``(n, 16) int``: for each picture those that are nearest to it.
    """

    pictures: Vectors
    texts: Vectors
    neighbours: NDArray[np.int64]


def space(dim: int, *, cache: Path) -> Space:
    """Embed pictures and texts, once; a fixed rotation of random directions leads into `dim` dimensions.

    The rotation keeps all cosines, and with them the gap between the vectors of texts and of pictures.

    Args:
        dim: at least 256.
        cache: a directory for the vectors of align-tiny.
    """
    file = cache / f"align-tiny-{SCENES}-{EMOJI}.npz"
    if not file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(file, pictures=_pictures(), texts=_texts())
    with np.load(file) as known:
        pictures, texts = known["pictures"], known["texts"]
    cosines = pictures @ pictures.T
    np.fill_diagonal(cosines, -1)
    draw = np.random.default_rng(SEED)
    rotation = np.linalg.qr(draw.standard_normal((dim, pictures.shape[1])))[0].T.astype(np.float32)
    texts = draw.permutation(texts)
    neighbours = np.argpartition(-cosines, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    return Space(pictures @ rotation, texts @ rotation, neighbours)


def spread(known: Space, rows: int) -> Iterator[pa.FixedSizeListArray[Any]]:
    """`rows` vectors between the known pictures, in batches: each a mixture of two neighbours, and some noise."""
    draw = np.random.default_rng(SEED)
    dim = known.pictures.shape[1]
    for start in range(0, rows, BATCH_ROWS):
        size = min(BATCH_ROWS, rows - start)
        one = draw.integers(0, len(known.pictures), size)
        other = known.neighbours[one, draw.integers(0, NEIGHBOURS, size)]
        share = draw.random((size, 1), dtype=np.float32)
        vectors = (1 - share) * known.pictures[one] + share * known.pictures[other]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors += draw.standard_normal((size, dim), dtype=np.float32) * np.float32(NOISE / dim**0.5)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        yield pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)


def _pictures() -> Vectors:
    encoder = load_encoder("align-tiny", engine="torch")
    drawn = [Image.fromarray(draw_scene(scene, size_px=SIZE_PX)) for scene in scenes(seed=1, count=SCENES)]
    drawn += [openmoji.draw(emoji, size_px=SIZE_PX) for emoji in openmoji.catalogue()[:EMOJI]]
    return encoder.encode_pixels(np.stack([to_pixels(picture, encoder.spec.image) for picture in drawn]))


def _texts() -> Vectors:
    draw = random.Random(SEED)
    said = [draw.choice(scene.captions) for scene in scenes(seed=2, count=SCENES)]
    said += [emoji.name for emoji in openmoji.catalogue()[:EMOJI]]
    return load_encoder("align-tiny").encode_texts(list(dict.fromkeys(said))).vectors
