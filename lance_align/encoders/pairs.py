"""Models that look at a picture and a text together: scores of pairs, and which part of a picture shows what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lance_align.encoders.base import Vectors
from lance_align.encoders.checkpoints import locate
from lance_align.encoders.devices import Precision, full_precision, load_errors, resolve_device, resolve_dtype
from lance_align.encoders.engines.base import check_options
from lance_align.encoders.memory import PassSize
from lance_align.encoders.once import LOADING, Once
from lance_align.encoders.pixels import PairTower
from lance_align.encoders.tokens import Tokens
from lance_align.encoders.two_towers import opened
from lance_align.encoders.weights import Weights
from lance_align.errors import ArgumentError, ModelError
from lance_align.spec import KNOWN_CHECKPOINTS, ImageSpec, ModelSpec

# Of one forward pass; more is held than by an encoder, for every text looks at all states of a picture.
PIXELS_PER_BATCH = {"cpu": 4 * 224 * 224, "mps": 16 * 224 * 224, "cuda": 128 * 224 * 224}

Part = Literal["matcher", "segmenter"]
_PURPOSES: dict[Part, str] = {"matcher": "reranking", "segmenter": "parts of images"}

_models: dict[tuple[ModelSpec, str, Precision], PairModel] = {}


class PairModel:
    """A checkpoint that looks at pairs. `load_pair_model` makes them; parts are loaded when they are first used.

    Args:
        spec: of the model.
        directory: its checkpoint.
        device: as in `load_encoder`.
        precision: as in `load_encoder`.
    """

    def __init__(self, spec: ModelSpec, directory: Path, *, device: torch.device, precision: Precision) -> None:
        self.spec, self.device = spec, device
        check_options(spec, device=str(device), engine="auto", precision=precision)
        self._family, self._config, self._weights = opened(spec, directory)
        self._dtype = torch.float32 if self._family.exact else resolve_dtype(precision, device)
        self._family.check_weights(self._weights)
        self._pass = PassSize(max(1, PIXELS_PER_BATCH[device.type] // spec.image.pixels))
        self._matcher = Once(lambda: self._ready(self._family.matcher))
        self._segmenter = Once(lambda: self._ready(self._family.segmenter))
        self._tokens: Once[Tokens] = Once(lambda: Tokens(directory, max_tokens=spec.max_tokens))

    def check(self, part: Part) -> None:
        """Check, without loading weights, that the family has a part.

        Raises:
            ModelError: it has not.
        """
        new = self._family.new_matcher if part == "matcher" else self._family.new_segmenter
        try:
            with torch.device("meta"):
                new(self._config, self.spec.image)
        except ModelError as error:
            others = [name for name, known in KNOWN_CHECKPOINTS.items() if known.purpose == _PURPOSES[part]]
            raise ModelError(f"{error}; models that do: {', '.join(others)}") from error

    def scores(self, text: str, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """How well a text fits each picture: BLIP's probability of a match, X-CLIP's logit.

        Args:
            text: embedded as the family does, truncated.
            pixels: uint8 ``(n, *spec.image.shape)``; n may be 0.

        Returns:
            ``(n,) float32``; NaN where the model gives no number.

        Raises:
            ModelError: the family has no part that scores pairs.
        """
        matcher = self._matcher()
        ids = torch.tensor([self._tokens().ids([text])[0]])
        return self._batches(matcher, pixels, ids, torch.ones_like(ids))

    def segment(self, pixels: NDArray[np.uint8], labels: Vectors) -> NDArray[np.int16]:
        """Which label each pixel of a picture shows best.

        Args:
            pixels: uint8 ``(height, width, 3)`` of the spec's crop; one picture, for a map of floats for every label
                is large.
            labels: ``(labels, dim) float32`` of norm 1.

        Returns:
            ``(height, width) int16``, numbers of labels.

        Raises:
            ModelError: the family does not segment.
        """
        logits = self._batches(self._segmenter(), pixels[np.newaxis], torch.tensor(labels))
        mask: NDArray[np.int16] = logits[0].argmax(0).astype(np.int16)
        return mask

    def _ready(self, load: Callable[[Any, ImageSpec, Weights], PairTower]) -> PairTower:
        with load_errors(self.spec.name, self.device):
            tower = load(self._config, self.spec.image, self._weights).to(self.device)
            tower.use(dtype=self._dtype)
        return tower

    def _batches(self, tower: PairTower, pixels: NDArray[np.uint8], *texts: torch.Tensor) -> NDArray[np.float32]:
        if pixels.dtype != np.uint8 or pixels.shape[1:] != self.spec.image.shape:
            raise ArgumentError(f"pixels are {pixels.dtype} {pixels.shape}; expected uint8 n x {self.spec.image.shape}")
        return self._pass.fit(lambda: self._looked(tower, pixels, *texts), most=len(pixels))

    @torch.inference_mode()
    def _looked(self, tower: PairTower, pixels: NDArray[np.uint8], *texts: torch.Tensor) -> NDArray[np.float32]:
        there = [each.to(self.device) for each in texts]
        found, size = [torch.empty(0)], self._pass.size
        with full_precision(self.device):
            for start in range(0, len(pixels), size):
                batch = torch.tensor(pixels[start : start + size]).to(self.device)
                found.append(tower(batch, *there).cpu())
        scores: NDArray[np.float32] = torch.cat(found[1:] or found).numpy()
        return scores


def load_pair_model(
    model: str | Path,
    *,
    part: Part,
    revision: str | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> PairModel:
    """The model on a device; the same object for the same arguments in this process.

    Args:
        model: a name as in `resolve_spec`.
        part: what it is wanted for.
        revision: of a hub model.
        device: as in `load_encoder`.
        precision: as in `load_encoder`.

    Raises:
        ModelError: as `load_encoder`, or the family does not have the part.
        ArgumentError: this machine does not have the device.
    """
    located = locate(model, revision=revision)
    if located.directory is None:
        raise ModelError(f"{str(model)!r} has no weights, so it looks at nothing")
    place = resolve_device(device)
    key = (located.spec, str(place), precision)
    with LOADING:
        if key not in _models:
            _models[key] = PairModel(located.spec, located.directory, device=place, precision=precision)
        _models[key].check(part)
        return _models[key]
