"""Tokens drawn at random, yet the same for a row whatever batch it is in."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor


class RowNoise(LogitsProcessor):
    """Gumbel noise on the logits: the largest is then a draw from the softmax (arXiv 1611.01144, section 2).

    Each row has a generator of its own, on the CPU, so that a picture's text does not depend on its neighbours.

    Args:
        seeds: one a row.
        temperature: logits are divided by it; above 0.
    """

    def __init__(self, seeds: Sequence[int], *, temperature: float) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._temperature = temperature

    def __call__(self, input_ids: Any, scores: torch.Tensor) -> torch.Tensor:
        """``(n, vocabulary)`` logits to the same with noise, in float32."""
        del input_ids
        size = scores.shape[1]
        drawn = torch.stack([torch.empty(size).exponential_(generator=each) for each in self._generators])
        return scores.float() / self._temperature - drawn.log().to(scores.device)


def row_seed(seed: int, prompt: str, picture: bytes) -> int:
    """A row's own seed, 63 bits."""
    digest = hashlib.blake2b(f"{seed}\0{prompt}\0".encode() + picture, digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
