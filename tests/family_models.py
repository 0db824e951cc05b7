"""Checkpoints of every family for tests: real classes in small configurations, weights that tell inputs apart, saved.

A `Reference` gives the vectors that transformers' own model makes of the same files.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.align_models import CAPTION_WORDS, SMALL_PREPROCESSOR, save_tokenizer, small_config

SIDE_PX = 32
FRAMES = 4
LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
EYE = {**LAYERS, "image_size": SIDE_PX, "patch_size": 8}
_SHORTEST = {"size": {"shortest_edge": SIDE_PX}, "crop_size": {"height": SIDE_PX, "width": SIDE_PX}}
_SQUARE = {"size": {"height": SIDE_PX, "width": SIDE_PX}}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One family's small checkpoint.

    Attributes:
        model_class: of transformers.
        config: makes its configuration for a number of words.
        tokenizer: saves one into a directory and says how many words it has.
        processor: preprocessor_config.json.
    """

    model_class: str
    config: Callable[[int], Any]
    tokenizer: Callable[[Path], int]
    processor: dict[str, Any]


def clip_tokenizer(directory: Path) -> int:
    """A tokenizer of CLIP's form: letters, and the words of the captions."""
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(33, 127)]
    vocab = {token: number for number, token in enumerate([*letters, *(f"{letter}</w>" for letter in letters)])}
    merges: list[tuple[str, str]] = []
    for word in CAPTION_WORDS.split():
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            pair = parts[0] + parts[1]
            if pair not in vocab:
                vocab[pair] = len(vocab)
                merges.append((parts[0], parts[1]))
            parts[:2] = [pair]
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77).save_pretrained(directory)
    return len(vocab)


def bert_tokenizer(directory: Path) -> int:
    """A tokenizer of BERT's form."""
    save_tokenizer(directory, vocab_size=1000)
    return 1000


def siglip_tokenizer(directory: Path) -> int:
    """A SentencePiece model, as SigLIP has."""
    import sentencepiece
    from transformers import SiglipTokenizer

    words = CAPTION_WORDS.split()
    sentences = [" ".join(words[start : start + 5]) for start in range(len(words))]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=model, vocab_size=60, minloglevel=2, pad_id=-1, bos_id=-1
    )
    (directory / "spiece.model").write_bytes(model.getvalue())
    SiglipTokenizer(str(directory / "spiece.model")).save_pretrained(directory)
    return 60


def _clip(words: int) -> Any:
    from transformers import CLIPConfig

    return CLIPConfig(text_config=_clip_text(words), vision_config=EYE, projection_dim=24)


def _clip_text(words: int) -> dict[str, Any]:
    ends = {"bos_token_id": words - 2, "eos_token_id": words - 1, "pad_token_id": words - 1}
    return {**LAYERS, "vocab_size": words, "max_position_embeddings": 77, **ends}


def _siglip(words: int) -> Any:
    from transformers import SiglipConfig

    text = {**LAYERS, "vocab_size": words, "max_position_embeddings": 64}
    return SiglipConfig(text_config=text, vision_config=EYE)


def _groupvit(words: int) -> Any:
    from transformers import GroupViTConfig

    groups = {"depths": [1, 1, 1], "num_group_tokens": [8, 4, 0], "num_output_groups": [8, 4, 0]}
    vision = {**EYE, "patch_size": 4, "num_hidden_layers": 3, **groups}
    return GroupViTConfig(
        text_config=_clip_text(words), vision_config=vision, projection_dim=24, projection_intermediate_dim=48
    )


def _xclip(words: int) -> Any:
    from transformers import XCLIPConfig

    mit = {f"mit_{name}": value for name, value in {**LAYERS, "hidden_size": 24, "num_hidden_layers": 1}.items()}
    vision = {**EYE, **mit, "num_frames": FRAMES}
    prompt = {"prompt_layers": 2, "prompt_num_attention_heads": 2}
    return XCLIPConfig(text_config=_clip_text(words), vision_config=vision, projection_dim=24, **prompt)


def _blip(words: int) -> Any:
    from transformers import BlipConfig

    ends = {"bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    text = {**LAYERS, "vocab_size": words, "encoder_hidden_size": 32, "max_position_embeddings": 96, **ends}
    return BlipConfig(text_config=text, vision_config=EYE, image_text_hidden_size=24)


def _dual(words: int) -> Any:
    from transformers import BertConfig, VisionTextDualEncoderConfig, ViTConfig

    return VisionTextDualEncoderConfig.from_vision_text_configs(
        ViTConfig(**EYE), BertConfig(**LAYERS, vocab_size=words, max_position_embeddings=96), projection_dim=24
    )


def _align(words: int) -> Any:
    del words
    return small_config()


SAMPLES = {
    "align": Sample(model_class="AlignModel", config=_align, tokenizer=bert_tokenizer, processor=SMALL_PREPROCESSOR),
    "clip": Sample(
        model_class="CLIPModel",
        config=_clip,
        tokenizer=clip_tokenizer,
        processor={"image_processor_type": "CLIPImageProcessor", **_SHORTEST},
    ),
    "siglip": Sample(
        model_class="SiglipModel",
        config=_siglip,
        tokenizer=siglip_tokenizer,
        processor={"image_processor_type": "SiglipImageProcessor", **_SQUARE},
    ),
    "groupvit": Sample(
        model_class="GroupViTModel",
        config=_groupvit,
        tokenizer=clip_tokenizer,
        processor={"feature_extractor_type": "CLIPFeatureExtractor", "size": SIDE_PX, "crop_size": SIDE_PX},
    ),
    "xclip": Sample(
        model_class="XCLIPModel",
        config=_xclip,
        tokenizer=clip_tokenizer,
        processor={"image_processor_type": "VideoMAEImageProcessor", **_SHORTEST},
    ),
    "blip": Sample(
        model_class="BlipForImageTextRetrieval",
        config=_blip,
        tokenizer=bert_tokenizer,
        processor={"image_processor_type": "BlipImageProcessor", **_SQUARE},
    ),
    "vision-text-dual-encoder": Sample(
        model_class="VisionTextDualEncoderModel",
        config=_dual,
        tokenizer=bert_tokenizer,
        processor={"image_processor_type": "ViTImageProcessor", **_SQUARE},
    ),
}


def save_family(name: str, directory: Path, *, seed: int = 0) -> Path:
    """A checkpoint of a family; different inputs have different vectors."""
    import transformers

    from lance_align.benchmarks.weights import build_model, spread

    sample = SAMPLES[name]
    directory.mkdir(parents=True, exist_ok=True)
    words = sample.tokenizer(directory)
    if name == "align":
        model = build_model(sample.config(words), seed=seed, warm_up=8)
    else:
        torch.manual_seed(seed)
        model = spread(getattr(transformers, sample.model_class)(sample.config(words)))
    model.save_pretrained(directory)
    (directory / "preprocessor_config.json").write_text(json.dumps(sample.processor))
    return directory


class Reference:
    """transformers' own model and processors, used as its documentation shows, one input at a time."""

    def __init__(self, name: str, directory: Path) -> None:
        import transformers
        from transformers import AutoTokenizer

        self.name, self.sample = name, SAMPLES[name]
        self.model: Any = getattr(transformers, self.sample.model_class).from_pretrained(directory).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(directory)
        self.processor: Any = _processor_class(self.sample.processor).from_pretrained(directory)

    @torch.inference_mode()
    def image(self, picture: Image.Image | Sequence[Image.Image]) -> torch.Tensor:
        """``(1, dim)`` of norm 1, of an upright RGB picture or of the frames of a video."""
        pixels = self.pixels(picture)
        if self.name == "xclip":
            features = self.model.get_video_features(pixels).pooler_output
        elif self.name == "blip":
            features = self.model.vision_proj(self.model.vision_model(pixels).last_hidden_state[:, 0])
        else:
            features = self.model.get_image_features(pixel_values=pixels).pooler_output
        return torch.nn.functional.normalize(features)

    def pixels(self, picture: Image.Image | Sequence[Image.Image]) -> torch.Tensor:
        """What the processor makes of it."""
        shown = list(picture) if isinstance(picture, Sequence) else picture
        found: torch.Tensor = self.processor(shown, return_tensors="pt")["pixel_values"]
        return found

    @torch.inference_mode()
    def text(self, text: str) -> torch.Tensor:
        """``(1, dim)`` of norm 1."""
        tokens = self.tokens(text)
        if self.name == "blip":
            features = self.model.text_proj(self.model.text_encoder(**tokens).last_hidden_state[:, 0])
        else:
            features = self.model.get_text_features(**tokens).pooler_output
        return torch.nn.functional.normalize(features)

    def tokens(self, text: str) -> Any:
        """What the tokenizer makes of it."""
        most = {"align": 64, "blip": 64, "siglip": 64, "vision-text-dual-encoder": 64}.get(self.name, 77)
        padding: Any = "max_length" if self.name == "siglip" else False
        found = self.tokenizer([text], padding=padding, truncation=True, max_length=most, return_tensors="pt")
        kept = ("input_ids",) if self.name == "siglip" else ("input_ids", "attention_mask")
        return {key: found[key] for key in kept}


def _processor_class(config: dict[str, Any]) -> Any:
    from importlib import import_module

    kind = config.get("image_processor_type", config.get("feature_extractor_type", "EfficientNetImageProcessor"))
    name = kind.replace("ImageProcessor", "").replace("FeatureExtractor", "")
    module = import_module(f"transformers.models.{name.lower()}.image_processing_pil_{name.lower()}")
    return getattr(module, f"{name}ImageProcessorPil")


def smallest_cosine(ours: np.ndarray, reference: Sequence[torch.Tensor]) -> float:
    """Between rows of norm 1."""
    theirs = torch.cat(list(reference)).numpy()
    return float((ours * theirs).sum(axis=1).min())
