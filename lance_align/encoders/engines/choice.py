"""Which engine runs a tower, and the check that it gives the tower's vectors."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch

from lance_align.encoders.engines.base import (
    MIN_COSINE,
    MIN_COSINE_BFLOAT16,
    Engine,
    EngineName,
    Features,
    agreement,
    default_engine,
    probe_pixels,
)
from lance_align.encoders.engines.graph import EngineError, GraphEngine
from lance_align.encoders.engines.module import ModuleEngine, prepare
from lance_align.encoders.memory import is_out_of_memory
from lance_align.encoders.pixels import PixelTower
from lance_align.errors import ModelError
from lance_align.spec import ModelSpec


def image_engine(
    spec: ModelSpec,
    load: Callable[[], PixelTower],
    *,
    engine: EngineName,
    device: torch.device,
    dtype: torch.dtype,
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
        dtype: torch.float32 or torch.bfloat16; OpenVINO computes in the first only.
        batch_size: most images of a forward pass of torch; None for what fits.

    Raises:
        ModelError: the tower cannot be loaded, or an engine was asked for by name and cannot run it.
    """
    chosen = default_engine(device.type, in_float32=dtype == torch.float32) if engine == "auto" else engine
    if chosen == "openvino":
        try:
            return GraphEngine(spec, load, threads=torch.get_num_threads())
        except EngineError as error:
            if engine == "openvino":
                raise ModelError(f"OpenVINO cannot run {spec.name!r}: {error}; use engine='torch'") from error
            warnings.warn(f"OpenVINO cannot run {spec.name!r} ({error}); torch does", RuntimeWarning, stacklevel=2)
    return _module_engine(spec, load, engine=engine, device=device, dtype=dtype, batch_size=batch_size)


def _module_engine(
    spec: ModelSpec,
    load: Callable[[], PixelTower],
    *,
    engine: EngineName,
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int | None,
) -> ModuleEngine:
    """torch, in the fastest way that gives the plain tower's vectors of the probe pictures."""
    tower = load()
    probe = probe_pixels(spec.image)
    reference: Features = ModuleEngine(tower, device, batch_size=batch_size)(probe)
    ways = [(dtype, True), (dtype, False), (torch.float32, True)]
    said: list[str] = []
    for kind, fold in ways if dtype != torch.float32 else ways[:1]:
        tower = tower if not said else load()
        prepare(tower, device, kind, fold=fold)
        made = ModuleEngine(tower, device, batch_size=batch_size, compiled=engine == "compiled")
        try:
            found = agreement(made(probe), reference)
        except Exception as error:  # no compiler, and much else that Inductor raises
            if engine != "compiled" or is_out_of_memory(error):
                raise
            raise ModelError(f"torch cannot compile {spec.name!r} ({_last_line(error)}); use engine='torch'") from error
        if found >= (MIN_COSINE if kind == torch.float32 else MIN_COSINE_BFLOAT16):
            break
        normalisation = "normalisation folded" if fold else "normalisation as it is"
        said.append(f"cosine {found:.6f} in {str(kind).removeprefix('torch.')}, {normalisation}")
    else:
        made = ModuleEngine(load(), device, batch_size=batch_size)
    if said:
        warnings.warn(
            f"{spec.name!r} gives other vectors in faster ways ({'; '.join(said)}); it runs in {made.precision}",
            RuntimeWarning,
            stacklevel=3,
        )
    return made


def _last_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
