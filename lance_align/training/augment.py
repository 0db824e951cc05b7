"""One emoji picture, many pictures: laid on a background, moved, warped, re-coloured, and drawn in another manner.

Everything is vectorised over a batch and depends on the generator alone. No hue is shifted: colours are part of names.
Strengths were chosen by eye, before OpenMoji was looked at.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AugmentOptions:
    """How strongly, and for what share of pictures. Lengths are fractions of the picture's half side.

    Attributes:
        min_scale, max_scale: size of the artwork, against filling the picture.
        shift, shear, warp, rotate_deg: limits of the uniform (warp, rotation: normal) distributions.
        mirror_share ... white_share: share of pictures each is done to; `white_share` of backgrounds are white.
    """

    min_scale: float = 0.6
    max_scale: float = 1.1
    shift: float = 0.15
    shear: float = 0.1
    warp: float = 0.04
    rotate_deg: float = 7.0
    mirror_share: float = 0.25
    outline_share: float = 0.3
    edges_share: float = 0.3
    posterise_share: float = 0.2
    blur_share: float = 0.15
    grey_share: float = 0.05
    erase_share: float = 0.15
    white_share: float = 0.65


DEFAULTS = AugmentOptions()


def augment(
    rgba: Tensor, mirrors: Tensor, generator: Generator, *, side_px: int, options: AugmentOptions = DEFAULTS
) -> Tensor:
    """Augment artwork.

    Args:
        rgba: uint8 ``(n, height, width, 4)``, alpha not multiplied in.
        mirrors: bool ``(n,)``, which pictures may be mirrored.
        generator: the only source of chance.
        side_px: side of the pictures to make.
        options: strengths.

    Returns:
        float32 ``(n, 3, side_px, side_px)`` RGB, 0 to 255.
    """
    o = options
    picture = rgba.permute(0, 3, 1, 2).float() / 255
    alpha = picture[:, 3:]
    picture = torch.cat([picture[:, :3] * alpha, alpha], dim=1)  # multiplied in, so that edges interpolate cleanly
    picture = functional.grid_sample(picture, _grid(len(rgba), side_px, mirrors, generator, o), align_corners=False)
    colour, alpha = picture[:, :3], picture[:, 3:]
    colour = _jitter(colour, alpha, generator)
    colour = _some(colour, o.grey_share, generator, lambda part, _: _luma(part).expand_as(part))
    colour = _some(colour, o.posterise_share, generator, lambda part, _: _posterise(part, generator))
    colour = _some(colour, o.edges_share, generator, lambda part, at: part * (1 - _edges(part, alpha[at], generator)))
    alpha = _some(alpha, o.outline_share, generator, lambda part, _: _grown(part, generator))  # black where none was
    image = colour + (1 - alpha) * _background(len(rgba), side_px, generator, o)
    image = _some(image, o.erase_share, generator, lambda part, _: _erase(part, generator))
    image = _some(image, o.blur_share, generator, lambda part, _: _blur(part))
    return image.clamp_(0, 1) * 255


def _uniform(generator: Generator, low: float, high: float, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator) * (high - low) + low


def _some(values: Tensor, share: float, generator: Generator, change: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Change a random share of rows; `change` takes those rows and their places."""
    chosen = torch.nonzero(torch.rand(len(values), generator=generator) < share)[:, 0]
    return values.index_copy(0, chosen, change(values[chosen], chosen)) if len(chosen) else values


def _grid(n: int, side_px: int, mirrors: Tensor, generator: Generator, o: AugmentOptions) -> Tensor:
    """Where each new pixel is looked up: ``(n, side, side, 2)`` in -1 to 1; a random affine map and a smooth warp."""
    angle = torch.randn(n, generator=generator) * math.radians(o.rotate_deg)
    zoom = 1 / torch.exp(_uniform(generator, math.log(o.min_scale), math.log(o.max_scale), n))
    stretch = torch.exp(_uniform(generator, -0.1, 0.1, n))
    shear = _uniform(generator, -o.shear, o.shear, n)
    flip = 1 - 2 * (mirrors & (torch.rand(n, generator=generator) < o.mirror_share)).float()
    shift = _uniform(generator, -o.shift, o.shift, n, 2) * zoom[:, None]
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    theta = torch.stack(
        [
            torch.stack([flip * cos * stretch, flip * (shear * cos - sin), shift[:, 0]], dim=1),
            torch.stack([sin * stretch, shear * sin + cos, shift[:, 1]], dim=1),
        ],
        dim=1,
    )
    warp = torch.randn(n, 2, 4, 4, generator=generator) * o.warp
    warp = functional.interpolate(warp, size=(side_px, side_px), mode="bilinear", align_corners=True)
    return functional.affine_grid(theta, [n, 4, side_px, side_px], align_corners=False) + warp.permute(0, 2, 3, 1)


def _luma(colour: Tensor) -> Tensor:
    return (colour * torch.tensor(_LUMA)[:, None, None]).sum(dim=1, keepdim=True)


def _jitter(colour: Tensor, alpha: Tensor, generator: Generator) -> Tensor:
    """Saturation, contrast and brightness; `colour` has alpha multiplied in and keeps it."""
    n = len(colour)
    saturation = _uniform(generator, 0.6, 1.5, n, 1, 1, 1)
    contrast = _uniform(generator, 0.75, 1.3, n, 1, 1, 1)
    brightness = _uniform(generator, -0.12, 0.12, n, 1, 1, 1)
    grey = _luma(colour)
    colour = grey + (colour - grey) * saturation
    colour = (colour - 0.5 * alpha) * contrast + (0.5 + brightness) * alpha
    return torch.minimum(colour.clamp_(min=0), alpha)


def _posterise(colour: Tensor, generator: Generator) -> Tensor:
    levels = _uniform(generator, 2.5, 6, len(colour), 1, 1, 1)
    return torch.round(colour * levels) / levels


def _edges(colour: Tensor, alpha: Tensor, generator: Generator) -> Tensor:
    """How dark to ink each pixel, 0 to 1: thin lines where the colour changes, as an outlined drawing has them."""
    high = functional.max_pool2d(torch.cat([colour, alpha], dim=1), 3, 1, 1)
    low = -functional.max_pool2d(-torch.cat([colour, alpha], dim=1), 3, 1, 1)
    contrast = (high - low).amax(dim=1, keepdim=True)
    threshold = _uniform(generator, 0.2, 0.5, len(colour), 1, 1, 1)
    return ((contrast - threshold) * 6).clamp(0, 1) * _uniform(generator, 0.5, 1.0, len(colour), 1, 1, 1)


def _grown(alpha: Tensor, generator: Generator) -> Tensor:
    """Alpha grown by one or two pixels; the colour below stays 0, so the ring is black."""
    once = functional.max_pool2d(alpha, 3, 1, 1)
    twice = functional.max_pool2d(once, 3, 1, 1)
    return torch.where(torch.rand(len(alpha), 1, 1, 1, generator=generator) < 0.5, once, twice)


def _blur(image: Tensor) -> Tensor:
    return functional.avg_pool2d(image, 3, 1, 1, count_include_pad=False)


def _background(n: int, side_px: int, generator: Generator, o: AugmentOptions) -> Tensor:
    """``(n, 3, side, side)``: white, one colour, or two colours running into each other."""
    corners = torch.rand(n, 3, 2, 2, generator=generator)
    plain = torch.rand(n, 1, 1, 1, generator=generator) < 0.5
    corners = torch.where(plain, corners[:, :, :1, :1], corners)
    white = torch.rand(n, 1, 1, 1, generator=generator) < o.white_share
    corners = torch.where(white, torch.ones(()), corners)
    return functional.interpolate(corners, size=(side_px, side_px), mode="bilinear", align_corners=True)


def _erase(image: Tensor, generator: Generator) -> Tensor:
    """A rectangle of one colour over a part of the picture."""
    n, side = len(image), image.shape[-1]
    centre = _uniform(generator, 0, side, n, 2)
    half = _uniform(generator, 0.06 * side, 0.18 * side, n, 2)
    at = torch.arange(side)
    rows = (at - centre[:, :1]).abs() < half[:, :1]
    columns = (at - centre[:, 1:]).abs() < half[:, 1:]
    inside = (rows[:, :, None] & columns[:, None, :])[:, None]
    return torch.where(inside, torch.rand(n, 3, 1, 1, generator=generator), image)
