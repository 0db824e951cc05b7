"""Specs to describers: one model of a kind and device in this process, its weights checked name by name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lance_align.describers.base import Describer
from lance_align.describers.checkpoints import directory_of
from lance_align.describers.spec import DescriberSpec
from lance_align.encoders.devices import load_errors, resolve_device
from lance_align.encoders.once import LOADING
from lance_align.encoders.pretrained import load_pretrained
from lance_align.errors import ModelError, few

# Closed on purpose, and by name: LLaVA and InstructBLIP have methods of the same names with other meanings.
FAMILIES: Mapping[str, str] = {
    "blip": "lance_align.describers.blip:BlipDescriber",
    "instructblip": "lance_align.describers.instructblip:InstructBlipDescriber",
    "llava": "lance_align.describers.llava:LlavaDescriber",
}

_loaded: dict[tuple[str, ...], Any] = {}  # by all of a spec that the model depends on, and the device


def load_describer(spec: DescriberSpec, *, device: str = "auto") -> Describer:
    """The describer of a spec on a device; those of one checkpoint share its model, whatever they ask.

    Args:
        spec: what `resolve_describer` gives.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.

    Raises:
        ModelError: the checkpoint found is not the one that the spec describes, or its weights do not fit its class.
        ArgumentError: this machine does not have the device.
    """
    family = _family(spec)
    place = str(resolve_device(device))
    key = (spec.fingerprint, spec.family, spec.task, spec.precision, place)
    with LOADING:
        if key not in _loaded:
            with load_errors(spec.name, place):
                _loaded[key] = family.load(spec, directory_of(spec), device=place)
        describer: Describer = family(spec, _loaded[key])
    return describer


def _family(spec: DescriberSpec) -> Any:
    if spec.family not in FAMILIES:
        raise ModelError(f"unknown family {spec.family!r}; expected one of {', '.join(sorted(FAMILIES))}")
    module, _, name = FAMILIES[spec.family].partition(":")
    return getattr(importlib.import_module(module), name)


def check_describer(spec: DescriberSpec) -> None:
    """Refuse, in seconds and without reading weights, a prompt that every row would fail with.

    Raises:
        ArgumentError: the prompt can be asked of no row: it holds a token of control, or is too long for the model.
        ModelError: the processor is unusable.
    """
    _family(spec).check(spec, directory_of(spec))


def load_config(kind: Any, directory: Path) -> Any:
    """The configuration of a checkpoint of one of transformers' classes.

    Raises:
        ModelError: it cannot be read.
    """
    from transformers import AutoConfig

    reader = kind.config_class if getattr(kind, "config_class", None) is not None else AutoConfig
    try:
        return reader.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # as above
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{directory / 'config.json'} cannot be read ({reason})") from error


def load_model(kind: Any, directory: Path, *, dtype: Any) -> Any:
    """A model of one of transformers' classes, in eval mode on the CPU, from safetensors that hold all of it.

    Args:
        kind: the class.
        directory: the checkpoint, in one file or in shards.
        dtype: what its floats become.

    Raises:
        ModelError: weights are missing, of other shapes, or belong to another class.
    """
    model, seen = load_pretrained(kind, directory, dtype=dtype)
    _check(seen, model, f"{directory} does not hold a whole {kind.__name__}")
    return model.eval().requires_grad_(False)


def _check(seen: Mapping[str, Any], model: Any, what: str) -> None:
    """Refuse a model some of whose weights would be random numbers, and the weights of another class."""
    if seen["missing_keys"]:
        raise ModelError(f"{what}: it lacks {few(seen['missing_keys'])}")
    if seen["mismatched_keys"]:
        shapes = [f"{name} {tuple(found)} for {tuple(wanted)}" for name, found, wanted in seen["mismatched_keys"]]
        raise ModelError(f"{what}: shapes differ, {few(shapes)}")
    # A leftover beside known parts is a buffer of an older transformers; one of another part, of another model.
    parts = {name.partition(".")[0] for name in model.state_dict()}
    foreign = [name for name in seen["unexpected_keys"] if name.partition(".")[0] not in parts]
    if foreign:
        raise ModelError(f"{what}, but another model's weights: {few(foreign)}")
    if seen["error_msgs"]:
        raise ModelError(f"{what}: {few(seen['error_msgs'])}")


def load_processor(kind: Any, directory: Path) -> Any:
    """The processor of a checkpoint; pictures are resized by Pillow, wherever torchvision is installed too.

    Raises:
        ModelError: it is incomplete or damaged.
    """
    try:
        return kind.from_pretrained(directory, local_files_only=True, trust_remote_code=False, backend="pil")
    except Exception as error:  # as above
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{directory} has no usable processor ({reason}); save it beside the model (processor.save_pretrained)"
        ) from error
