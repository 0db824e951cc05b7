"""A model's name to its directory on this machine, and what lies there to a `ModelSpec`."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from lance_align.encoders import hub
from lance_align.encoders.families import family
from lance_align.encoders.fingerprint import fingerprint
from lance_align.encoders.geometry import read_image_spec
from lance_align.encoders.kept_specs import keep_spec, kept_spec
from lance_align.encoders.once import LOADING
from lance_align.errors import ModelError
from lance_align.spec import KNOWN_CHECKPOINTS, ModelSpec

KNOWN_NAMES = tuple(name for name, known in KNOWN_CHECKPOINTS.items() if known.source != "none")
BUNDLED = Path(__file__).parent / "bundled"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A model and where it lies; the directory is None for a model without weights."""

    spec: ModelSpec
    directory: Path | None


def resolve_spec(model: str | Path, *, revision: str | None = None) -> ModelSpec:
    """Describe a model without loading it: configurations are read, weights are hashed.

    What loading it would refuse is refused here: the header of the weights is compared with what its configuration
    asks for, and its tokenizer is read.

    Args:
        model: a known name (``"align-tiny"``, ``"kakaobrain/align-base"``, ``"fake"``), a hub id, or a local directory.
        revision: a branch, tag or commit of a hub model; the spec records the commit.

    Raises:
        ModelError: no such model, the hub cannot be reached, a model of another family, weights that are not one
            safetensors file or do not fit the configuration, or no tokenizer.

    >>> lance_align.resolve_spec("align-tiny").dim
    256
    """
    located = locate(model, revision=revision)
    if located.directory is not None and kept_spec(located.spec.fingerprint) is None:
        # The bundled model is whole: its tests say so, and to compare it would import for seconds.
        if located.directory.parent != BUNDLED:
            towers: Any = importlib.import_module("lance_align.encoders.two_towers")
            with LOADING:
                towers.check_whole(located.spec, located.directory)
        keep_spec(located.spec)
    return located.spec


def locate(model: str | Path, *, revision: str | None = None) -> Located:
    """As `resolve_spec`, with the directory."""
    model = str(model)
    known = KNOWN_CHECKPOINTS.get(model)
    if known is not None and known.source != "hub":
        hub.refuse_revision(model, revision)
    if known is not None and known.source == "none":
        testing = importlib.import_module("lance_align.testing")  # by name: it stands on this package
        return Located(spec=testing.FAKE_SPEC, directory=None)
    if known is not None and known.source == "bundled":
        return _read(BUNDLED / model, name=model, revision=None)
    if known is not None:  # whatever lies in a folder of that name
        directory, commit = hub.download(model, revision=revision, known=KNOWN_NAMES)
        return _read(directory, name=model, revision=commit)
    directory, name, found_commit = hub.find(model, revision=revision, known=KNOWN_NAMES)
    return _read(directory, name=name, revision=found_commit)


def checkpoint_fingerprint(model: str, *, revision: str | None) -> str | None:
    """The fingerprint of a model's files, of which nothing else is looked at; None where they cannot be read.

    Raises:
        ModelError: as `hub.find`.
    """
    known = KNOWN_CHECKPOINTS.get(model)
    if known is not None and known.source == "none":
        return None
    if known is not None and known.source == "bundled":
        directory = BUNDLED / model
    elif known is not None:
        directory, _ = hub.download(model, revision=revision, known=KNOWN_NAMES)
    else:
        directory, *_ = hub.find(model, revision=revision, known=KNOWN_NAMES)
    try:
        return fingerprint(directory)
    except OSError:
        return None


def _read(directory: Path, *, name: str, revision: str | None) -> Located:
    try:
        check_weights(directory)
        kept = kept_spec(fingerprint(directory))
        if kept is not None:
            return Located(spec=dataclasses.replace(kept, name=name, revision=revision), directory=directory)
        path = directory / "config.json"
        raw = read_json(path)
        with LOADING:
            kind = family(raw.get("model_type"), where=str(path))
            config = kind.config(raw, where=str(path))
        found, where = read_processor(directory)
        image = read_image_spec(found, where=where, processor=kind.processor, frames=kind.frames(config))
        kind.check_image(config, image, where=where)
        spec = ModelSpec(
            name=name,
            revision=revision,
            family=raw["model_type"],
            dim=kind.dim(config),
            image=image,
            max_tokens=min(kind.max_tokens(config), tokenizer_limit(directory)),
            fingerprint=fingerprint(directory),
        )
    except OSError as error:
        raise ModelError(f"model {name!r} cannot be read: {error}") from error
    return Located(spec=spec, directory=directory)


def check_weights(directory: Path) -> None:
    """One safetensors file, or a refusal that names the remedy.

    Raises:
        ModelError: no checkpoint, or weights that are not one safetensors file.
    """
    check_form(directory)
    if (directory / "model.safetensors").is_file():
        return
    if (directory / "model.safetensors.index.json").is_file():
        raise ModelError(
            f"{directory} holds sharded weights; expected one model.safetensors: "
            "load it with transformers and call save_pretrained(directory, max_shard_size='10GB')"
        )
    others = [path.name for pattern in ("*.h5", "*.msgpack") for path in directory.glob(pattern)]
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in directory.glob(pattern))
    seen = f"only {pickles[0]}, which can run code when it is opened" if pickles else "no weights"
    seen += f" but {others[0]}, of another framework" if others else ""
    raise ModelError(
        f"{directory} holds {seen}; expected model.safetensors: "
        "convert it on a machine you trust, with transformers' from_pretrained and save_pretrained"
    )


def check_form(directory: Path) -> None:
    """Refuse a directory that other programs write, by its name and with the remedy.

    Raises:
        ModelError: it is not what transformers' ``save_pretrained`` writes for a whole model.
    """
    if (directory / "adapter_config.json").is_file():
        raise ModelError(
            f"{directory} holds a PEFT adapter (adapter_config.json); expected the whole model: load it with peft, and "
            "save what merge_and_unload() gives, and its processor, with save_pretrained"
        )
    if (directory / "config.json").is_file():
        return
    open_clip = sorted(path.name for path in directory.glob("open_clip*"))
    inner = sorted(path.parent.name for path in directory.glob("*/config.json"))
    inner += sorted(f"snapshots/{path.parent.name}" for path in directory.glob("snapshots/*/config.json"))
    if inner:
        remedy = f"there is one in it: name {directory / inner[0]}"
    elif (directory / "modules.json").is_file():
        remedy = "it is of sentence-transformers (modules.json): name the folder in it that has a config.json"
    elif open_clip:
        remedy = f"it is of open_clip ({open_clip[0]}): name one in transformers' form, or convert it to CLIPModel"
    else:
        remedy = "expected what a model's save_pretrained writes"
    raise ModelError(f"{directory} is not a checkpoint: it has no config.json; {remedy}")


def tokenizer_limit(directory: Path) -> int:
    """The longest text that the tokenizer's file allows, in tokens; a large number where it does not say."""
    path = directory / "tokenizer_config.json"
    limit = read_json(path).get("model_max_length") if path.is_file() else None
    # transformers writes 1e30 for "no limit"
    return int(limit) if isinstance(limit, (int, float)) and limit >= 2 else sys.maxsize


def read_processor(directory: Path) -> tuple[dict[str, Any], str]:
    """The image processor's configuration and its file, as transformers looks for it: nested in processor_config.json
    first, then in a file of its own.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    nested = directory / "processor_config.json"
    if nested.is_file():
        found = read_json(nested)
        for part in ("image_processor", "video_processor"):
            if isinstance(found.get(part), dict):
                return found[part], str(nested)
    path = directory / "preprocessor_config.json"
    if not path.is_file():
        raise ModelError(f"{path} is missing; save the image processor beside the model (processor.save_pretrained)")
    return read_json(path), str(path)


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
