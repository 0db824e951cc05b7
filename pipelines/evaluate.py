#!/usr/bin/env python
"""Measure a model on pictures that its recipe never saw.

Drawn scenes and OpenMoji, both found by words:

    python pipelines/evaluate.py
    python pipelines/evaluate.py --model DIRECTORY --json figures.json

Scenes: 5,000 pictures from a seed of their own. A query is "a red car"; a picture is right if it shows a red car, alone
or beside something else. Unseen pairs of object and colour were in no training picture; they are looked for among
scenes of all pairs, where seen ones are tempting, and among scenes of unseen pairs alone. OpenMoji: about 1,600 emoji
that are no flags; a query is an emoji's CLDR name, one picture is right.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from cyclopts import Parameter

from lance_align.cli.command import application, run
from lance_align.corpora import openmoji
from lance_align.corpora.grammar import an
from lance_align.corpora.scenes import Scene, Split, draw_scene, pairs, scenes
from lance_align.encoders import Encoder, load_encoder
from lance_align.encoders.base import Vectors
from lance_align.training.metrics import precision_at, recall_at

app = application("evaluate.py", __doc__)
_SEED = 20_260_401  # of the scenes to find; the recipe's seed is 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured share, beside the share that a random order gives."""

    name: str
    value: float
    chance: float
    queries: int
    items: int


@app.default
def evaluate(
    *,
    model: str = "align-tiny",
    scene_count: int = 5000,
    emoji_count: int | None = None,
    json_path: Annotated[Path | None, Parameter(name="--json")] = None,
    device: str = "auto",
) -> None:
    """Print precision and recall as a table; write them as JSON too if asked.

    Args:
        model: a known name, a hub id or a checkpoint directory.
        scene_count: pictures to search, at least 10; 0 leaves the scenes out.
        emoji_count: pictures to search; None takes all, 0 leaves OpenMoji out.
        json_path: a file for the figures.
        device: "auto", "cpu" or "cuda".
    """
    encoder = load_encoder(model, device=device)
    figures: list[Figure] = []
    if scene_count:
        figures += scene_figures(encoder, scene_count)
    if emoji_count != 0:
        figures += emoji_figures(encoder, emoji_count)
    print(f"{encoder.spec.name}  {encoder.spec.fingerprint[:12]}")
    for figure in figures:
        queries = f"{figure.queries} queries, {figure.items} pictures"
        print(f"{figure.name:<45}{figure.value:>6.3f}   by chance {figure.chance:.4f}   {queries}")
    if json_path is not None:
        found = {"model": dataclasses.asdict(encoder.spec), "figures": [dataclasses.asdict(item) for item in figures]}
        json_path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def scene_figures(encoder: Encoder, count: int) -> list[Figure]:
    """Precision@10 for pairs of object and colour, among scenes of all pairs and of those never seen alone."""
    everything = _gallery(encoder, count, "all")
    unseen = _gallery(encoder, count, "held_out")
    return [
        _precision(encoder, "scenes, unseen pairs among all: precision@10", pairs("held_out"), *everything),
        _precision(encoder, "scenes, unseen pairs alone: precision@10", pairs("held_out"), *unseen),
        _precision(encoder, "scenes, seen pairs among all: precision@10", pairs("train"), *everything),
    ]


def _gallery(encoder: Encoder, count: int, split: Split) -> tuple[list[Scene], Vectors]:
    corpus = list(scenes(seed=_SEED, count=count, split=split))
    return corpus, encoder.encode_images([draw_scene(scene, size_px=128) for scene in corpus]).vectors


def _precision(
    encoder: Encoder, name: str, asked: Sequence[tuple[str, str]], corpus: Sequence[Scene], pictures: Vectors
) -> Figure:
    right = np.array([[scene.shows(*pair) for scene in corpus] for pair in asked])
    scores = _scores(encoder, [an(f"{colour} {thing}") for thing, colour in asked], pictures)
    value, chance = precision_at(scores, right, 10), float(right.mean())
    return Figure(name=name, value=value, chance=chance, queries=len(asked), items=len(corpus))


def emoji_figures(encoder: Encoder, count: int | None) -> list[Figure]:
    """Recall@1, 5 and 10 of OpenMoji's pictures by their names."""
    emojis = [item for item in openmoji.catalogue() if not item.is_flag][:count]
    pictures = encoder.encode_images([openmoji.draw(item) for item in emojis]).vectors
    scores = _scores(encoder, [item.name for item in emojis], pictures)
    ks = (1, 5, 10)
    shares = recall_at(scores, np.arange(len(emojis)), ks)
    n = len(emojis)
    return [
        Figure(name=f"OpenMoji by name: recall@{k}", value=share, chance=k / n, queries=n, items=n)
        for k, share in zip(ks, shares, strict=True)
    ]


def _scores(encoder: Encoder, queries: Sequence[str], pictures: Vectors) -> Vectors:
    cosines: Vectors = encoder.encode_texts(queries).vectors @ pictures.T
    return cosines


if __name__ == "__main__":
    run(app)
