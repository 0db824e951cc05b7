"""A model's name to its directory on this machine, and what lies there to a `DescriberSpec`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from lance_align.describers.prompts import Prompt
from lance_align.describers.spec import MAX_SIDE_PX, DescriberSpec, Task
from lance_align.encoders import hub
from lance_align.encoders.checkpoints import check_form, read_json
from lance_align.encoders.devices import Precision, check_precision
from lance_align.encoders.fingerprint import fingerprint
from lance_align.encoders.once import LOADING
from lance_align.errors import ArgumentError, ModelError, few

# What decides a text, as patterns: no code, no pickles, no other framework's weights.
FILES = (
    *hub.CHECKPOINT_FILES,
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "model-*-of-*.safetensors",
    "qformer_tokenizer/*.json",
    "qformer_tokenizer/vocab.txt",
)
DEFAULT_NEW_TOKENS = 64  # BLIP's captions of COCO have some 10 words, LLaVA's answers are sentences

# By class, for BLIP's two heads share a model type.
_BLIP_TASKS: dict[str, Task] = {"BlipForConditionalGeneration": "caption", "BlipForQuestionAnswering": "question"}
_INSTRUCTBLIP = "InstructBlipForConditionalGeneration"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A describer's spec and where its model lies."""

    spec: DescriberSpec
    directory: Path


def resolve_describer(
    model: str | Path,
    *,
    revision: str | None = None,
    task: Task | None = None,
    prompt: str | None = None,
    max_new_tokens: int = DEFAULT_NEW_TOKENS,
    temperature: float = 0.0,
    seed: int = 0,
    precision: Precision = "auto",
    max_side_px: int = MAX_SIDE_PX,
) -> DescriberSpec:
    """Say what describes pictures, without loading it: configurations are read and weights are hashed.

    Args:
        model: a hub id or a local directory: a checkpoint of BLIP, InstructBLIP, LLaVA, or of any other class of
            transformers' image-text-to-text models, with a chat template.
        revision: a branch, tag or commit of a hub model; the spec records the commit.
        task: None for what the checkpoint was made for.
        prompt: see `lance_align.describers.prompts.Prompt`; the beginning of a caption, a question, or an instruction.
        max_new_tokens, temperature, seed, precision, max_side_px: see `DescriberSpec`.

    Raises:
        ModelError: no such model, the hub cannot be reached, a checkpoint of another family, or no safetensors.
        ArgumentError: an option has no such value, or the task needs a prompt.
    """
    check_precision(precision)
    for name, number in (("max_new_tokens", max_new_tokens), ("max_side_px", max_side_px)):
        if number < 1:
            raise ArgumentError(f"{name}={number}; expected a number above 0")
    if not 0 <= temperature < float("inf"):
        raise ArgumentError(f"temperature={temperature}; expected 0 for the likeliest tokens, or a number above it")
    directory, name, commit = _found(model, revision)
    family, own_task = _family(directory, task)
    if prompt is not None:
        Prompt(prompt)
    elif own_task != "caption":
        raise ArgumentError(f"model {name!r} follows a prompt (task {own_task!r}); say with prompt what it is asked")
    try:
        digest = fingerprint(directory, files=_files(directory))
    except OSError as error:
        raise ModelError(f"model {name!r} cannot be read: {error}") from error
    return DescriberSpec(
        name=name,
        revision=commit,
        family=family,
        task=own_task,
        prompt=prompt,
        max_new_tokens=max_new_tokens,
        temperature=float(temperature),
        seed=seed,
        precision=precision,
        max_side_px=max_side_px,
        fingerprint=digest,
    )


def directory_of(spec: DescriberSpec) -> Path:
    """Where the model of a spec lies on this machine.

    Raises:
        ModelError: it cannot be found, or what is found is another model.
    """
    directory, _, _ = _found(spec.name, spec.revision)
    found = fingerprint(directory, files=_files(directory))
    if found != spec.fingerprint:
        raise ModelError(
            f"model {spec.name!r} found here has fingerprint {found[:12]}, expected {spec.fingerprint[:12]}; another "
            "model would write other texts: bring the original, or describe into another column"
        )
    return directory


def _found(model: str | Path, revision: str | None) -> tuple[Path, str, str | None]:
    """Directory, name and commit."""
    directory, name, commit = hub.find(model, revision=revision, files=FILES)
    check_form(directory)
    weights = [name for name in _files(directory) if name.endswith(".safetensors")]
    if not weights:
        raise ModelError(
            f"{directory} holds no safetensors; expected model.safetensors or its shards: convert it on a machine you "
            "trust, with from_pretrained and save_pretrained"
        )
    _check_headers(directory, weights)
    return directory, name, commit


def _check_headers(directory: Path, files: Sequence[str]) -> None:
    """Read the headers of all weights, a few kilobytes each, and see that shards hold what their index says."""
    from lance_align.encoders.weights import Weights  # imports torch

    held = {name: Weights(directory / name).names for name in files}
    index = directory / "model.safetensors.index.json"
    if "model.safetensors" in held or not index.is_file():
        return
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict):
        raise ModelError(f"{index} has no weight_map; fetch the checkpoint again")
    lacking = [name for name, shard in places.items() if name not in held.get(str(shard), ())]
    if lacking:
        raise ModelError(f"{directory} lacks {few(lacking)}, which its index names; fetch the checkpoint again")


def _files(directory: Path) -> list[str]:
    """The files of `FILES` that are there, in a fixed order."""
    found = {path.relative_to(directory).as_posix() for pattern in FILES for path in directory.glob(pattern)}
    return sorted(found)


def _family(directory: Path, task: Task | None) -> tuple[str, Task]:
    """The family of a checkpoint and its task, by what its configuration says of its class."""
    if task is not None and task not in get_args(Task):
        raise ArgumentError(f"task={task!r}; expected one of {', '.join(get_args(Task))}")
    raw = read_json(directory / "config.json")
    kind, classes = raw.get("model_type"), _classes(raw)
    if kind == "blip":
        own = (
            task
            if task in _BLIP_TASKS.values()
            else next((_BLIP_TASKS[name] for name in classes & {*_BLIP_TASKS}), None)
        )
        if own is None or (classes and not classes & {*_BLIP_TASKS}):
            raise ModelError(f"{directory} is a {_named(kind, classes)}; expected one of {', '.join(_BLIP_TASKS)}")
        family, tasks = "blip", (own,)
    elif kind == "instructblip" and _INSTRUCTBLIP in (classes or {_INSTRUCTBLIP}):
        family, tasks = "instructblip", ("instruction",)
    elif _is_chat_class(kind, classes):
        if not _has_chat_template(directory):
            raise ModelError(
                f"{directory} is a {_named(kind, classes)} without a chat template, and so cannot be asked"
            )
        family, tasks = "llava", ("instruction",)
    else:
        raise ModelError(
            f"{directory} is a {_named(kind, classes)}; expected BLIP, InstructBLIP, LLaVA or another "
            "image-text-to-text model of transformers with a chat template"
        )
    if task not in (None, *tasks):
        raise ArgumentError(f"task={task!r}, but {_named(kind, classes)} does {tasks[0]!r}; leave it out")
    return family, tasks[0]


def _classes(raw: dict[str, Any]) -> set[str]:
    named = raw.get("architectures")
    return {str(name) for name in named} if isinstance(named, list) else set()


def _is_chat_class(kind: object, classes: set[str]) -> bool:
    """Whether transformers itself has the class, and lists it among those that take pictures and texts."""
    with LOADING:
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN

    known = KNOWN.get(kind) if isinstance(kind, str) else None
    names = {known} if isinstance(known, str) else set(known or ())
    return bool(names) and (not classes or bool(classes & names))


def _has_chat_template(directory: Path) -> bool:
    if any((directory / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    configurations = (directory / name for name in ("processor_config.json", "tokenizer_config.json"))
    return any("chat_template" in read_json(path) for path in configurations if path.is_file())


def _named(kind: object, classes: set[str]) -> str:
    return f"{kind!r} model" + (f" ({', '.join(sorted(classes))})" if classes else "")
