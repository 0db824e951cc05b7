"""The contract of an engine, and the pictures that tell whether one is right."""

from __future__ import annotations

from importlib.util import find_spec
from platform import machine
from typing import Literal, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from lance_align.encoders.devices import Precision, check_precision
from lance_align.encoders.families import FAMILIES, family
from lance_align.errors import ArgumentError, MissingExtraError
from lance_align.spec import ImageSpec, ModelSpec

EngineName = Literal["auto", "torch", "compiled", "openvino"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)

Pixels: TypeAlias = NDArray[np.uint8]  # (n, *ImageSpec.shape)
Features: TypeAlias = NDArray[np.float32]  # (n, dim), not normalised

# Vectors of an engine against those of the plain tower: float32 in another order of additions stays above 0.999999 on
# trained weights; a graph that is wrong somewhere falls far below.
MIN_COSINE = 0.9999
# The same in bfloat16, whose mantissa has 8 bits.
MIN_COSINE_BFLOAT16 = 0.999


def is_openvino_installed() -> bool:
    """Whether OpenVINO is there, on a processor that it is made for."""
    return machine().lower() in ("x86_64", "amd64") and find_spec("openvino") is not None


def default_engine(device_type: str, *, in_float32: bool) -> EngineName:
    """What ``"auto"`` is."""
    return "openvino" if device_type == "cpu" and in_float32 and is_openvino_installed() else "torch"


def check_engine(engine: str) -> None:
    """Refuse what is no engine, or is not installed.

    Raises:
        ArgumentError: says which there are.
        MissingExtraError: OpenVINO is asked for and missing.
    """
    if engine not in ENGINES:
        raise ArgumentError(f"engine is {engine!r}; expected one of {', '.join(ENGINES)}")
    if engine == "openvino" and find_spec("openvino") is None:
        raise MissingExtraError("openvino", "openvino")


def check_options(spec: ModelSpec, *, device: str, engine: str, precision: str) -> None:
    """Refuse what does not go together, before a model is loaded or a process started for it.

    Raises:
        ArgumentError: says what does.
        MissingExtraError: as `check_engine`.
    """
    check_engine(engine)
    check_precision(precision)
    if engine == "openvino" and device not in ("auto", "cpu"):
        raise ArgumentError(f"engine 'openvino' runs on the CPU, not on {device}; use engine='torch'")
    if engine == "openvino" and precision == "bfloat16":
        raise ArgumentError(f"engine 'openvino' computes in float32, not in {precision}; use engine='torch'")
    if precision == "bfloat16" and spec.family in FAMILIES and family(spec.family, where=spec.name).exact:
        raise ArgumentError(f"{spec.name!r} gives other vectors in bfloat16; use precision='float32', or 'auto'")


class Engine(Protocol):
    """Runs an image tower; safe to call from several threads.

    Attributes:
        name: which.
        precision: what it computes in.
        halved: how often a forward pass did not fit into memory, so that all later ones are smaller.
    """

    name: EngineName
    precision: Precision

    @property
    def halved(self) -> int:
        """See above."""
        ...

    def __call__(self, pixels: Pixels) -> Features:
        """Features of pixels of the tower's crop; n is at least 1."""
        ...


def probe_pixels(image: ImageSpec) -> Pixels:
    """Three smooth pictures of an `ImageSpec`: colours that come and go in waves of different lengths; videos move.

    Pixels drawn at random are none that a model has learnt: rounding errors grow on them as on no picture.
    """
    height, width = image.crop
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [
        [0.5 + 0.5 * np.sin(2 * np.pi * (kind + 1) * (x * across + y * down) + channel) for channel in range(3)]
        for kind, (across, down) in enumerate(((1.0, 0.3), (0.4, 1.0), (0.8, -0.7)))
    ]
    pictures = (np.stack(waves).transpose(0, 2, 3, 1) * 255).astype(np.uint8)
    if image.frames is None:
        return pictures
    return np.stack([np.roll(pictures, number * width // image.frames, 2) for number in range(image.frames)], 1)


def agreement(features: Features, reference: Features) -> float:
    """The smallest cosine between rows; NaN if a row of `features` has no direction.

    Rows of the reference that have none (zero, or not finite) do not count; 1.0 if no row counts.
    """
    right = reference.astype(np.float64)
    norms = np.linalg.norm(right, axis=1)
    usable = np.isfinite(norms) & (norms > 0.0)
    if not usable.any():
        return 1.0
    left, right, norms = features.astype(np.float64)[usable], right[usable], norms[usable]
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (left * right).sum(axis=1) / (np.linalg.norm(left, axis=1) * norms)
    return float(cosines.min())
