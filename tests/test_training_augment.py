"""Augmentation changes pictures, not what they are called."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lance_align.training.augment import DEFAULTS, AugmentOptions, augment

# Nothing but the move that a test is about.
STILL = AugmentOptions(
    min_scale=1, max_scale=1, shift=0, shear=0, warp=0, rotate_deg=0, mirror_share=0, outline_share=0, edges_share=0,
    posterise_share=0, blur_share=0, grey_share=0, erase_share=0, white_share=1,
)  # fmt: skip


def two_halves(n: int) -> torch.Tensor:
    """Red on the left, blue on the right, with a transparent border."""
    rgba = torch.zeros(n, 72, 72, 4, dtype=torch.uint8)
    rgba[:, 8:64, 8:36] = torch.tensor([220, 30, 30, 255], dtype=torch.uint8)
    rgba[:, 8:64, 36:64] = torch.tensor([30, 30, 220, 255], dtype=torch.uint8)
    return rgba


def run(n: int, options: AugmentOptions, *, mirrors: bool = True, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return augment(two_halves(n), torch.full((n,), mirrors), generator, side_px=64, options=options)


def test_pictures_have_the_asked_shape_and_range_and_depend_on_the_generator() -> None:
    first, again, other = run(40, DEFAULTS), run(40, DEFAULTS), run(40, DEFAULTS, seed=1)
    assert first.shape == (40, 3, 64, 64)
    assert first.dtype == torch.float32
    assert first.min() >= 0
    assert first.max() <= 255
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len({picture.numpy().tobytes() for picture in first}) == 40


def test_red_stays_red_and_blue_stays_blue() -> None:
    pictures = run(64, STILL)
    left, right = pictures[:, :, 32, 16], pictures[:, :, 32, 48]
    assert (left.argmax(dim=1) == 0).all()
    assert (right.argmax(dim=1) == 2).all()


def test_only_pictures_that_may_be_mirrored_are() -> None:
    options = dataclasses.replace(STILL, mirror_share=1.0)
    assert (run(8, options)[:, :, 32, 16].argmax(dim=1) == 2).all()
    assert (run(8, options, mirrors=False)[:, :, 32, 16].argmax(dim=1) == 0).all()


def test_backgrounds_are_white_or_of_any_colour() -> None:
    assert torch.allclose(run(8, STILL)[:, :, 0, 0], torch.tensor(255.0))
    corners = run(64, dataclasses.replace(STILL, white_share=0))[:, :, 0, 0]
    assert corners.std(dim=0).min() > 20


@pytest.mark.parametrize(
    "share", ["outline_share", "edges_share", "posterise_share", "blur_share", "grey_share", "erase_share"]
)
def test_each_manner_is_used_where_it_is_asked_for(share: str) -> None:
    plain, changed = run(32, STILL), run(32, dataclasses.replace(STILL, **{share: 1.0}))
    assert ((plain - changed).abs().amax(dim=(1, 2, 3)) > 1).float().mean() > 0.9


def test_an_outline_is_dark_and_outside_the_drawing() -> None:
    plain, outlined = run(16, STILL), run(16, dataclasses.replace(STILL, outline_share=1.0))
    darker = (plain - outlined).amax(dim=1) > 200  # from white to black
    assert darker.any(dim=(1, 2)).all()
    assert not darker[:, 12:52, 12:52].any()
