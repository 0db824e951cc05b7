"""Several workers: the loss, the gradients and the model are those of one process with the whole batch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file

from lance_align.errors import ArgumentError
from lance_align.training import LogLine, MixedPairs, RowPairs, Trainer, TrainOptions, load_trainable
from lance_align.training.workers import ALONE, Workers
from tests.family_models import save_family
from tests.training_pairs import gradients, row_pairs, without_dropout

BATCH, STEPS = 13, 3  # all rows, so that the picture that is there twice is in the parts of both workers
PARTS = (None, 2)


def pairs_of(directory: str) -> tuple[Any, RowPairs]:
    """The model of the test and its pairs: 13 rows, one picture twice, two rows that cannot be used."""
    trainable = without_dropout(load_trainable(directory))
    pairs = row_pairs(trainable.image, doubled=True)

    def fetch(places: Any) -> list[Any]:
        return [(b"damaged", text) if place in (2, 4) else (picture, text)
                for place, (picture, text) in zip(places, pairs.fetch(places), strict=True)]  # fmt: skip

    return trainable, RowPairs(fetch, pairs.count, pairs.image)


def measure(directory: str, out: Path, workers: Workers) -> None:
    """Losses, gradients and weights of one worker, into files named by its rank."""
    for parts in PARTS:
        trainable, pairs = pairs_of(directory)
        options = TrainOptions(
            steps=STEPS, batch_size=BATCH, pairs_per_pass=parts, learning_rate=1e-3, log_every=1, device="cpu", seed=4
        )
        lines: list[LogLine] = []
        trainer = Trainer(trainable, pairs, options, held_out=pairs, report=lines.append, workers=workers)
        rng = np.random.default_rng(0)
        batch = pairs.share(BATCH, rng, rank=workers.rank, count=workers.count)
        loss = torch.tensor(trainer.backward(batch), dtype=torch.float64)
        found = {f"grad.{name}": value for name, value in gradients(trainable).items()}
        done = trainer.run()
        weights = {f"weight.{name}": value.contiguous() for name, value in done.model.state_dict().items()}
        told = {f"line.{place}": torch.tensor([line.loss or 0.0, line.skipped, *(line.recall or {}).values()])
                for place, line in enumerate(lines)}  # fmt: skip
        save_file({"loss": loss, **found, **weights, **told}, out / f"{parts}-{workers.count}-{workers.rank}")


def run_worker(rank: int, directory: str, out: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out / 'meeting'}", rank=rank, world_size=2)
    measure(directory, out, Workers.of_group())
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, torch.Tensor]]:
    root = tmp_path_factory.mktemp("workers")
    directory = str(save_family("clip", root / "clip"))
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        mp.spawn(run_worker, args=(directory, root), nprocs=2)
    finally:
        os.environ.pop("OMP_NUM_THREADS") if before is None else os.environ.update(OMP_NUM_THREADS=before)
    measure(directory, root, ALONE)
    return lambda parts, count, rank: load_file(root / f"{parts}-{count}-{rank}")


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("rank", [0, 1])
def test_two_workers_have_the_loss_and_the_gradients_of_one(
    measured: Callable[..., dict[str, torch.Tensor]], parts: int | None, rank: int
) -> None:
    one, two = measured(None, 1, 0), measured(parts, 2, rank)
    torch.testing.assert_close(two["loss"], one["loss"], rtol=1e-6, atol=0)
    names = [name for name in one if name.startswith("grad.")]
    assert len(names) > 30
    for name in names:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-6, msg=name)
    assert one["grad.logit_scale"].abs() > 1e-3


@pytest.mark.parametrize("parts", PARTS)
def test_two_workers_train_one_model_and_tell_of_it_once(
    measured: Callable[..., dict[str, torch.Tensor]], parts: int | None
) -> None:
    one, first, second = measured(None, 1, 0), measured(parts, 2, 0), measured(parts, 2, 1)
    for name, value in first.items():
        if name.startswith("weight."):
            assert torch.equal(value, second[name]), name
            # The softmax of attention does not depend on a key's bias: its gradient is rounding, made large by Adam.
            if not name.endswith("k_proj.bias"):
                torch.testing.assert_close(value, one[name], rtol=1e-3, atol=2e-5, msg=name)
    lines = [name for name in one if name.startswith("line.")]
    assert len(lines) == 1 + STEPS  # the first is of recall before the first step
    for name in lines:
        torch.testing.assert_close(first[name], one[name], rtol=1e-3, atol=1e-3)
    assert not any(name.startswith("line.") for name in second)
    assert sum(float(one[name][1]) for name in lines) > 0  # rows were skipped, unequally between the workers


def test_shares_in_the_order_of_workers_are_the_batch(tmp_path: Path) -> None:
    _, pairs = pairs_of(str(save_family("clip", tmp_path / "clip")))
    whole = pairs.batch(9, np.random.default_rng(3))
    shares = [pairs.share(9, np.random.default_rng(3), rank=rank, count=4) for rank in range(4)]
    assert sum((share.texts for share in shares), ()) == whole.texts
    assert torch.equal(torch.cat([share.pixels for share in shares]), whole.pixels)
    assert sum(share.skipped for share in shares) == whole.skipped


def test_what_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    two = Workers(rank=0, count=2)
    options = TrainOptions(steps=1, batch_size=4, device="cpu")
    clip, pairs = pairs_of(str(save_family("clip", tmp_path / "clip")))
    with pytest.raises(ArgumentError, match="MixedPairs cannot be shared by 2 workers"):
        Trainer(clip, MixedPairs((pairs,), (1.0,)), options, workers=two)
    align, pairs = pairs_of(str(save_family("align", tmp_path / "align")))
    with pytest.raises(ArgumentError, match="freeze_batch_norm"):
        Trainer(align, pairs, options, workers=two)
