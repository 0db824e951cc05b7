"""One encoder a model and device in this process."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from lance_align.encoders.base import Encoder
from lance_align.encoders.checkpoints import Located, locate
from lance_align.encoders.devices import Precision, check_precision, resolve_device
from lance_align.encoders.engines.base import EngineName, check_engine
from lance_align.encoders.families import FAMILIES
from lance_align.encoders.once import LOADING
from lance_align.errors import ModelError
from lance_align.spec import ModelSpec

_encoders: dict[tuple[ModelSpec, str, EngineName, Precision], Encoder] = {}


def load_encoder(
    model: str | Path | ModelSpec,
    *,
    revision: str | None = None,
    device: str = "auto",
    engine: EngineName = "auto",
    precision: Precision = "auto",
) -> Encoder:
    """The encoder of a model on a device; the same object for the same arguments in this process.

    Towers are loaded when they are first used. Safe to call from several threads.

    Args:
        model: a name as in `resolve_spec`, or a spec, whose fingerprint what is found must have.
        revision: of a hub model given by name.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        engine: what runs the image tower: ``"torch"``, ``"openvino"`` (on the CPU), or ``"auto"``, which is OpenVINO on
            an x86 CPU where it is installed, else torch. ``"compiled"`` is torch with kernels made for this tower,
            which takes a minute: for long jobs on a GPU. All give the same vectors (cosine 0.9999 or more, checked as a
            tower is loaded). What OpenVINO compiles is kept in ~/.cache/lance_align, or where LANCE_ALIGN_CACHE says.
        precision: ``"float32"``, ``"bfloat16"`` (cosine 0.999 or more to the first, checked), or ``"auto"``, which is
            bfloat16 on a GPU that computes in it.

    Raises:
        ModelError: as `resolve_spec`, or the checkpoint found is not the one that the spec describes.
        ArgumentError: this machine does not have the device, or the engine does not run on it.
        MissingExtraError: engine is ``"openvino"``, and it is not installed.

    >>> encoder = lance_align.load_encoder("align-tiny")
    >>> encoder.encode_texts(["red heart"]).vectors.shape
    (1, 256)
    """
    if isinstance(model, ModelSpec) and revision is not None:
        raise ModelError(f"revision {revision!r} given beside a spec, which has its own ({model.revision!r})")
    check_engine(engine)
    check_precision(precision)
    with LOADING:
        if isinstance(model, ModelSpec):
            how = (_place(model.family, device), engine, precision)
            return _encoders.get((model, *how)) or _add(_verified(model), *how)
        located = locate(model, revision=revision)
        how = (_place(located.spec.family, device), engine, precision)
        return _encoders.get((located.spec, *how)) or _add(located, *how)


def _place(family: str, device: str) -> str:
    if family not in FAMILIES and family != "fake":
        raise ModelError(f"unknown model family {family!r}; expected one of {', '.join(sorted(FAMILIES))}")
    return "cpu" if family == "fake" else str(resolve_device(device))  # the fake runs where torch is not installed


def _verified(spec: ModelSpec) -> Located:
    located = locate(spec.name, revision=spec.revision)
    found = located.spec
    if found.fingerprint != spec.fingerprint:
        raise ModelError(
            f"model {spec.name!r} found here has fingerprint {found.fingerprint[:12]}, "
            f"expected {spec.fingerprint[:12]}; another model would give other vectors: "
            "bring the original, or embed the table again"
        )
    if found != spec:
        raise ModelError(f"the description of model {spec.name!r} does not fit its files: {spec} against {found}")
    return located


def _add(located: Located, place: str, engine: EngineName, precision: Precision) -> Encoder:
    how: dict[str, Any] = {"device": place, "engine": engine, "precision": precision}
    encoder: Encoder
    if located.directory is None:
        encoder = importlib.import_module("lance_align.testing").FakeEncoder(located.spec, **how)
    else:
        towers: Any = importlib.import_module("lance_align.encoders.two_towers")  # at first use: it imports torch
        encoder = towers.TowerEncoder(located.spec, located.directory, **how)
    _encoders[located.spec, place, engine, precision] = encoder
    return encoder
