"""Which frames of a video a model sees, and what stands in for those that cannot be decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")


def sampled_places(total: int, frames: int) -> list[int]:
    """Places of `frames` frames spread over `total`, the first among them: 0, total / frames, 2 total / frames, …

    Whole numbers, rounded down, as transformers' `default_sample_indices_fn` gives them (transformers.video_utils).
    Where there are fewer frames than wanted, which transformers refuses, some come several times.
    """
    return [place * total // frames for place in range(frames)]


def standing_in(samples: Sequence[_T | None]) -> list[_T]:
    """For each missing sample the last one before it, else the first one after it; empty where all are missing."""
    last = next((sample for sample in samples if sample is not None), None)
    found = []
    for sample in samples:
        last = sample if sample is not None else last
        if last is not None:
            found.append(last)
    return found
