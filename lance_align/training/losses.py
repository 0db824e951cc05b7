"""ALIGN's loss and CLIP's: symmetric cross entropy over all pairs of a batch, with a learnable temperature."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def align_loss(
    image_vectors: Tensor, text_vectors: Tensor, temperature: Tensor, matches: Tensor, *, label_smoothing: float = 0.1
) -> Tensor:
    """The mean of the image→text and text→image cross entropies (arXiv 2102.05918, section 4).

    The paper has one positive a row, the diagonal. Here captions may be true of several pictures of the batch, so the
    target is spread evenly over every match; with a diagonal `matches` this is the paper's loss exactly, and without
    label smoothing it is CLIP's (arXiv 2103.00020), whose temperature is ``exp(-logit_scale)``.

    Args:
        image_vectors: ``(n, dim)``, any norm.
        text_vectors: ``(n, dim)``, any norm.
        temperature: scalar divisor of the cosines.
        matches: bool ``(n, n)``; ``matches[t, i]``: text t is true of image i. The diagonal must be true.
        label_smoothing: share of the target spread over all n, 0.1 in the paper.

    Returns:
        A scalar in nats.
    """
    images = functional.normalize(image_vectors.float(), dim=-1)
    texts = functional.normalize(text_vectors.float(), dim=-1)
    logits = texts @ images.T / temperature  # (texts, images)
    return (_cross_entropy(logits, matches, label_smoothing) + _cross_entropy(logits.T, matches.T, label_smoothing)) / 2


def _cross_entropy(logits: Tensor, matches: Tensor, label_smoothing: float) -> Tensor:
    target = matches.to(logits.dtype)
    target = target / target.sum(dim=1, keepdim=True)
    target = target * (1 - label_smoothing) + label_smoothing / logits.shape[1]
    return -(target * torch.log_softmax(logits, dim=1)).sum(dim=1).mean()
