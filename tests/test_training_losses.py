"""ALIGN's loss, against transformers' own and with several true captions."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from transformers.models.align.modeling_align import align_loss as reference_loss

from lance_align.training.losses import align_loss


def random_vectors(n: int, dim: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, dim, generator=generator) * 3, torch.randn(n, dim, generator=generator)


@pytest.mark.parametrize("n", [2, 7, 33])
def test_with_one_caption_a_picture_it_is_the_loss_of_transformers(n: int) -> None:
    images, texts = random_vectors(n)
    temperature = torch.tensor(0.07)
    cosines = functional.normalize(texts, dim=-1) @ functional.normalize(images, dim=-1).T
    got = align_loss(images, texts, temperature, torch.eye(n, dtype=torch.bool))
    torch.testing.assert_close(got, reference_loss(cosines / temperature))


def test_a_second_true_caption_is_no_negative() -> None:
    alike, apart = torch.eye(4)[[0, 0, 1, 2]], torch.eye(4)  # pictures 0 and 1 and their captions in one place, or not
    diagonal = torch.eye(4, dtype=torch.bool)
    both = diagonal.clone()
    both[0, 1] = both[1, 0] = True

    def loss(vectors: torch.Tensor, matches: torch.Tensor) -> float:
        return align_loss(vectors, vectors, torch.tensor(0.1), matches).item()

    assert loss(apart, diagonal) < loss(alike, diagonal)
    assert loss(alike, both) < loss(apart, both)


def test_every_input_gets_a_gradient_and_the_direction_does_not_depend_on_norms() -> None:
    images, texts = random_vectors(5)
    temperature = torch.tensor(0.1, requires_grad=True)
    images.requires_grad_()
    texts.requires_grad_()
    loss = align_loss(images, texts, temperature, torch.eye(5, dtype=torch.bool))
    loss.backward()
    for value in (images, texts, temperature):
        assert value.grad is not None
        assert value.grad.abs().sum() > 0
    scaled = align_loss(images * 100, texts / 7, temperature, torch.eye(5, dtype=torch.bool))
    torch.testing.assert_close(scaled, loss)


def test_bfloat16_vectors_are_compared_in_float32() -> None:
    images, texts = random_vectors(6)
    got = align_loss(images.bfloat16(), texts.bfloat16(), torch.tensor(0.07), torch.eye(6, dtype=torch.bool))
    assert got.dtype == torch.float32
