"""A source of image–text pairs in, a checkpoint directory out.

    loop         `Trainer`: the steps, resumable
    options      `TrainOptions`
    log          `LogLine`, what a run says of itself
    curve        its loss and recall, drawn
    trainable    `Trainable`: a checkpoint of ALIGN, CLIP or VisionTextDualEncoder loaded to be trained, and saved
    pairing      two single towers to a VisionTextDualEncoder that is to be trained
    towers       the two towers: what is frozen, what learns, a batch to features
    contrast     the loss of a whole batch, computed in parts and by several workers, with its exact gradients
    workers      the processes of a run
    checkpoint   the state of a run on disk
    pinned       what a run was begun with, and must go on with
    ahead        the next batch drawn while this one is learnt from
    losses       the contrastive loss, with several positives
    temperature  what cosines are divided by, in each family
    optim        learning rate, weight average, BatchNorm statistics
    pairs        `Batch`, and `RowPairs` over rows that are fetched when needed
    held_out     recall on pairs that are not trained on
    metrics      recall and precision among the k nearest

align-tiny's own recipe:

    recipe      its configuration, tokenizer and first weights
    sources     pairs from drawn scenes and from emoji artwork
    artwork     the emoji packages on disk
    augment     one emoji picture, many pictures

Nothing here knows Ray or a table: `lance_align.jobs.training_run` brings both.
"""

from __future__ import annotations

from lance_align.training.log import LogLine
from lance_align.training.loop import Trainer
from lance_align.training.options import TrainOptions
from lance_align.training.pairing import pair_towers
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
    "pair_towers",
]
