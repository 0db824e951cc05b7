"""CLIP (arXiv 2103.00020), and what is built like it: two transformers, each with a linear projection."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from lance_align.encoders.families.base import Family
from lance_align.encoders.pixels import PixelTower
from lance_align.spec import ImageSpec


class Clip(Family):
    """Texts of at most 77 tokens; a text's vector is the state at its end, which sees all words before it."""

    config_class = "CLIPConfig"
    model_class = "CLIPModel"
    tensors: ClassVar[tuple[str, ...]] = (
        "vision_model.",
        "visual_projection.",
        "text_model.",
        "text_projection.",
        "logit_scale",
    )
    unused = ("vision_model.embeddings.position_ids", "text_model.embeddings.position_ids")  # buffers of old files

    def new_image_tower(self, config: Any, image: ImageSpec) -> PixelTower:
        """See `Family.new_image_tower`."""
        return ImageTower(self.whole(config), image)

    def new_text_tower(self, config: Any) -> nn.Module:
        """See `Family.new_text_tower`."""
        return TextTower(self.whole(config))


class ImageTower(PixelTower):
    """The projected, pooled output of a vision model."""

    def __init__(self, model: Any, image: ImageSpec) -> None:
        super().__init__(image)
        self.vision_model, self.visual_projection = model.vision_model, model.visual_projection

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `PixelTower.features`."""
        features: torch.Tensor = self.visual_projection(self.vision_model(pixel_values=pixels).pooler_output)
        return features


class TextTower(nn.Module):
    """Token ids and mask ``(n, length)`` to features ``(n, dim) float32``: the projected, pooled output."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.text_model, self.text_projection = model.text_model, model.text_projection

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        pooled = self.text_model(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        features: torch.Tensor = self.text_projection(pooled)
        return features.to(torch.float32)
