"""How well held-out pairs find each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from lance_align.training.metrics import recall_at
from lance_align.training.pairs import Batch, identity_matches
from lance_align.training.towers import Towers
from lance_align.training.workers import Workers

KS = (1, 5, 10)


@torch.no_grad()
def held_out_recall(towers: Towers, batches: Iterable[Batch], workers: Workers) -> dict[str, float]:
    """Recall among all held-out pairs.

    A text's other pictures (equal captions, or a picture that occurs twice) are left out of its ranking: they are
    neither its own nor wrong.

    Args:
        towers: of the weights to measure; in evaluation mode afterwards.
        batches: this worker's part of the pairs.
        workers: who have the others.

    Returns:
        ``"text_to_image@1"`` to ``"image_to_text@10"``, 0 to 1; empty where there are no pairs.
    """
    towers.model.eval()
    mine: list[tuple[NDArray[np.float32], NDArray[np.float32], tuple[tuple[str, str], ...]]] = []
    for batch in batches:
        if len(batch):
            images, texts = (functional.normalize(side, dim=-1).cpu().numpy() for side in towers.encode(batch))
            mine.append((images, texts, batch.identities))
    found = list(itertools.chain.from_iterable(workers.gather(mine)))
    if not found:
        return {}
    images, texts = (np.concatenate([part[side] for part in found]) for side in (0, 1))
    others = identity_matches([identity for part in found for identity in part[2]]).numpy()
    np.fill_diagonal(others, False)
    scores = texts @ images.T
    scores[others] = -np.inf
    own = np.arange(len(scores))
    recalls = {"text_to_image": recall_at(scores, own, KS), "image_to_text": recall_at(scores.T, own, KS)}
    return {
        f"{way}@{k}": round(value, 5) for way, values in recalls.items() for k, value in zip(KS, values, strict=True)
    }
