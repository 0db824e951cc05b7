"""A checkpoint as the loop takes it: the model, its tokenizer, and how pictures become its input."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lance_align.encoders.checkpoints import locate, read_processor
from lance_align.encoders.families import family
from lance_align.encoders.pretrained import load_pretrained, quietly
from lance_align.errors import ModelError, few
from lance_align.spec import ImageSpec
from lance_align.training.checkpoint import writing

TRAINED = ("align", "clip", "vision-text-dual-encoder")  # families whose loss is a softmax over the batch
ALIGN_LABEL_SMOOTHING = 0.1  # arXiv 2102.05918


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Trainable:
    """A model of one of the families `TRAINED` that can be trained and saved.

    Attributes:
        model: the family's transformers model in float32.
        tokenizer: its fast transformers tokenizer.
        image: geometry and scaling of its pictures.
        max_tokens: longest text, special tokens included; longer ones are cut.
        processor: the image processor's configuration, saved as it is; None writes `image` in the words of ALIGN's.
        fresh: names of parameters that no checkpoint had; they learn even in a frozen tower.
    """

    model: Any
    tokenizer: Any
    image: ImageSpec
    max_tokens: int
    processor: Mapping[str, Any] | None = None
    fresh: frozenset[str] = frozenset()

    @property
    def label_smoothing(self) -> float:
        """What the family's paper has."""
        return ALIGN_LABEL_SMOOTHING if self.model.config.model_type == "align" else 0.0

    def save(self, directory: Path) -> None:
        """Write a checkpoint directory that transformers and `lance_align.encoders.load_encoder` load.

        Args:
            directory: made if it is missing; files of the same names are replaced.

        Raises:
            JobError: it cannot be written.
        """
        processor = preprocessor_config(self.image) if self.processor is None else dict(self.processor)
        text = json.dumps(processor, indent=2, sort_keys=True)
        self.tokenizer.backend_tokenizer.no_truncation()  # else the last batch's settings are saved as the model's
        self.tokenizer.backend_tokenizer.no_padding()
        with writing(directory), quietly():
            directory.mkdir(parents=True, exist_ok=True)
            self.model.to(torch.float32, memory_format=torch.contiguous_format).save_pretrained(directory)
            self.tokenizer.save_pretrained(directory)
            described = directory / "preprocessor_config.json"
            described.write_text(text + "\n", encoding="utf-8")
            for weights in directory.glob("*.safetensors"):  # safetensors' own mode is 0600, whatever the umask
                shutil.copymode(described, weights)


def load_trainable(model: str, *, revision: str | None = None) -> Trainable:
    """Load a checkpoint to train it further; a VisionTextDualEncoder may have projections that nobody has trained.

    Args:
        model: a known name, a hub id or a directory, as `lance_align.encoders.resolve_spec` takes.
        revision: a branch, tag or commit of a hub model.

    Raises:
        ModelError: it cannot be found or read, is of a family that is not trained here, or lacks weights.
    """
    import transformers

    located = locate(model, revision=revision)
    if located.directory is None:
        raise ModelError(
            f"{model!r} has no weights to train; name a checkpoint of ALIGN, CLIP or VisionTextDualEncoder"
        )
    if located.spec.family not in TRAINED:
        raise ModelError(f"{model!r} is of the family {located.spec.family!r}; those trained are {', '.join(TRAINED)}")
    kind = family(located.spec.family, where=str(located.directory))
    found, missing = load_model(getattr(transformers, kind.model_class), located.directory)
    lacking = sorted(name for name in missing if not name.startswith(kind.unused))
    if lacking:
        raise ModelError(f"{located.directory} lacks {few(lacking)}; the weights do not fit config.json beside them")
    processor, _ = read_processor(located.directory)
    return Trainable(found, load_tokenizer(located.directory), located.spec.image, located.spec.max_tokens, processor)


def load_model(model_class: Any, directory: Path) -> tuple[Any, frozenset[str]]:
    """A transformers model in float32, and the names of its tensors that the file does not have.

    Raises:
        ModelError: the file cannot be read, or has tensors in other shapes.
    """
    model, seen = load_pretrained(model_class, directory, dtype=torch.float32)
    if seen["mismatched_keys"]:
        raise ModelError(
            f"{directory} has other shapes than config.json says: {few(name for name, *_ in seen['mismatched_keys'])}"
        )
    return model, frozenset(seen["missing_keys"])


def load_tokenizer(directory: Path) -> Any:
    """The fast tokenizer of a checkpoint.

    Raises:
        ModelError: there is none.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # as above
        raise ModelError(f"{directory}: its tokenizer cannot be read: {' '.join(str(error).split())[:200]}") from error
    if not tokenizer.is_fast:
        raise ModelError(f"{directory}: expected a fast tokenizer (tokenizer.json, or what transformers converts)")
    return tokenizer


def preprocessor_config(image: ImageSpec) -> dict[str, Any]:
    """An `ImageSpec` in the words of transformers' EfficientNet image processor.

    ``x * scale + shift`` is written as ``x * factor - 1`` where that says it (ALIGN), else as ``(x - mean) / std``.
    """
    plain = set(image.shift) == {-1.0} and len(set(image.scale)) == 1
    pairs = list(zip(image.scale, image.shift, strict=True))
    return {
        "image_processor_type": "EfficientNetImageProcessor",
        "do_resize": True,
        "size": {"height": image.resize[0], "width": image.resize[1]},
        "resample": {"bilinear": 2, "bicubic": 3}[image.resample],
        "do_center_crop": True,
        "crop_size": {"height": image.crop[0], "width": image.crop[1]},
        "do_rescale": plain,
        "rescale_factor": image.scale[0],
        "rescale_offset": plain,
        "do_normalize": not plain,
        "image_mean": [0.0 - shift / scale for scale, shift in pairs],
        "image_std": [1 / scale for scale, _ in pairs],
        "include_top": False,
    }
