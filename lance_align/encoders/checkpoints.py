"""A model's name to its directory on this machine, and what lies there to a `ModelSpec`."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

from lance_align.encoders import hub
from lance_align.encoders.fingerprint import fingerprint
from lance_align.encoders.geometry import read_image_spec
from lance_align.errors import ModelError
from lance_align.spec import KNOWN_CHECKPOINTS, ImageSpec, ModelSpec

BUNDLED = Path(__file__).parent / "bundled"

# Longest text ALIGN was trained on, in tokens with CLS and SEP: arXiv 2102.05918, and AlignProcessor's max_length.
ALIGN_MAX_TOKENS = 64


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A model and where it lies; the directory is None for a model without weights."""

    spec: ModelSpec
    directory: Path | None


def resolve_spec(model: str | Path, *, revision: str | None = None) -> ModelSpec:
    """Describe a model without building it: configurations are read and weights are hashed.

    Args:
        model: a known name (``"align-tiny"``, ``"kakaobrain/align-base"``, ``"fake"``), a hub id, or a local directory.
        revision: a branch, tag or commit of a hub model; the spec records the commit.

    Raises:
        ModelError: no such model, the hub cannot be reached, not an ALIGN checkpoint, or weights that are not one
            safetensors file.
    """
    return locate(model, revision=revision).spec


def locate(model: str | Path, *, revision: str | None = None) -> Located:
    """As `resolve_spec`, with the directory."""
    model = str(model)
    known = KNOWN_CHECKPOINTS.get(model)
    if known is not None and known.source != "hub":
        _refuse_revision(model, revision)
    if known is not None and known.source == "none":
        testing = importlib.import_module("lance_align.testing")  # by name: it stands on this package
        return Located(spec=testing.FAKE_SPEC, directory=None)
    if known is not None and known.source == "bundled":
        return _read(BUNDLED / model, name=model, revision=None)
    if known is None and model and Path(model).expanduser().is_dir():
        _refuse_revision(model, revision)
        directory = Path(model).expanduser().resolve()
        return _read(directory, name=str(directory), revision=None)
    if not hub.is_hub_id(model):
        raise ModelError(
            f"unknown model {model!r}: not a known name ({', '.join(KNOWN_CHECKPOINTS)}), "
            "not a hub id (owner/name), and there is no such directory; check the spelling"
        )
    directory, commit = hub.download(model, revision=revision)
    return _read(directory, name=model, revision=commit)


def _refuse_revision(model: str, revision: str | None) -> None:
    if revision is not None:
        raise ModelError(f"revision {revision!r} given for {model!r}, which is not a hub model; leave it out")


def _read(directory: Path, *, name: str, revision: str | None) -> Located:
    try:
        _check_weights(directory)
        dim, max_tokens = _read_model_config(directory)
        spec = ModelSpec(
            name=name,
            revision=revision,
            family="align",
            dim=dim,
            image=_read_geometry(directory),
            max_tokens=max_tokens,
            fingerprint=fingerprint(directory),
        )
    except OSError as error:
        raise ModelError(f"model {name!r} cannot be read: {error}") from error
    return Located(spec=spec, directory=directory)


def _check_weights(directory: Path) -> None:
    """One safetensors file, or a refusal that names the remedy."""
    if not (directory / "config.json").is_file():
        raise ModelError(
            f"{directory} is not a checkpoint: it has no config.json; expected what AlignModel.save_pretrained writes"
        )
    if (directory / "model.safetensors").is_file():
        return
    if (directory / "model.safetensors.index.json").is_file():
        raise ModelError(
            f"{directory} holds sharded weights; expected one model.safetensors: "
            "load it with AlignModel and call save_pretrained(directory, max_shard_size='10GB')"
        )
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in directory.glob(pattern))
    seen = f"only {pickles[0]}, which can run code when it is opened" if pickles else "no weights"
    raise ModelError(
        f"{directory} holds {seen}; expected model.safetensors: "
        "convert it on a machine you trust, with AlignModel.from_pretrained and save_pretrained"
    )


def _read_model_config(directory: Path) -> tuple[int, int]:
    """Length of an embedding, and of the longest text in tokens."""
    path = directory / "config.json"
    raw = read_json(path)
    if raw.get("model_type") != "align":
        raise ModelError(f"{path} describes a {raw.get('model_type')!r} model; expected an ALIGN checkpoint ('align')")
    config = align_config(raw, where=str(path))
    limits = [ALIGN_MAX_TOKENS, config.text_config.max_position_embeddings]
    tokenizer_path = directory / "tokenizer_config.json"
    if tokenizer_path.is_file():
        limit = read_json(tokenizer_path).get("model_max_length")
        if isinstance(limit, (int, float)) and limit >= 2:  # transformers writes 1e30 for "no limit"
            limits.append(int(limit))
    return int(config.projection_dim), min(limits)


def align_config(raw: dict[str, Any], *, where: str) -> Any:
    """transformers' AlignConfig of a parsed config.json.

    Raises:
        ModelError: a field has a wrong type.
    """
    from transformers import AlignConfig

    try:
        return AlignConfig.from_dict(raw)
    except Exception as error:  # transformers validates with its own, changing, exception classes
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{where} is not a valid ALIGN configuration ({reason}); save the model again") from error


def _read_geometry(directory: Path) -> ImageSpec:
    """As transformers looks for it: nested in processor_config.json first, then in a file of its own."""
    nested = directory / "processor_config.json"
    if nested.is_file():
        raw = read_json(nested).get("image_processor")
        if isinstance(raw, dict):
            return read_image_spec(raw, where=str(nested))
    path = directory / "preprocessor_config.json"
    if not path.is_file():
        raise ModelError(f"{path} is missing; save the image processor beside the model (processor.save_pretrained)")
    return read_image_spec(read_json(path), where=str(path))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ModelError: damaged, or not an object.
    """
    try:
        raw = json.loads(path.read_bytes())
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({error}); fetch the checkpoint again") from error
    if not isinstance(raw, dict):
        raise ModelError(f"{path} holds a {type(raw).__name__}; expected a JSON object")
    return raw
