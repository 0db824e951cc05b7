"""Two checkpoints of single towers to one VisionTextDualEncoder that has yet to be trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lance_align.encoders import hub
from lance_align.encoders.checkpoints import check_weights, read_json, read_processor, tokenizer_limit
from lance_align.encoders.families.dual import TEXT_MODELS, VISION_MODELS, Dual
from lance_align.encoders.geometry import read_image_spec
from lance_align.errors import ArgumentError, ModelError, few
from lance_align.training.trainable import Trainable, load_model, load_tokenizer

# A checkpoint made for another task (classification, filling masks) may lack the last layer of the pooled state. It is
# learnt with the projection behind it.
_POOLER = "pooler."


def pair_towers(vision: str | Path, text: str | Path, *, projection_dim: int, seed: int) -> Trainable:
    """A model with both towers, and with projections drawn at random, to be trained.

    Args:
        vision: a ViT, DeiT, CLIP or CLIP vision checkpoint with its image processor: a hub id or a directory.
        text: the same of a BERT, RoBERTa, XLM-RoBERTa, CLIP or CLIP text checkpoint with its tokenizer.
        projection_dim: length of the vectors.
        seed: of the projections, and of a pooler that a checkpoint lacks.

    Raises:
        ArgumentError: `projection_dim` is no length.
        ModelError: a checkpoint cannot be found, is of another kind, or lacks weights beside a pooler's.
    """
    from transformers import VisionTextDualEncoderModel

    if projection_dim < 1:
        raise ArgumentError(f"projection_dim={projection_dim}; expected a whole number above 0")
    torch.manual_seed(seed)
    (vision_directory, _, _), (text_directory, _, _) = hub.find(vision), hub.find(text)
    kind, vision_tower, vision_fresh = _tower(vision_directory, VISION_MODELS, "CLIPVisionModel")
    _, text_tower, text_fresh = _tower(text_directory, TEXT_MODELS, "CLIPTextModel")
    model: Any = VisionTextDualEncoderModel.from_vision_text_pretrained(
        vision_model=vision_tower, text_model=text_tower, projection_dim=projection_dim
    )
    raw, where = read_processor(vision_directory)
    default = "CLIP" if kind.startswith("clip") else "ViT"
    image = read_image_spec(raw, where=where, processor=default)
    dual = Dual()
    dual.check_image(model.config, image, where=where)
    # A file without a class name would be read with the defaults of another processor beside the new model.
    named = "image_processor_type" in raw or "feature_extractor_type" in raw
    processor = raw if named else {"image_processor_type": f"{default}ImageProcessor", **raw}
    fresh = {f"vision_model.{name}" for name in vision_fresh} | {f"text_model.{name}" for name in text_fresh}
    longest = min(dual.max_tokens(model.config), tokenizer_limit(text_directory))
    return Trainable(model, load_tokenizer(text_directory), image, longest, processor, frozenset(fresh))


def _tower(directory: Path, kinds: tuple[str, ...], clip_class: str) -> tuple[str, Any, frozenset[str]]:
    """What kind of model a checkpoint holds, its tower, and the names of the pooler's parameters if it lacks one."""
    from transformers import AutoModel

    check_weights(directory)
    kind = str(read_json(directory / "config.json").get("model_type"))
    if kind not in ("clip", *kinds):
        raise ModelError(f"{directory} holds a {kind!r} model; expected one of {', '.join(('clip', *kinds))}")
    import transformers

    model, missing = load_model(getattr(transformers, clip_class) if kind.startswith("clip") else AutoModel, directory)
    lacking = sorted(name for name in missing if not name.startswith(_POOLER))
    if lacking:
        raise ModelError(f"{directory} lacks {few(lacking)}; the weights do not fit config.json beside them")
    return kind, model, missing
