"""A source of image–text pairs in, a checkpoint directory out.

    loop        `Trainer`: the steps, resumable
    options     `TrainOptions`, and the `LogLine` a run reports
    trainable   `Trainable`: a checkpoint loaded to be trained, and saved
    checkpoint  the state of a run on disk
    losses      ALIGN's loss, with several positives
    optim       learning rate, weight average, BatchNorm statistics
    pairs       `Batch`, and `RowPairs` over rows that are fetched when needed
    metrics     recall and precision among the k nearest

align-tiny's own recipe:

    recipe      its configuration, tokenizer and first weights
    sources     pairs from drawn scenes and from emoji artwork
    artwork     the emoji packages on disk
    augment     one emoji picture, many pictures

Nothing here knows Ray or a table: `pipelines/train.py` brings the rows.
"""

from __future__ import annotations

from lance_align.training.loop import Trainer
from lance_align.training.options import LogLine, TrainOptions
from lance_align.training.pairs import Batch, MixedPairs, PairSource, RowPairs
from lance_align.training.trainable import Trainable, load_trainable

__all__ = [
    "Batch",
    "LogLine",
    "MixedPairs",
    "PairSource",
    "RowPairs",
    "TrainOptions",
    "Trainable",
    "Trainer",
    "load_trainable",
]
