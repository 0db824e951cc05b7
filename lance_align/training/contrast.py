"""The loss of a whole batch and its exact gradients, though a pass of the towers, and a worker, sees a part of it.

The loss needs every pair's features at once but the towers do not: features are computed part by part without a graph,
the loss gives the gradient at the features, and a second pass of each part carries it into the towers (GradCache,
arXiv 2101.06983). Between workers only features travel: each computes the loss of the whole batch and takes the
gradient at its own features, in which they are negatives of everybody's, so that the sum of all workers' gradients is
the gradient of one process with the whole batch.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from lance_align.errors import SourceError
from lance_align.training.losses import align_loss
from lance_align.training.pairs import Batch, identity_matches
from lance_align.training.temperature import Temperature
from lance_align.training.towers import Towers
from lance_align.training.workers import Workers


def contrast(
    towers: Towers,
    batch: Batch,
    *,
    label_smoothing: float,
    seed: int,
    pairs_per_pass: int | None = None,
    workers: Workers,
) -> float:
    """Add the gradients of the whole batch's loss to the parameters' `grad`.

    Args:
        towers: in training mode.
        batch: this worker's pairs.
        label_smoothing: see `align_loss`.
        seed: of dropout; each pass and each worker has masks of its own, the same in both passes of a part.
        pairs_per_pass: most pairs in one pass of the towers; None for all at once, in one pass.
        workers: the others.

    Returns:
        The loss in nats; every worker's is the same.

    Raises:
        SourceError: fewer than two pairs in all.
    """
    counts, matches, problem = _whole(batch, workers)
    if sum(counts) < 2:
        raise SourceError(f"{sum(counts)} of the rows drawn can be trained on ({problem}); check the columns")
    parts = _parts(batch, pairs_per_pass or max(1, len(batch)))
    seeds = [seed + 2**40 * number for number in range(workers.rank, len(parts) * workers.count, workers.count)]
    with torch.set_grad_enabled(len(parts) == 1):
        features = [_encode(towers, *each) for each in zip(parts, seeds, strict=True)]
    images, texts = (torch.cat(side) for side in zip(*features, strict=True))
    all_images = workers.gather_rows(images, counts).requires_grad_()
    all_texts = workers.gather_rows(texts, counts).requires_grad_()
    temperature = Temperature(towers.model)
    loss = align_loss(
        all_images, all_texts, temperature.value(), matches.to(towers.device), label_smoothing=label_smoothing
    )
    loss.backward()  # type: ignore[no-untyped-call]
    if temperature.parameter.grad is not None:
        temperature.parameter.grad /= workers.count  # each worker has the whole of it, and they are added below
    start = sum(counts[: workers.rank])
    places = slice(start, start + counts[workers.rank])
    assert all_images.grad is not None
    assert all_texts.grad is not None
    wanted = all_images.grad[places], all_texts.grad[places]
    if len(parts) == 1:
        _backward((images, texts), wanted)
    else:
        taken = 0
        for part, number in zip(parts, seeds, strict=True):
            end = taken + len(part)
            _backward(_encode(towers, part, number), (wanted[0][taken:end], wanted[1][taken:end]))
            taken = end
    workers.add_gradients(towers.model.parameters())
    return loss.item()


def _whole(batch: Batch, workers: Workers) -> tuple[list[int], Tensor, str]:
    """How many pairs each worker has, what is true of what among all of them, and why a row was skipped."""
    if workers.count == 1:
        return [len(batch)], batch.matches, batch.problem
    told = workers.gather((batch.identities, batch.problem))
    matches = identity_matches(list(itertools.chain.from_iterable(identities for identities, _ in told)))
    problem = next((problem for _, problem in told if problem), "no rows")
    return [len(identities) for identities, _ in told], matches, problem


def _parts(batch: Batch, size: int) -> list[Batch]:
    return [batch.part(start, start + size) for start in range(0, max(1, len(batch)), size)]


def _encode(towers: Towers, part: Batch, seed: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return towers.encode(part)


def _backward(features: tuple[Tensor, Tensor], gradients: tuple[Tensor, Tensor]) -> None:
    """From features into the towers; a side that is frozen as a whole has no graph."""
    pairs = [pair for pair in zip(features, gradients, strict=True) if pair[0].requires_grad]
    if pairs:
        torch.autograd.backward([feature for feature, _ in pairs], [gradient for _, gradient in pairs])
