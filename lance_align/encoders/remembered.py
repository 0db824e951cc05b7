"""Vectors of query texts, remembered by the whole process: search boxes are asked the same things again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from lance_align.encoders.base import Embeddings, Encoder, Vectors

MAX_TEXTS = 4096  # of 640 dimensions: 10 MB of vectors
MAX_CHARACTERS = 1000  # a longer text is not kept; ALIGN reads 64 tokens, some 300 characters of English


class TextVectors:
    """The vectors of the texts that were asked for last, by model; safe to use from several threads.

    Args:
        max_texts: how many are kept; the one that was not asked for the longest goes first.
    """

    def __init__(self, max_texts: int = MAX_TEXTS) -> None:
        self._max_texts = max_texts
        self._lock = threading.Lock()
        self._vectors: OrderedDict[tuple[str, str], Vectors] = OrderedDict()

    def __len__(self) -> int:
        return len(self._vectors)

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._vectors.clear()

    def encode(self, encoder: Encoder, texts: Sequence[str]) -> Embeddings:
        """As `Encoder.encode_texts`, but only for texts that are not remembered; these are embedded together.

        Models are told apart by their fingerprints. Texts without a vector are not remembered. Two threads that ask the
        same text for the first time both embed it.

        Returns:
            Vectors of its own ``(n, dim) float32``, which may be written to.
        """
        fingerprint = encoder.spec.fingerprint
        vectors = np.zeros((len(texts), encoder.spec.dim), dtype=np.float32)
        reasons: list[str | None] = [None] * len(texts)
        missing = []
        with self._lock:
            for place, text in enumerate(texts):
                known = self._vectors.get((fingerprint, text))
                if known is None:
                    missing.append(place)
                else:
                    self._vectors.move_to_end((fingerprint, text))
                    vectors[place] = known
        if missing:
            embedded = encoder.encode_texts([texts[place] for place in missing])
            vectors[missing] = embedded.vectors
            for place, reason in zip(missing, embedded.reasons, strict=True):
                reasons[place] = reason
            self._keep({(fingerprint, texts[p]): vectors[p].copy() for p in missing if reasons[p] is None})
        return Embeddings(vectors, tuple(reasons))

    def _keep(self, found: dict[tuple[str, str], Vectors]) -> None:
        with self._lock:
            for key, vector in found.items():
                if len(key[1]) <= MAX_CHARACTERS:
                    self._vectors[key] = vector
                    self._vectors.move_to_end(key)
            while len(self._vectors) > self._max_texts:
                self._vectors.popitem(last=False)


remembered = TextVectors()
