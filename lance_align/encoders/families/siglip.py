"""SigLIP (arXiv 2303.15343), and SigLIP 2 (arXiv 2502.14786) of one resolution: a sigmoid instead of a softmax."""

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


class Siglip(Family):
    """Trained on texts padded to the longest length without a mask, so padding is part of a text's vector."""

    config_class = "SiglipConfig"
    model_class = "SiglipModel"
    tensors = ("vision_model.", "text_model.", "logit_scale", "logit_bias")
    unused = ("vision_model.embeddings.position_ids", "text_model.embeddings.position_ids")  # buffers of old files
    processor = "Siglip"
    pads_texts = True

    def dim(self, config: Any) -> int:
        """See `Family.dim`: the image tower has no projection."""
        return int(config.vision_config.hidden_size)

    def new_image_tower(self, config: Any, image: ImageSpec) -> PixelTower:
        """See `Family.new_image_tower`.

        Raises:
            ModelError: the towers end in vectors of different lengths.
        """
        text_dim = getattr(config.text_config, "projection_size", config.text_config.hidden_size)
        if text_dim != config.vision_config.hidden_size:
            raise ModelError(
                f"the text tower ends in {text_dim} numbers, the image tower in {config.vision_config.hidden_size}"
            )
        return ImageTower(self.whole(config), image)

    def new_text_tower(self, config: Any) -> nn.Module:
        """See `Family.new_text_tower`."""
        return TextTower(self.whole(config))

    def score(self, weights: Weights) -> Score:
        """See `Family.score`."""
        scale, bias = weights.scalar("logit_scale"), weights.scalar("logit_bias")
        return Score.of_scale(scale, bias=bias, kind="sigmoid")


class ImageTower(PixelTower):
    """The output of the attention pool."""

    def __init__(self, model: Any, image: ImageSpec) -> None:
        super().__init__(image)
        self.vision_model = model.vision_model

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `PixelTower.features`."""
        features: torch.Tensor = self.vision_model(pixel_values=pixels).pooler_output
        return features


class TextTower(nn.Module):
    """Token ids ``(n, length)`` to features ``(n, dim) float32``; the mask is not looked at."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.text_model = model.text_model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        del attention_mask
        features: torch.Tensor = self.text_model(input_ids=input_ids).pooler_output
        return features.to(torch.float32)
