"""The contract of every encoder: images and texts in, L2-normalised embeddings out, bad rows kept as rows."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lance_align.errors import ArgumentError, RowError
from lance_align.spec import ModelSpec
from lance_align.visuals import VisualInput

Vectors: TypeAlias = NDArray[np.float32]  # (n, dim), each row of norm 1


@dataclasses.dataclass(frozen=True, slots=True)
class Embeddings:
    """The embeddings of n inputs, in their order.

    ``embeddings[i]`` is a ``(dim,) float32`` vector of norm 1, or None where input i has none; iterate to get them all.

    Attributes:
        vectors: ``(n, dim) float32``; a row without an embedding holds zeros.
        reasons: one entry an input: None where there is a vector, else ``"kind: detail"`` as in `RowError`.

    >>> embeddings = lance_align.load_encoder("align-tiny").encode_texts(["red heart", None])
    >>> [vector is None for vector in embeddings]
    [False, True]
    """

    vectors: Vectors
    reasons: tuple[str | None, ...]

    def __post_init__(self) -> None:
        if len(self.vectors) != len(self.reasons):
            raise ValueError(f"{len(self.vectors)} vectors but {len(self.reasons)} reasons")

    def __len__(self) -> int:
        return len(self.reasons)

    def __getitem__(self, index: int) -> Vectors | None:
        return None if self.reasons[index] is not None else self.vectors[index]

    def __iter__(self) -> Iterator[Vectors | None]:
        return (self[index] for index in range(len(self)))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How a family makes probabilities of cosines.

    Attributes:
        temperature: what cosines are divided by to give logits.
        bias: added to that.
        kind: ``softmax`` over the texts, or a ``sigmoid`` of each pair by itself.
    """

    temperature: float
    bias: float = 0.0
    kind: Literal["softmax", "sigmoid"] = "softmax"

    @classmethod
    def of_scale(cls, scale: float, *, bias: float = 0.0, kind: Literal["softmax", "sigmoid"] = "softmax") -> Score:
        """Of a checkpoint's `logit_scale`, whose exponential cosines are multiplied by."""
        return cls(temperature=math.exp(-scale), bias=bias, kind=kind)

    def logits(self, cosines: NDArray[Any]) -> NDArray[np.float64]:
        """Of cosines of any shape."""
        return cosines.astype(np.float64) / self.temperature + self.bias

    def probabilities(self, cosines: NDArray[Any]) -> NDArray[np.float32]:
        """Of cosines ``(images, texts)``: rows that sum to 1 for ``softmax``; NaN for NaN."""
        logits = self.logits(cosines)
        if self.kind == "sigmoid":
            return (0.5 + 0.5 * np.tanh(0.5 * logits)).astype(np.float32)  # the sigmoid, without overflow
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
        return shares


class Encoder(ABC):
    """Two towers into one space. Thread-safe; a tower is loaded when it is first used.

    >>> encoder = lance_align.load_encoder("align-tiny")
    >>> images, texts = encoder.encode_images([picture]), encoder.encode_texts(["a heart", "a car"])
    >>> (images.vectors @ texts.vectors.T).shape  # cosines
    (1, 2)
    """

    spec: ModelSpec

    @abstractmethod
    def encode_images(self, images: Sequence[VisualInput | None]) -> Embeddings:
        """Embed images of any accepted form (see `lance_align.visuals.read_pixels`); None and bad ones become reasons.

        A model whose ``spec.image`` has `frames` embeds videos: files, or lists of frames.

        Encoded bytes and paths of a picture have one vector, whichever way they come. The same picture as a decoded
        Pillow image or array has nearly the same: a large JPEG is not decoded at its full size, a decoded image is used
        whole.

        Raises:
            ArgumentError: one picture where a list is expected.
        """

    @abstractmethod
    def encode_pixels(self, pixels: NDArray[np.uint8]) -> Vectors:
        """Embed images already squashed and cropped by `lance_align.visuals.read_pixels`.

        Args:
            pixels: uint8 ``(n, *spec.image.shape)``; n may be 0.

        Returns:
            ``(n, dim) float32`` of norm 1; rows the model gives no finite vector for hold NaN.
        """

    @abstractmethod
    def encode_texts(self, texts: Sequence[str | None]) -> Embeddings:
        """Embed texts; None becomes the reason ``null``. The empty string is embedded; long texts are truncated.

        Raises:
            ArgumentError: one text where a list is expected.
        """

    @property
    @abstractmethod
    def score(self) -> Score:
        """What makes probabilities of cosines."""

    @property
    def choices(self) -> Mapping[str, str | int]:
        """What the loaded towers run on: threads, device, engine and precision, by the names of a job's options."""
        return {}

    @property
    def halved(self) -> int:
        """How often a forward pass did not fit into memory, so that all later ones are smaller."""
        return 0

    def keep_text_tower(self) -> None:  # noqa: B027  # most have none
        """Keep on disk what embeds texts at once, in this process and later ones; where it cannot be, do nothing."""

    @property
    def temperature(self) -> float:
        """What cosines are divided by to give logits."""
        return self.score.temperature


def is_picture(value: object) -> bool:
    """Whether a value is a PIL image, recognised without importing Pillow, or an array of pixels."""
    if isinstance(value, np.ndarray):
        return bool(value.dtype == np.uint8)
    return any(base.__module__ == "PIL.Image" and base.__name__ == "Image" for base in type(value).__mro__)


def as_list(values: Any, what: str) -> list[Any]:
    """Values in their order; one value is refused: a text would be taken for as many texts as it has letters.

    A column of pandas answers ``[0]`` by its index, which need not be the first row; one of Arrow gives scalars.

    Args:
        values: a list, a tuple, an array, a column or the like.
        what: they are, in the plural, for the error.

    Raises:
        ArgumentError: one text, file or picture, a mapping, a set, or anything that has no length and no order.
    """
    if isinstance(values, (str, bytes, bytearray, memoryview, Path)) or _is_one_picture(values):
        raise ArgumentError(f"{what} are one {type(values).__name__}; expected a list of {what}: put it into [ ]")
    has_order = hasattr(values, "__len__") and hasattr(values, "__getitem__") and getattr(values, "ndim", 1) > 0
    if isinstance(values, Mapping) or not has_order:
        raise ArgumentError(f"{what} are a {type(values).__name__}; expected a list of {what}")
    if type(values).__module__.startswith("pyarrow."):
        values = values.to_pylist()
    return list(values)


def _is_one_picture(value: object) -> bool:
    """An array ``(h, w)`` or ``(h, w, 1, 3 or 4)`` of pixels is one, ``(n, h, w)`` and ``(n, h, w, 3)`` are several."""
    if isinstance(value, np.ndarray) and is_picture(value):
        return value.ndim < 3 or (value.ndim == 3 and value.shape[2] in (1, 3, 4))
    return is_picture(value)


def text_reason(value: object) -> str | None:
    """Why a value cannot be encoded as a text, as ``"kind: detail"``; None for every valid str, the empty one too.

    A query of ``""`` is thus answered: search boxes ask it before anyone has typed, and some order is better than an
    error there.
    """
    if value is None:
        return str(RowError("null", "no text"))
    if not isinstance(value, str):
        return str(RowError("type", f"{type(value).__name__} cannot be a text; expected str"))
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        return str(RowError("type", f"not valid Unicode: {error.reason} at character {error.start}"))
    return None


def caption_reason(value: object) -> str | None:
    """As `text_reason`, for a row's text: a blank one says nothing of its row, and gets no vector (``empty``)."""
    reason = text_reason(value)
    if reason is None and not str(value).strip():
        return str(RowError("empty", "a blank text"))
    return reason


def unit_rows(features: NDArray[np.float32]) -> Vectors:
    """Rows of norm 1, in double precision so that small features do not underflow; NaN where there is no direction."""
    wide = features.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        norms = np.linalg.norm(wide, axis=1, keepdims=True)
        unit = np.where(np.isfinite(norms) & (norms > 0.0), wide / norms, np.nan)
    return unit.astype(np.float32)


def embeddings_of(vectors: Vectors, reasons: list[str | None]) -> Embeddings:
    """Rows without a usable vector become reasons, and zeros in the array."""
    for row in np.flatnonzero(~np.isfinite(vectors).all(axis=1)):
        reasons[row] = str(RowError("encode", "the model gave no vector with a direction (zero or not finite)"))
        vectors[row] = 0.0
    return Embeddings(vectors, tuple(reasons))
