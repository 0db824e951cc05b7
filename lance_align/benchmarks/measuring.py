"""Contenders in turns, so that a noisy machine is noisy for all of them; medians, ranges and ratios to ours."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lance_align.encoders.engines.base import EngineName, is_openvino_installed

OURS = "ours"


@dataclasses.dataclass(frozen=True, slots=True)
class Contender:
    """One way to do the work.

    Attributes:
        name: the ratios are to the first one that begins with ``ours``.
        run: does the work once and returns the vectors, ``(n, dim)``, not necessarily normalised; or n of what `embed`
            of `side_by_side` takes.
    """

    name: str
    run: Callable[[], NDArray[Any]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What was measured of one contender.

    Attributes:
        part: of the benchmark.
        name: of the contender.
        unit: of the rates.
        median, low, high: rates over the rounds.
        ratio: the median over ours: 0.25 is a quarter of our rate; None where there is nothing to compare.
        min_cosine, mean_cosine: of its vectors to those of the reference, the last contender; None where there are
            none.
        notes: anything else, by name.
    """

    part: str
    name: str
    unit: str
    median: float
    low: float
    high: float
    ratio: float | None = None
    min_cosine: float | None = None
    mean_cosine: float | None = None
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)


def our_engines() -> list[EngineName]:
    """Those that can run the image tower on this machine's CPU, the faster one first."""
    return ["openvino", "torch"] if is_openvino_installed() else ["torch"]


def side_by_side(
    part: str,
    contenders: Sequence[Contender],
    *,
    rounds: int,
    unit: str,
    embed: Callable[[NDArray[Any]], NDArray[np.float32]] = lambda vectors: vectors,
) -> list[Line]:
    """Run all contenders once unmeasured, then `rounds` times in turns.

    Args:
        part: for the lines.
        contenders: ours first; the last is the reference that vectors are compared with.
        rounds: at least 1.
        unit: what a row of vectors stands for, a second.
        embed: makes vectors of what a contender returns, outside the time that is measured.
    """
    vectors = {each.name: unit_vectors(embed(each.run())) for each in contenders}
    rates: dict[str, list[float]] = {each.name: [] for each in contenders}
    for _ in range(rounds):
        for each in contenders:
            started = time.perf_counter()
            rows = len(each.run())
            rates[each.name].append(rows / (time.perf_counter() - started))
    reference = vectors[contenders[-1].name]
    ours = statistics.median(rates[next(each.name for each in contenders if each.name.startswith(OURS))])
    lines = []
    for each in contenders:
        cosines = (vectors[each.name] * reference).sum(axis=1)
        median = statistics.median(rates[each.name])
        lines.append(
            Line(
                part=part,
                name=each.name,
                unit=unit,
                median=median,
                low=min(rates[each.name]),
                high=max(rates[each.name]),
                ratio=median / ours,
                min_cosine=float(cosines.min()),
                mean_cosine=float(cosines.mean()),
            )
        )
    return lines


def unit_vectors(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Rows of norm 1, in double precision."""
    wide = vectors.astype(np.float64)
    unit: NDArray[np.float64] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit
