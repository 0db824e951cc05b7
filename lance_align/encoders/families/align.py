"""ALIGN (arXiv 2102.05918): EfficientNet and BERT into one space."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lance_align.encoders.base import Score
from lance_align.encoders.families.base import Family
from lance_align.encoders.pixels import PixelTower
from lance_align.encoders.weights import Weights
from lance_align.errors import ModelError
from lance_align.spec import ImageSpec

# Longest text ALIGN was trained on, in tokens with CLS and SEP: arXiv 2102.05918, and AlignProcessor's max_length.
MAX_TOKENS = 64

# What shapes the network at inference; a checkpoint's other settings (dropout, output flags) must not reach it.
_BERT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "max_position_embeddings",
    "type_vocab_size",
    "layer_norm_eps",
    "pad_token_id",
)


class Align(Family):
    """The image vector has no projection of its own; cosines are divided by a temperature."""

    config_class = "AlignConfig"
    model_class = "AlignModel"
    tensors = ("vision_model.", "text_model.", "text_projection.", "temperature")
    # BERT's tanh pooler does not enter ALIGN's vector; the buffers were saved by transformers before 4.31.
    unused = ("text_model.pooler.", "text_model.embeddings.position_ids", "text_model.embeddings.token_type_ids")
    processor = "EfficientNet"

    def max_tokens(self, config: Any) -> int:
        """See `Family.max_tokens`."""
        return min(MAX_TOKENS, super().max_tokens(config))

    def check_image(self, config: Any, image: ImageSpec, *, where: str) -> None:
        """Nothing: a convolutional tower takes any size."""

    def new_image_tower(self, config: Any, image: ImageSpec) -> PixelTower:
        """See `Family.new_image_tower`.

        Raises:
            ModelError: the tower does not end in `projection_dim` channels.
        """
        tower = ImageTower(config.vision_config, image)
        blocks: Any = tower.vision_model.encoder.blocks
        last = blocks[-1].projection.project_conv.out_channels
        if last != config.projection_dim:
            raise ModelError(f"the image tower ends in {last} channels but projection_dim is {config.projection_dim}")
        return tower

    def new_text_tower(self, config: Any) -> nn.Module:
        """See `Family.new_text_tower`."""
        return TextTower(config.text_config, config.projection_dim)

    def score(self, weights: Weights) -> Score:
        """See `Family.score`."""
        temperature = weights.scalar("temperature")
        if not temperature > 0.0:
            raise ModelError(f"{weights.path}: temperature is {temperature}; expected a number above 0")
        return Score(temperature=temperature)


class ImageTower(PixelTower):
    """EfficientNet; a vector is the mean (or the maximum) of its last map."""

    def __init__(self, config: Any, image: ImageSpec) -> None:
        from transformers import AlignVisionModel

        super().__init__(image)
        self.vision_model = AlignVisionModel(config)
        if config.pooling_type not in ("mean", "max"):
            raise ModelError(f"pooling_type {config.pooling_type!r} is not known; expected 'mean' or 'max'")
        self.pool_max = config.pooling_type == "max"

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `PixelTower.features`; averaged in float32."""
        # Past the checkpoint's own pooler: AvgPool2d over a kernel larger than the map is refused by ONNX and OpenVINO,
        # and equals a mean over the map (to 6e-6).
        features: torch.Tensor = self.vision_model.encoder(self.vision_model.embeddings(pixels)).last_hidden_state
        features = features.to(torch.float32)
        return features.amax((2, 3)) if self.pool_max else features.mean((2, 3))


class TextTower(nn.Module):
    """Token ids and mask ``(n, length)`` to features ``(n, dim) float32``: a linear map of BERT's raw CLS state."""

    def __init__(self, config: Any, dim: int) -> None:
        from transformers import BertConfig, BertModel

        super().__init__()
        settings: dict[str, Any] = {name: getattr(config, name) for name in _BERT_FIELDS}
        # ALIGN's own text class cannot use fused attention; BERT is the same network and can.
        settings["attn_implementation"] = "sdpa"
        self.text_model = BertModel(BertConfig(**settings), add_pooling_layer=False)
        self.text_projection = nn.Linear(config.hidden_size, dim)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states = self.text_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        features: torch.Tensor = self.text_projection(states[:, 0])
        return features.to(torch.float32)
