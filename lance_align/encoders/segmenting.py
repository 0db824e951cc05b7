"""Which part of a picture shows what, without training: GroupViT's groups of patches against labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lance_align.encoders.base import as_list
from lance_align.encoders.cache import load_encoder
from lance_align.encoders.pairs import load_pair_model
from lance_align.encoders.zero_shot import DEFAULT_TEMPLATE, check_labels, label_vectors
from lance_align.errors import RowError
from lance_align.images import ImageInput, read_pixels

NOTHING = -1  # in a mask: there is no picture


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """Masks of n pictures.

    Attributes:
        labels: what was looked for.
        masks: ``(n, height, width) int16`` of the model's crop of each picture: the number of the label that a pixel
            shows best; -1 throughout where there is no picture.
        reasons: one entry a picture: None, or why it has no mask, as ``"kind: detail"``.

    >>> found = lance_align.segment([picture, None], ["a heart", "paper"], model="nvidia/groupvit-gcc-yfcc")
    >>> found.areas.shape
    (2, 2)
    >>> [reason is None for reason in found.reasons]
    [True, False]
    """

    labels: tuple[str, ...]
    masks: NDArray[np.int16]
    reasons: tuple[str | None, ...]

    @property
    def areas(self) -> NDArray[np.float32]:
        """``(n, labels) float32``: the share of a picture that each label covers; NaN where there is no picture."""
        shares = np.stack([(self.masks == label).mean((1, 2)) for label in range(len(self.labels))], axis=1)
        shares[[reason is not None for reason in self.reasons]] = np.nan
        return shares.astype(np.float32)


def segment(
    images: Sequence[ImageInput | None],
    labels: Sequence[str],
    *,
    template: str = DEFAULT_TEMPLATE,
    model: str | Path = "nvidia/groupvit-gcc-yfcc",
    revision: str | None = None,
    device: str = "auto",
) -> Segmentation:
    """Find which of some labels each pixel of each picture shows best.

    The model says how well each of its groups of patches fits each label; a pixel has the label that its groups fit
    best, so every pixel has one: name what may be behind the things too ("sky", "wall").

    Args:
        images: of any accepted form; see `lance_align.images.load`.
        labels: at least one.
        template: the sentence a label is put into; ``{}`` stands for the label.
        model: a GroupViT checkpoint, as in `lance_align.load_encoder`.
        revision: of a hub model.
        device: as in `lance_align.load_encoder`.

    Raises:
        ArgumentError: one image where a list is expected, no labels, a label that is not text, or a template without
            ``{}``.
        ModelError: as `lance_align.load_encoder`, or the model does not segment.

    >>> found = lance_align.segment([picture], ["a heart", "paper"], model="nvidia/groupvit-gcc-yfcc")
    >>> found.masks.dtype
    dtype('int16')
    """
    return segmenter(labels, template=template, model=model, revision=revision, device=device)(images)


def segmenter(
    labels: Sequence[str], *, template: str, model: str | Path, revision: str | None, device: str
) -> Callable[[Sequence[ImageInput | None]], Segmentation]:
    """What `segment` does with images, the model found and the labels embedded once; arguments and errors are its."""
    check_labels(labels, template)
    looking = load_pair_model(model, part="segmenter", revision=revision, device=device)
    encoder = load_encoder(looking.spec, device=device)
    words = label_vectors(labels, encoder=encoder, template=template)

    def run(images: Sequence[ImageInput | None]) -> Segmentation:
        images = as_list(images, "images")
        masks = np.full((len(images), *looking.spec.image.crop), NOTHING, np.int16)
        reasons: list[str | None] = [None] * len(images)
        for row, image in enumerate(images):
            try:
                if image is None:
                    raise RowError("null", "no image")
                masks[row] = looking.segment(read_pixels(image, looking.spec.image), words)
            except RowError as error:
                reasons[row] = str(error)
        return Segmentation(labels=tuple(labels), masks=masks, reasons=tuple(reasons))

    return run
