"""Labels for images without training: from the cosines of an image with a sentence for each label."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lance_align.encoders.base import Encoder, Score, Vectors, as_list
from lance_align.encoders.cache import load_encoder
from lance_align.errors import ArgumentError
from lance_align.spec import DEFAULT_MODEL, ModelSpec
from lance_align.visuals import VisualInput

DEFAULT_TEMPLATE = "a photo of a {}"

_log = logging.getLogger(__name__)


class Probabilities(np.ndarray[Any, np.dtype[np.float32]]):
    """``(images, labels) float32``, an array like any other.

    Attributes:
        reasons: one entry an image: None, or why its row is NaN, as ``"kind: detail"``. What is computed of the array
            has none.
    """

    reasons: tuple[str | None, ...] = ()

    def __new__(cls, values: NDArray[np.float32], *, reasons: tuple[str | None, ...]) -> Probabilities:
        """A view of values."""
        made = values.view(cls)
        made.reasons = reasons
        return made


def zero_shot(
    images: Sequence[VisualInput | None],
    labels: Sequence[str],
    *,
    template: str = DEFAULT_TEMPLATE,
    model: str | Path | ModelSpec = DEFAULT_MODEL,
    device: str = "auto",
) -> Probabilities:
    """Probability of each label for each image, with the checkpoint's own score.

    Args:
        images: of any accepted form; see `lance_align.visuals.read_pixels`.
        labels: what the pictures may show; at least one.
        template: the sentence a label is put into; ``{}`` stands for the label.
        model: as in `load_encoder`.
        device: as in `load_encoder`.

    Returns:
        ``(images, labels) float32``; a row sums to 1 (of SigLIP each label stands for itself, and all may be low), or
        is NaN where the image is None or cannot be read. Its `reasons` say why; the first is logged too.

    Raises:
        ArgumentError: one image where a list is expected, no labels, a label that is not text, or a template without
            ``{}``.
        ModelError: as `load_encoder`.

    >>> lance_align.zero_shot([picture], ["a heart", "a car"], model="align-tiny").shape
    (1, 2)
    """
    check_labels(labels, template)  # before anything is loaded
    images = as_list(images, "images")
    encoder = load_encoder(model, device=device)
    embedded = encoder.encode_images(images)
    vectors = embedded.vectors.copy()
    vectors[[reason is not None for reason in embedded.reasons]] = np.nan
    failed = [(row, reason) for row, reason in enumerate(embedded.reasons) if reason is not None]
    if failed:
        _log.warning(
            "%d of %d images have no probabilities; the first is image %d: %s", len(failed), len(images), *failed[0]
        )
    return Probabilities(
        label_probabilities(vectors, labels, encoder=encoder, template=template), reasons=embedded.reasons
    )


def label_probabilities(
    vectors: Vectors, labels: Sequence[str], *, encoder: Encoder, template: str = DEFAULT_TEMPLATE
) -> NDArray[np.float32]:
    """As `zero_shot` for images embedded already, by the same model.

    Args:
        vectors: ``(n, dim) float32`` of norm 1; rows of NaN give rows of NaN.
        labels: as in `zero_shot`.
        encoder: the one that made the vectors.
        template: as in `zero_shot`.

    Raises:
        ArgumentError: as `zero_shot`, or vectors of another length than the encoder's.
    """
    if vectors.ndim != 2 or vectors.shape[1] != encoder.spec.dim:
        raise ArgumentError(f"vectors have shape {vectors.shape}; {encoder.spec.name!r} makes (n, {encoder.spec.dim})")
    return probabilities(vectors, label_vectors(labels, encoder=encoder, template=template), score=encoder.score)


def label_vectors(labels: Sequence[str], *, encoder: Encoder, template: str = DEFAULT_TEMPLATE) -> Vectors:
    """Embed the sentence of each label.

    Returns:
        ``(labels, dim) float32`` of norm 1.

    Raises:
        ArgumentError: as `zero_shot`.
    """
    labels = check_labels(labels, template)
    sentences = [template.replace("{}", label) for label in labels]
    embedded = encoder.encode_texts(sentences)
    failed = [f"{text!r} ({reason})" for text, reason in zip(sentences, embedded.reasons, strict=True) if reason]
    if failed:
        raise ArgumentError(f"a label cannot be embedded: {failed[0]}")
    return embedded.vectors


def probabilities(vectors: Vectors, labels: Vectors, *, score: Score) -> NDArray[np.float32]:
    """Of the labels for each vector.

    Args:
        vectors: ``(n, dim) float32`` of norm 1, of images; rows of NaN give rows of NaN.
        labels: ``(labels, dim) float32`` of norm 1, from `label_vectors`.
        score: `Encoder.score`.

    Returns:
        ``(n, labels) float32``.
    """
    return score.probabilities(vectors.astype(np.float64) @ labels.T.astype(np.float64))


def check_labels(labels: Sequence[str], template: str) -> list[str]:
    """Labels as a list; what cannot be labels is refused, before anything is loaded.

    Raises:
        ArgumentError: as `zero_shot`.
    """
    labels = as_list(labels, "labels")
    if len(labels) == 0 or not all(isinstance(label, str) for label in labels):
        raise ArgumentError(f"labels are {labels!r:.80}; expected a list of at least one text")
    if not isinstance(template, str) or "{}" not in template:
        raise ArgumentError(f"template {template!r:.200} has no place for the label; expected a sentence with {{}}")
    return labels
