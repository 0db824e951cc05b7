"""Small pairs to train on, and models that can be compared."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from numpy.typing import NDArray

from lance_align.corpora.scenes import draw_scene, scene_at
from lance_align.spec import ImageSpec
from lance_align.training import RowPairs, Trainable

_WORDS = ("a red car", "two children", "an old house", "the bright sky", "a small dog", "a blue table", "the river")
_PLACES = ("at night", "under a tree")


def captions(count: int) -> list[str]:
    """`count` different captions of words that the small tokenizers have, for at most 14."""
    return [f"{_WORDS[place % 7]} {_PLACES[place // 7]}" for place in range(count)]


def row_pairs(image: ImageSpec, *, count: int = 12, doubled: bool = False) -> RowPairs:
    """Drawn scenes with captions; `doubled` shows the first picture again, with the sixth's caption."""
    rows: list[Any] = [(draw_scene(scene_at(7, place), size_px=48), text) for place, text in enumerate(captions(count))]
    if doubled:
        # A copy of a pair would change nothing: spread over equal columns, or all on one, a target gives one loss.
        rows.append((rows[0][0], rows[5][1]))

    def fetch(places: NDArray[Any]) -> list[Any]:
        return [rows[place] for place in places]

    return RowPairs(fetch, len(rows), image)


def without_dropout(trainable: Trainable) -> Trainable:
    """The same, with every chance of dropping at zero."""
    for module in trainable.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout_prob"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return dataclasses.replace(trainable)


def gradients(trainable: Trainable) -> dict[str, torch.Tensor]:
    """Of every parameter that has one."""
    return {
        name: parameter.grad.clone(memory_format=torch.contiguous_format)
        for name, parameter in trainable.model.named_parameters()
        if parameter.grad is not None
    }
