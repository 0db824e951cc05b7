"""An encoder of any family: two towers from a local checkpoint directory, loaded when they are first used."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lance_align import visuals
from lance_align.encoders.base import (
    Embeddings,
    Encoder,
    Score,
    Vectors,
    as_list,
    embeddings_of,
    text_reason,
    unit_rows,
)
from lance_align.encoders.checkpoints import read_json
from lance_align.encoders.devices import (
    Precision,
    device_name,
    full_precision,
    load_errors,
    precision_name,
    resolve_device,
    resolve_dtype,
)
from lance_align.encoders.engines.base import MIN_COSINE_BFLOAT16, Engine, EngineName, agreement, check_options
from lance_align.encoders.engines.choice import image_engine
from lance_align.encoders.engines.text import keep_text_graph
from lance_align.encoders.families import family
from lance_align.encoders.fingerprint import fingerprint
from lance_align.encoders.memory import PassSize
from lance_align.encoders.once import LOADING, Once
from lance_align.encoders.pixels import PixelTower
from lance_align.encoders.tokens import Tokens, batches_by_length
from lance_align.encoders.weights import Weights
from lance_align.errors import ArgumentError, MissingExtraError, ModelError, RowError
from lance_align.spec import ModelSpec
from lance_align.visuals import VisualInput

if TYPE_CHECKING:
    from lance_align.encoders.families.base import Family

# Decoded together: enough that an engine keeps all threads busy, or for one forward pass of a GPU.
PIXELS_PER_CHUNK = {"cpu": 16 * 289 * 289, "mps": 32 * 289 * 289, "cuda": 128 * 289 * 289}
# Bounds of one forward pass.
TOKENS_PER_BATCH = {"cpu": 32 * 64, "mps": 64 * 64, "cuda": 1024 * 64}
# Texts tokenised and sorted by length together: bounds the tokenizer's objects, about 20 kB a text of 64 tokens.
TEXTS_PER_CHUNK = 4096
# What tells whether a text tower works, and is right in another type.
PROBE_TEXTS = ("a", "two dogs", "a small red house under tall trees at the river, painted at night in 1907")


class TowerEncoder(Encoder):
    """A checkpoint of any family. `load_encoder` makes them; the arguments are not checked against each other here.

    Args:
        spec: what `resolve_spec` says of the directory.
        directory: config.json, model.safetensors, tokenizer and image processor configuration.
        device: as in `load_encoder`.
        engine: as in `load_encoder`.
        precision: as in `load_encoder`.
        batch_size: most images, and most texts of the longest kind, in one forward pass; by default bounded by memory.

    Raises:
        ModelError: the files do not hold the model that the spec describes.
    """

    def __init__(
        self,
        spec: ModelSpec,
        directory: Path,
        *,
        device: str = "auto",
        engine: EngineName = "auto",
        precision: Precision = "auto",
        batch_size: int | None = None,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise ArgumentError(f"batch_size is {batch_size}; expected a whole number above 0")
        self.spec = spec
        self.device = resolve_device(device)
        check_options(spec, device=str(self.device), engine=engine, precision=precision)
        self._engine, self._batch_size = engine, batch_size
        self._directory = directory
        kind, self._score = _checked(spec, directory)
        self._pads_texts = kind.pads_texts
        self._dtype = torch.float32 if kind.exact else resolve_dtype(precision, self.device)
        self._images_per_batch = batch_size or max(1, PIXELS_PER_CHUNK[self.device.type] // spec.image.pixels)
        self._tokens_per_pass = PassSize(
            batch_size * spec.max_tokens if batch_size is not None else TOKENS_PER_BATCH[self.device.type]
        )
        self._kept = False  # the text tower, or the attempt
        self._vision: Once[Engine] = Once(self._load_vision)
        self._text: Once[nn.Module] = Once(self._load_text)
        self._tokens: Once[Tokens] = Once(lambda: Tokens(directory, max_tokens=spec.max_tokens))

    @property
    def score(self) -> Score:
        """See `Encoder.score`."""
        return self._score

    @property
    def image_engine(self) -> EngineName:
        """What runs the image tower, which is loaded for that if it is not."""
        return self._vision().name

    @property
    def choices(self) -> dict[str, str | int]:
        """See `Encoder.choices`; the engine is that of the image tower, where it is loaded."""
        engine, found = "torch", set()
        if self._text.made:
            found.add(precision_name(next(self._text().parameters()).dtype))
        if self._vision.made:
            engine = self._vision().name
            found.add(self._vision().precision)
        if not found:
            return {}
        return {
            "threads": torch.get_num_threads(),
            "device": device_name(self.device),
            "engine": engine,
            "precision": " and ".join(sorted(found)),
        }

    @property
    def halved(self) -> int:
        """See `Encoder.halved`."""
        return self._tokens_per_pass.halved + (self._vision().halved if self._vision.made else 0)

    @property
    def loaded_towers(self) -> frozenset[str]:
        """Which of ``"image"`` and ``"text"`` are in memory."""
        loaded = {"image": self._vision.made, "text": self._text.made}
        return frozenset(name for name, made in loaded.items() if made)

    def encode_images(self, images: Sequence[VisualInput | None]) -> Embeddings:
        """See `Encoder.encode_images`; images are decoded a forward pass at a time."""
        images = as_list(images, "images")
        vectors = np.zeros((len(images), self.spec.dim), dtype=np.float32)
        reasons: list[str | None] = [None] * len(images)
        for start in range(0, len(images), self._images_per_batch):
            rows, pixels = [], []
            for row, image in enumerate(images[start : start + self._images_per_batch], start):
                try:
                    pixels.append(self._pixels(image))
                    rows.append(row)
                except RowError as error:
                    reasons[row] = str(error)
            if rows:
                vectors[rows] = self.encode_pixels(np.stack(pixels))
        return embeddings_of(vectors, reasons)

    def _pixels(self, image: VisualInput | None) -> NDArray[np.uint8]:
        if image is None:
            raise RowError("null", "no image")
        return visuals.read_pixels(image, self.spec.image)

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> Vectors:
        """See `Encoder.encode_pixels`.

        Raises:
            ArgumentError: not uint8, or not of the spec's crop.
        """
        shape = self.spec.image.shape
        if pixels.dtype != np.uint8 or pixels.shape[1:] != shape:
            raise ArgumentError(
                f"pixels are {pixels.dtype} {pixels.shape}; expected uint8 (n, {', '.join(map(str, shape))})"
            )
        if len(pixels) == 0:
            return np.empty((0, self.spec.dim), dtype=np.float32)
        return unit_rows(self._vision()(pixels))

    def encode_texts(self, texts: Sequence[str | None]) -> Embeddings:
        """See `Encoder.encode_texts`; equal texts are embedded once.

        Texts of similar length share a forward pass, which no vector depends on.
        """
        texts = as_list(texts, "texts")
        reasons = [text_reason(text) for text in texts]
        good = [row for row, reason in enumerate(reasons) if reason is None]
        places: dict[str, int] = {}
        which = [places.setdefault(str(texts[row]), len(places)) for row in good]
        vectors = np.zeros((len(texts), self.spec.dim), dtype=np.float32)
        vectors[good] = self._distinct(list(places))[which]
        return embeddings_of(vectors, reasons)

    def keep_text_tower(self) -> None:
        """See `Encoder.keep_text_tower`, and `lance_align.encoders.engines.text`."""
        is_plain = self.device.type == "cpu" and self._dtype == torch.float32 and self._engine in ("auto", "openvino")
        if self._kept or not is_plain or self._tokens().backend is None:
            return
        with LOADING:  # another thread may be at it
            if self._kept:
                return
            was_loaded = self._text.made
            keep_text_graph(
                self.spec,
                self._text(),
                tokenizer=self._tokens().backend,
                pad_id=self._tokens().pad_id,
                max_chars=self._tokens().max_chars,
                length=self.spec.max_tokens if self._pads_texts else None,
                score=self._score,
                embed=lambda texts: self._embedded(self._text(), texts),
            )
            if not was_loaded:  # queries will not need it
                self._text = Once(self._load_text)
            self._kept = True

    def _distinct(self, texts: Sequence[str]) -> Vectors:
        vectors = np.zeros((len(texts), self.spec.dim), dtype=np.float32)
        for start in range(0, len(texts), TEXTS_PER_CHUNK):
            chunk = texts[start : start + TEXTS_PER_CHUNK]
            vectors[start : start + len(chunk)] = self._embedded(self._text(), chunk)
        return vectors

    def _embedded(self, tower: nn.Module, texts: Sequence[str]) -> Vectors:
        ids = self._tokens().ids(texts)
        width = self.spec.max_tokens if self._pads_texts else max(map(len, ids))

        def embed() -> Vectors:
            vectors = np.zeros((len(texts), self.spec.dim), dtype=np.float32)
            for positions, padded, mask in batches_by_length(
                ids,
                pad_id=self._tokens().pad_id,
                tokens_per_batch=self._tokens_per_pass.size,
                length=self.spec.max_tokens if self._pads_texts else None,
            ):
                vectors[positions] = _embed(tower, self.device, padded, mask)
            return vectors

        return self._tokens_per_pass.fit(embed, most=width * len(texts), least=width)

    def _load_vision(self) -> Engine:
        def load() -> PixelTower:
            return image_tower(self.spec, self._directory).to(self.device)

        with load_errors(self.spec.name, self.device):
            self._check_unchanged()
            return image_engine(
                self.spec,
                load,
                engine=self._engine,
                device=self.device,
                dtype=self._dtype,
                batch_size=self._batch_size,
            )

    def _load_text(self) -> nn.Module:
        """In the type asked for where that gives the vectors of float32, else in float32."""
        with load_errors(self.spec.name, self.device):
            self._check_unchanged()
            tower = text_tower(self.spec, self._directory).to(self.device)
            if self._dtype == torch.float32:
                return tower
            reference = self._embedded(tower, PROBE_TEXTS)
            found = agreement(self._embedded(tower.to(self._dtype), PROBE_TEXTS), reference)
            if found >= MIN_COSINE_BFLOAT16:
                return tower
            warnings.warn(
                f"{self.spec.name!r} gives other vectors of texts in bfloat16 (cosine {found:.6f}); float32 is used",
                RuntimeWarning,
                stacklevel=2,
            )
            return text_tower(self.spec, self._directory).to(self.device)

    def _check_unchanged(self) -> None:
        """A tower may be loaded long after the spec was read; a trainer may have written new weights since."""
        found = fingerprint(self._directory)
        if found != self.spec.fingerprint:
            raise ModelError(
                f"{self._directory} has changed since it was opened (fingerprint {found[:12]}, "
                f"expected {self.spec.fingerprint[:12]}); load the model again"
            )


def image_tower(spec: ModelSpec, directory: Path) -> PixelTower:
    """The image tower of a checkpoint as transformers would run it: on the CPU, in eval mode, in float32.

    Raises:
        ModelError: the files do not hold the model that the spec describes.
    """
    kind, config, weights = opened(spec, directory)
    return kind.image_tower(config, spec.image, directory, weights)


def text_tower(spec: ModelSpec, directory: Path) -> nn.Module:
    """As `image_tower`: token ids and mask, ``(n, length) int64``, to features ``(n, dim) float32``."""
    kind, config, weights = opened(spec, directory)
    return kind.text_tower(config, directory, weights)


def opened(spec: ModelSpec, directory: Path) -> tuple[Family, Any, Weights]:
    """The family of a checkpoint, its configuration, and its weights, of which the header alone is read."""
    path = directory / "config.json"
    kind = family(spec.family, where=str(path))
    return kind, kind.config(read_json(path), where=str(path)), Weights(directory / "model.safetensors")


@functools.lru_cache(maxsize=64)
def check_whole(spec: ModelSpec, directory: Path) -> None:
    """Refuse what loading and using the towers would refuse, without loading weights.

    Raises:
        ModelError: the header of the weights is damaged, tensors are missing, left over or of other shapes than
            config.json asks for, or the tokenizer is missing or damaged.
    """
    kind, config, weights = opened(spec, directory)
    kind.check_weights(weights)
    kind.check_towers(config, spec.image, directory, weights)
    kind.score(weights)
    with suppress(MissingExtraError):  # pictures can be embedded; the first text says it
        Tokens(directory, max_tokens=spec.max_tokens)


def _checked(spec: ModelSpec, directory: Path) -> tuple[Family, Score]:
    """The family and the score; refuses weights of another model."""
    kind, _, weights = opened(spec, directory)
    kind.check_weights(weights)
    return kind, kind.score(weights)


@torch.inference_mode()
def _embed(tower: nn.Module, device: torch.device, *inputs: torch.Tensor) -> Vectors:
    with full_precision(device):
        features: torch.Tensor = tower(*(each.to(device) for each in inputs))
    return unit_rows(features.cpu().numpy())
