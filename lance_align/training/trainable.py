"""A checkpoint as the loop takes it: the model, its tokenizer, and how pictures become its input."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from lance_align.encoders.checkpoints import locate
from lance_align.errors import ModelError
from lance_align.spec import ImageSpec


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Trainable:
    """An ALIGN model that can be trained and saved.

    Attributes:
        model: a transformers ``AlignModel`` in float32.
        tokenizer: its fast transformers tokenizer.
        image: geometry and scaling of its pictures.
        max_tokens: longest text, special tokens included; longer ones are cut.
    """

    model: Any
    tokenizer: Any
    image: ImageSpec
    max_tokens: int

    def save(self, directory: Path) -> None:
        """Write a checkpoint directory that transformers and `lance_align.encoders.load_encoder` load.

        Args:
            directory: made if it is missing; files of the same names are replaced.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.model.to(torch.float32, memory_format=torch.contiguous_format).save_pretrained(directory)
        self.tokenizer.backend_tokenizer.no_truncation()  # else the last batch's settings are saved as the model's
        self.tokenizer.backend_tokenizer.no_padding()
        self.tokenizer.save_pretrained(directory)
        text = json.dumps(preprocessor_config(self.image), indent=2, sort_keys=True)
        (directory / "preprocessor_config.json").write_text(text + "\n", encoding="utf-8")


def load_trainable(model: str, *, revision: str | None = None) -> Trainable:
    """Load a checkpoint to train it further.

    Args:
        model: a known name, a hub id or a directory, as `lance_align.encoders.resolve_spec` takes.
        revision: a branch, tag or commit of a hub model.

    Raises:
        ModelError: it cannot be found or read, or has no weights to train.
    """
    from transformers import AlignModel, AutoTokenizer

    located = locate(model, revision=revision)
    if located.directory is None:
        raise ModelError(f"{model!r} has no weights to train; name an ALIGN checkpoint")
    found = AlignModel.from_pretrained(
        located.directory, dtype=torch.float32, local_files_only=True, use_safetensors=True
    )
    tokenizer = AutoTokenizer.from_pretrained(located.directory, local_files_only=True)
    return Trainable(found, tokenizer, located.spec.image, located.spec.max_tokens)


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
