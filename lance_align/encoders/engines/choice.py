"""Which engine runs a tower, and the check that it gives the tower's vectors."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch

from lance_align.encoders.engines.base import (
    MIN_COSINE,
    Engine,
    EngineName,
    Features,
    agreement,
    is_openvino_installed,
    probe_pixels,
)
from lance_align.encoders.engines.eager import EagerEngine, prepare
from lance_align.encoders.engines.graph import EngineError, GraphEngine
from lance_align.encoders.towers import VisionTower
from lance_align.errors import ModelError
from lance_align.spec import ModelSpec


def image_engine(
    spec: ModelSpec,
    load: Callable[[], VisionTower],
    *,
    engine: EngineName,
    device: torch.device,
    batch_size: int | None,
) -> Engine:
    """The engine of an image tower.

    ``"auto"`` is OpenVINO on an x86 CPU where it is installed, else torch; if OpenVINO cannot be used for this tower, a
    RuntimeWarning says why and torch takes over. `torch.get_num_threads` threads are used.

    Args:
        spec: of the model.
        load: makes the plain tower, in eval mode, on the device.
        engine: which.
        device: where.
        batch_size: most images of a forward pass of torch; None for what fits.

    Raises:
        ModelError: the tower cannot be loaded, or OpenVINO was asked for by name and cannot run it.
    """
    if engine == "openvino" or (engine == "auto" and device.type == "cpu" and is_openvino_installed()):
        try:
            return GraphEngine(spec, load, threads=torch.get_num_threads())
        except EngineError as error:
            if engine == "openvino":
                raise ModelError(f"OpenVINO cannot run {spec.name!r}: {error}; use engine='torch'") from error
            warnings.warn(f"OpenVINO cannot run {spec.name!r} ({error}); torch does", RuntimeWarning, stacklevel=2)
    return _eager(spec, load, device=device, batch_size=batch_size)


def _eager(
    spec: ModelSpec, load: Callable[[], VisionTower], *, device: torch.device, batch_size: int | None
) -> EagerEngine:
    tower = load()
    made = EagerEngine(tower, device, batch_size=batch_size)
    probe = probe_pixels(spec.image)
    reference: Features = made(probe)
    prepare(tower, device)
    found = agreement(made(probe), reference)
    if found >= MIN_COSINE:
        return made
    warnings.warn(
        f"{spec.name!r} gives other vectors with its normalisation folded (cosine {found:.6f}); it runs as it is, "
        "which is slower",
        RuntimeWarning,
        stacklevel=3,
    )
    return EagerEngine(load(), device, batch_size=batch_size)
